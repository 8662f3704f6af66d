"""Is the explanation right? The flow's answers held against causes that are known, beside those of other methods.

(a) Induction: 2-layer transformers learn to go on with repeated random sequences of varying period. The token that
    comes next has one source, which should be the top contribution; and why the model looks there has one reason.
(b) A shortcut: a coloured corner decides the class of a picture, whatever else it shows. The pixels that contribute
    most are deleted, the first ones first: the faster the class is lost, the better they were chosen.
(c) Leave one out: on a decoder trained by `pellucid train`, how well the contributions of the tokens of unseen text
    agree, by rank, with what really happens when each of them is taken away.

All methods explain the same difference of two logits of the same trained networks. Captum gives gradient x input,
integrated gradients (50 steps) and Grad-CAM; TorchLens what its explanation of texts rests on: integrated gradients,
128 steps from zero.

python benchmarks/explanations.py [--quick] [--parts a b c] [--seeds 5] [--seconds 45] [--model MODEL]
"""

import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from captum.attr import InputXGradient, IntegratedGradients, LayerAttribution, LayerGradCam
from torch import Tensor, nn
from torchlens.attribution import integrated_gradients

import _folders as folders
import _measure as measure
import pellucid as pl
from _measure import Figures, verdict
from pellucid.networks.decoder import Decoder, decoder_config
from pellucid.tracing.answers import Question
from pellucid.tracing.text import TextTrace

CONVENTIONS = ("values", "gates", "half")
VOCABULARY, LENGTH, PERIODS, STEPS = 32, 24, (4, 12), 400
SIDE, CORNER, DELETED = 24, 4, 64  # pixels


def main() -> None:
    asked = measure.options(
        __doc__,
        parts={"nargs": "+", "choices": ["a", "b", "c"], "default": ["a", "b", "c"]},
        seeds={"type": int, "default": 5},
        seconds={"type": float, "default": 45},
        model={"help": "for (c): a model to open, instead of training one"},
    )
    if asked.quick:
        asked.seeds, asked.seconds = 1, 5
    measure.header("anything: these figures are shares and correlations", asked.quick)
    if "a" in asked.parts:
        induction(asked.seeds, 10 if asked.quick else 100)
    if "b" in asked.parts:
        shortcut(asked.seeds, 10 if asked.quick else 100)
    if "c" in asked.parts:
        left_out(asked.model, asked.seconds, 5 if asked.quick else 60)


# (a) induction


def induction(seeds: int, questions: int) -> None:
    """Print how often each method finds the true source of the next token."""
    found: defaultdict[tuple[str, str], Figures] = defaultdict(Figures)
    accuracies, keys = Figures(), Figures()
    for seed in range(seeds):
        torch.manual_seed(seed)
        network, accuracy = trained_on_repetition(seed)
        accuracies.add(100 * accuracy, False)
        hits: defaultdict[tuple[str, str], int] = defaultdict(int)
        matched = 0
        for _ in range(questions):
            ids_T, answer, period = repetition()
            last = len(ids_T) - 1
            asked = Asked(network, ids_T, answer)
            for name, contributions_T in by_token(asked).items():
                hits[name, "all"] += int(contributions_T.argmax()) == last - period + 1
                hits[name, "before"] += int(contributions_T[:-1].argmax()) == last - period + 1
            matched += int(why_it_looks(asked, last - period + 1).argmax()) == last - period
        for case, n in hits.items():
            found[case].add(100 * n / questions, False)
        keys.add(100 * matched / questions, False)
    print(f"(a) induction, {seeds} seeds x {questions} questions, accuracy {accuracies.show('.1f')} %")
    print("  the true source is the top contribution, % of the questions: median of the seeds (least to most)")
    print(f"  {'':<42}{'of all tokens':<20}of those before the last one")
    for name in dict.fromkeys(name for name, _ in found):
        print(f"  {name:<42}{found[name, 'all'].show('.0f'):<20}{found[name, 'before'].show('.0f')}")
    print(f"  {'flow, values: of all tokens':<42}{verdict(found['flow, values', 'all'], 98)}")
    print(f"  {'why it looks there: the matching token':<42}{verdict(keys, 98)}\n", flush=True)


def trained_on_repetition(seed: int) -> tuple[Decoder, float]:
    """A network that goes on with what it has seen, and its accuracy where that says what comes next."""
    shape = {"vocab_size": VOCABULARY, "d_model": 64, "n_layers": 2, "n_heads": 4, "context": LENGTH, "tied": False}
    network = Decoder(decoder_config("llama", **shape), seed=seed)
    nn.init.normal_(network.embedding.weight)  # starting from 0.02 takes ten times as many steps here
    optimiser = torch.optim.AdamW(network.parameters(), lr=5e-3, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, STEPS, pct_start=0.1, anneal_strategy="linear")

    def known(batch: int) -> tuple[Tensor, Tensor]:
        """Logits (N, V) where a period has passed, and what came next (N)."""
        ids_BT, periods_B = repetitions(batch)
        known_BT = torch.arange(1, LENGTH) >= periods_B[:, None]
        return network(ids_BT[:, :-1])[known_BT], ids_BT[:, 1:][known_BT]

    for _ in range(STEPS):
        optimiser.zero_grad()
        F.cross_entropy(*known(64)).backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        logits_NV, next_N = known(1000)
    return network.eval(), (logits_NV.argmax(1) == next_N).float().mean().item()


def repetitions(batch: int) -> tuple[Tensor, Tensor]:
    """Sequences (B, LENGTH) of different tokens repeated with a period each (B)."""
    periods_B = torch.randint(PERIODS[0], PERIODS[1] + 1, (batch,))
    drawn_BV = torch.rand(batch, VOCABULARY).argsort(1)
    return drawn_BV.gather(1, torch.arange(LENGTH) % periods_B[:, None]), periods_B


def repetition() -> tuple[Tensor, int, int]:
    """One of them, cut off within its second period, what comes next, and the period."""
    ids_1T, (period,) = repetitions(1)
    length = int(torch.randint(int(period) + 1, 2 * int(period), ()))
    return ids_1T[0, :length], int(ids_1T[0, length]), int(period)


# (b) a shortcut


def shortcut(seeds: int, questions: int) -> None:
    """Print how fast each method's pixels take the class away."""
    areas: defaultdict[str, Figures] = defaultdict(Figures)
    shares: defaultdict[str, Figures] = defaultdict(Figures)
    taken, largest = Figures(), 0.0
    for seed in range(seeds):
        torch.manual_seed(seed)
        network = trained_on_corners()
        pictures, classes = pictures_with_corners(questions)
        with torch.no_grad():
            other, _ = pictures_with_corners(questions, classes=1 - classes)
            swapped = pictures.clone()
            swapped[:, :, :CORNER, :CORNER] = other[:, :, :CORNER, :CORNER]
            taken.add(100 * (network(swapped).argmax(1) == 1 - classes).float().mean().item(), False)
        area: defaultdict[str, list[float]] = defaultdict(list)
        share: defaultdict[str, list[float]] = defaultdict(list)
        for picture in pictures:
            maps = by_pixel(network, picture)
            differ = (maps["flow"] - maps["gradient x input"]).abs().max() / maps["flow"].abs().max()
            largest = max(largest, differ.item())
            for name, map_HW in maps.items():
                order = map_HW.flatten().argsort(descending=True)
                top = order[: CORNER**2]
                share[name].append(100 * ((top // SIDE < CORNER) & (top % SIDE < CORNER)).float().mean().item())
                area[name].append(deletion(network, picture, order))
        for name in area:
            areas[name].add(statistics.mean(area[name]), False)
            shares[name].add(statistics.mean(share[name]), False)
    print(f"(b) shortcut, {seeds} seeds x {questions} pictures; the corner's colour decides in {taken.show('.0f')} %")
    print(f"  area: mean probability of the class while the first {DELETED} of {SIDE**2} pixels go; lower is better")
    print(f"  corner: how many of the top {CORNER**2} pixels lie in it, %")
    for name, figure in areas.items():
        print(f"  {name:<42}{figure.show('.3f'):<26}{shares[name].show('.0f')}")
    for name in ("random", "integrated gradients", "Grad-CAM"):
        print(f"  flow / {name:<35}{verdict(areas['flow'].over(areas[name]), 1, at_least=False)}")
    print(f"  largest difference between flow and gradient x input: {largest:.1e} of the largest pixel\n", flush=True)


def trained_on_corners() -> nn.Sequential:
    """A small convolutional network that tells pictures by their corner."""
    network = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)),
        *(nn.Flatten(), nn.Linear(32, 2)),
    )
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)
    for _ in range(300):
        pictures, classes = pictures_with_corners(64)
        optimiser.zero_grad()
        F.cross_entropy(network(pictures), classes).backward()
        optimiser.step()
    return network.eval()


def pictures_with_corners(n: int, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Noisy pictures (N, 3, SIDE, SIDE) around 0: a cross or a frame somewhere, which goes with the class three times
    out of four, and a red or blue corner, which always does; and the classes."""
    classes = torch.randint(2, (n,)) if classes is None else classes
    pictures = 0.3 * torch.randn(n, 3, SIDE, SIDE)
    line = torch.arange(9)
    cross = (line == 4)[:, None] | (line == 4)[None]
    frame = torch.ones(9, 9, dtype=torch.bool)
    frame[1:-1, 1:-1] = False
    shapes = torch.where(torch.rand(n) < 0.75, classes, 1 - classes)
    for picture, shape in zip(pictures, shapes, strict=True):
        y, x = torch.randint(CORNER, SIDE - 9, (2,)).tolist()
        picture[:, y : y + 9, x : x + 9][:, (cross, frame)[shape]] += 1.0
    colours = torch.tensor([[1.0, -0.5, -0.5], [-0.5, -0.5, 1.0]])[classes]
    pictures[:, :, :CORNER, :CORNER] = colours[:, :, None, None] + 0.1 * torch.randn(n, 3, CORNER, CORNER)
    return pictures, classes


def by_pixel(network: nn.Sequential, picture: Tensor) -> dict[str, Tensor]:
    """What each pixel contributes to the class (rather than to the other one), by each method."""
    x_BCHW = picture[None]
    trace = pl.trace(network, x_BCHW)
    a = int(trace.value(":out").argmax())
    one = torch.ones((), dtype=torch.float64)
    question = Question("the class", ((trace.find(f":out[0,{a}]"), one), (trace.find(f":out[0,{1 - a}]"), -one)))

    def rather(x: Tensor) -> Tensor:
        logits = network(x)
        return logits[:, a] - logits[:, 1 - a]

    maps = {
        "flow": trace.flow(question).inputs[":in.0"],
        "gradient x input": InputXGradient(rather).attribute(x_BCHW.clone().requires_grad_()),
        "integrated gradients": IntegratedGradients(rather).attribute(x_BCHW, n_steps=50),
        "integrated gradients, TorchLens": by_torchlens(Function(rather), x_BCHW),
        "Grad-CAM": LayerAttribution.interpolate(
            LayerGradCam(rather, network[7]).attribute(x_BCHW), (SIDE, SIDE), "bilinear"
        ),
        "random": torch.rand(1, 1, SIDE, SIDE),
    }
    return {name: map_.detach()[0].sum(0) for name, map_ in maps.items()}


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, f: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.f = f

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x)


@torch.no_grad()
def deletion(network: nn.Sequential, picture: Tensor, order: Tensor) -> float:
    """The mean probability of the class while pixels are set to 0 (the mean colour), one more each time."""
    rank_HW = order.argsort().reshape(SIDE, SIDE)
    kept = rank_HW >= torch.arange(DELETED + 1)[:, None, None, None]
    p = network(picture[None] * kept).softmax(1)
    return p[:, p[0].argmax()].mean().item()


# (c) leave one out


def left_out(opened: str | None, seconds: float, questions: int) -> None:
    """Print the rank correlation of each method's contributions with the effect of taking a token away."""
    length = 32
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        if opened is None:
            folders.trained(run, Path(folder) / "held-out.txt", seconds)
        model = pl.open(opened or run)
    ids_N = torch.tensor(model.tokenizer.encode(measure.shakespeare()[-1]))  # which `trained` holds out
    network = model.network.eval()
    torch.manual_seed(0)
    starts = torch.randint(len(ids_N) - length, (questions,)).tolist()
    replaced: defaultdict[str, list[float]] = defaultdict(list)
    removed: defaultdict[str, list[float]] = defaultdict(list)
    for start in starts:
        asked = Asked(network, ids_N[start : start + length])
        methods = by_token(asked)
        effects = methods.pop("leave one out"), without_each(asked)
        for name, contributions_T in methods.items():
            for effect_T, correlations in zip(effects, (replaced, removed), strict=True):
                correlations[name].append(spearman(contributions_T, effect_T))
    shape = f"{network.config.n_layers} x {network.config.d_model}, {network.config.family}"
    which = f"{opened}" if opened else f"a decoder trained for {seconds:g} s"
    print(f"(c) leave one out, {which} ({shape}), {questions} x {length} unseen tokens")
    print("  rank correlation of the tokens' contributions with the effect of a token that is")
    print(f"  {'':<42}{'replaced by the mean':<26}removed from the text")
    for name in replaced:
        print(f"  {name:<42}{_mean(replaced[name]):<26}{_mean(removed[name])}")
    print("  mean (standard error)\n", flush=True)


@torch.no_grad()
def without_each(asked: "Asked") -> Tensor:
    """The effect (T,) of each token: the target with it, less the target of the text without it."""
    length = len(asked.ids_T)
    rest_TS = torch.stack([asked.ids_T[torch.arange(length) != n] for n in range(length)])
    whole_1, rest_T = (asked.rather(asked.network(ids_BT, last_only=True)) for ids_BT in (asked.ids_T[None], rest_TS))
    return whole_1 - rest_T


def spearman(a: Tensor, b: Tensor) -> float:
    """Rank correlation (Spearman 1904); there are no ties."""
    ranks = torch.stack([x.argsort().argsort().double() for x in (a, b)])
    return torch.corrcoef(ranks)[0, 1].item()


def _mean(values: list[float]) -> str:
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} ({error:.3f})"


# what each token contributes


class Asked(nn.Module):
    """A network's answer to: why this next token rather than the runner-up? As a function of the embeddings.

    Args:
        network: The decoder.
        ids_T: What it reads.
        answer: The token asked about; None: the most probable one.
    """

    def __init__(self, network: Decoder, ids_T: Tensor, answer: int | None = None) -> None:
        super().__init__()
        self.network, self.ids_T = network, ids_T
        with torch.no_grad():
            self.x_TD = network.embedding(ids_T)
            best = network(ids_T[None])[0, -1].topk(2).indices.tolist()
        self.a = best[0] if answer is None else answer
        self.b = next(id for id in best if id != self.a)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The difference of the two logits (B,) after the last position."""
        handle = self.network.embedding.register_forward_hook(lambda *_: x_BTD)
        try:
            return self.rather(self.network(self.ids_T.expand(len(x_BTD), -1), last_only=True))
        finally:
            handle.remove()

    def rather(self, logits_BTV: Tensor) -> Tensor:
        """The same, of the network's results."""
        return logits_BTV[:, -1, self.a] - logits_BTV[:, -1, self.b]

    def trace(self) -> TextTrace:
        """The recording."""
        return TextTrace(pl.trace(self.network, self.ids_T[None]).tape, Numbered(self.network.config.vocab_size))


class Numbered:
    """A tokenizer for tokens that are numbers."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def encode(self, text: str) -> list[int]:
        return [int(id) for id in text.split()]

    def show(self, id: int) -> str:
        return str(id)


def by_token(asked: Asked) -> dict[str, Tensor]:
    """What each token contributes (T,), by each method."""
    trace = asked.trace()
    x_BTD = asked.x_TD[None]
    mean_D = asked.network.embedding.weight.detach().mean(0)
    by_number = {
        "gradient x input": InputXGradient(asked).attribute(x_BTD.clone().requires_grad_()),
        "integrated gradients, from 0": IntegratedGradients(asked).attribute(x_BTD, n_steps=50),
        "integrated gradients, from the mean": IntegratedGradients(asked).attribute(
            x_BTD, mean_D.expand_as(x_BTD).contiguous(), n_steps=50
        ),
        "integrated gradients, TorchLens": by_torchlens(asked, x_BTD),
    }
    flows = {f"flow, {c}": trace.flow(next_token=asked.a, rather_than=asked.b, convention=c) for c in CONVENTIONS}
    return {
        **{name: flow.tokens.detach() for name, flow in flows.items()},
        **{name: products_BTD.detach()[0].sum(-1) for name, products_BTD in by_number.items()},
        "attention rollout": rollout(trace, asked.network.config.n_layers),
        "leave one out": leave_one_out(asked, mean_D),
        "random": torch.rand(len(asked.ids_T)),
    }


def by_torchlens(function: nn.Module, x: Tensor) -> Tensor:
    """Integrated gradients as TorchLens' explanation of texts takes them, all steps in one batch."""
    settings = {"n_steps": 128, "step_batch_size": 128, "step_audit": "off"}
    return integrated_gradients(function, x, target=torch.sum, **settings).values


def rollout(trace: TextTrace, layers: int) -> Tensor:
    """Attention and the stream beside it, multiplied through the layers (Abnar and Zuidema 2020)."""
    through_TT = torch.eye(len(trace.ids))
    for layer in range(layers):
        through_TT = (trace.attention(layer).mean(0) + torch.eye(len(trace.ids))) / 2 @ through_TT
    return through_TT[-1]


@torch.no_grad()
def leave_one_out(asked: Asked, instead_D: Tensor) -> Tensor:
    """The effect (T,) of each token: the target with it, less the target with another embedding in its place."""
    copies_TTD = asked.x_TD.repeat(len(asked.x_TD), 1, 1)
    each = torch.arange(len(copies_TTD))
    copies_TTD[each, each] = instead_D
    return asked(asked.x_TD[None]) - asked(copies_TTD)


def why_it_looks(asked: Asked, source: int) -> Tensor:
    """What each token (T,) contributes to the score by which the last position looks at `source`, on the key's side.

    Of the head of the last layer that looks there most.
    """
    trace = asked.trace()
    layer = asked.network.config.n_layers - 1
    head = int(trace.attention(layer)[:, -1, source].argmax())
    tokens = trace.flow(trace.score(layer, head, len(asked.ids_T) - 1, source)).tokens
    assert tokens is not None
    return tokens


if __name__ == "__main__":
    main()
