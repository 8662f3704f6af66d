"""汉字的序顺并不定一影阅响读: in a sentence whose characters are out of order, who looks at whom, head by head?

    python examples/who_looks_at_whom.py [RUN [SENTENCE [IN_ORDER]]]

RUN is a model trained on Chinese text (`pellucid train poems.txt --out RUN`); without one, a tiny model is trained on
the only Chinese text that is always there: Pellucid's own messages.
"""

import gettext
import sys
import tempfile
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import pellucid as pl

SENTENCE, IN_ORDER = "汉字的序顺并不定一影阅响读", "汉字的顺序并不一定影响阅读"

if len(sys.argv) > 1:
    model = pl.open(sys.argv[1])
else:
    catalogue = gettext.translation("pellucid", Path(pl.__file__).parent / "locale", ["zh"])
    folder = Path(tempfile.mkdtemp())
    (folder / "messages.txt").write_text("\n".join(map(str, catalogue._catalog.values())), "utf-8")  # type: ignore[attr-defined]
    options = {"steps": 60, "vocab": 1536, "width": 64, "heads": 4, "depth": 2, "context": 64, "batch": 16}
    model = pl.train(folder / "messages.txt", folder / "run", **options)
sentence = sys.argv[2] if len(sys.argv) > 2 else SENTENCE
in_order = sys.argv[3] if len(sys.argv) > 3 else IN_ORDER if sentence == SENTENCE else ""

trace = model.trace(sentence)

# Rare characters are several tokens, and frequent words one: what is shown are the shortest pieces that are whole.
pieces: list[tuple[str, list[int]]] = []
spelled, positions = b"", []
for position, id in enumerate(trace.ids):
    spelled, positions = spelled + model.tokenizer.token_bytes(id), [*positions, position]
    try:
        pieces.append((spelled.decode(), positions))
    except UnicodeDecodeError:
        continue
    spelled, positions = b"", []
names = [name for name, _ in pieces]
ends = [positions[-1] for _, positions in pieces]

console = Console(width=120)
habits = Table("head", "itself", "the one before", "the first", "others", title="where each head looks, on average")
for layer in range(model.network.config.n_layers):
    by_token = trace.attention(layer)  # probabilities: (heads, who looks, at whom)
    looks = torch.stack([by_token[:, ends][..., positions].sum(-1) for _, positions in pieces], dim=-1)
    columns = [f"head {head}" for head in range(len(looks))]
    console.print(f"layer {layer}: at whom each character looks most")
    table = Table("", *columns)
    for n, name in enumerate(names):
        seen = looks[:, n].max(dim=-1)
        table.add_row(name, *[f"{names[m]} {p:.0%}" for p, m in zip(*map(torch.Tensor.tolist, seen), strict=True)])
    console.print(table)
    for head, p in enumerate(looks[:, 2:]):  # from the third on, the four are different ones
        near = [p.diagonal(offset).mean().item() for offset in (2, 1)] + [p[:, 0].mean().item()]
        habits.add_row(f"{layer}.{head}", *[f"{share:.0%}" for share in (*near, 1 - sum(near))])
console.print(habits)

for text in filter(None, (sentence, in_order)):
    console.print(f"{text}: {model.evaluate(text).bits_per_byte:.2f} bits per byte")

# Why does the last one look where it looks? The difference of two scores is a sum, and flows from the characters.
last = ends[-1]
best, other = trace.attention(0, head=0)[last, ends].topk(2).indices.tolist()
score = trace.score(0, head=0, query=last, key=ends[best], rather_than=ends[other])
flow = trace.flow(score)
assert flow.tokens is not None
console.print(f"layer 0, head 0: {names[-1]} looks at {names[best]} rather than {names[other]}: {flow.value:+.3f} =")
for name, positions in pieces:
    if abs(share := flow.tokens[positions].sum().item()) > 1e-6:
        console.print(f"  {share:+.3f} from {name}")
console.print(f"  {flow.value - flow.tokens.sum().item():+.3f} from constants and rounding")
