"""What it costs to record, to ask and to keep: against the plain forward pass, beside TorchLens on the same models.

Recording is `pl.trace`, from the call to the finished trace; TorchLens' is its `trace` as shipped, in a process of its
own. Plain and recorded runs alternate. Weights are random. Memory is what the tape keeps beside the weights, by its
own count (the one that a budget is held against), and the growth of the process's resident size beside it.

python benchmarks/recording.py [--quick] [--parts record ask keep why] [--rounds 5]
"""

import gc
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import _folders as folders
import _measure as measure
from _measure import PELLUCID, Figures, Window, verdict
from cold_start import PROMPT, first_token

GPT2 = {"vocab_size": 50257, "d_model": 768, "n_layers": 12, "n_heads": 12, "context": 1024}
QUICK_GPT2 = GPT2 | {"n_layers": 2}
TOY = {"vocab_size": 64, "d_model": 64, "n_layers": 2, "n_heads": 4, "context": 16}
LENGTH, GENERATED = 64, 20  # tokens
MB = 1e6


def main() -> None:
    parts = ["record", "ask", "keep", "why"]
    asked = measure.options(
        __doc__,
        parts={"nargs": "+", "choices": parts, "default": parts},
        rounds={"type": int, "default": 5},
    )
    measure.header("imports, building the networks, two runs before", asked.quick)
    rounds = 1 if asked.quick else asked.rounds
    shape = QUICK_GPT2 if asked.quick else GPT2
    if "record" in asked.parts:
        record("GPT-2 124M's shape, 64 tokens", {"shape": shape, "length": LENGTH, "runs": 4}, rounds, goal=1.25)
        toy = {"shape": TOY, "length": 16, "runs": 100}
        record("2 layers x 64, 16 tokens, transformers' GPT-2", toy | {"hugging_face": True}, rounds, goal=3)
        record("2 layers x 64, 16 tokens, our decoder", toy, rounds, goal=3)
    if "ask" in asked.parts:
        ask(shape, rounds)
    if "keep" in asked.parts:
        keep(shape)
    if "why" in asked.parts:
        why(5 if asked.quick else 30, rounds)


def record(name: str, settings: dict[str, Any], rounds: int, goal: float) -> None:
    """Print what recording one forward pass costs."""
    rates: defaultdict[str, Figures] = defaultdict(Figures)
    for _ in range(rounds):
        for who, work in (("ours", "ours"), ("TorchLens", "peer")):
            found = measure.child(work, settings, allocator=False)
            for what, windows in found.items():
                rates[f"{what}, beside {who}"].add_rate(1, windows)
    print(f"{name}: milliseconds a run, and its ratio to the plain run beside it")
    for who in ("ours", "TorchLens"):
        plain, recorded = rates[f"plain, beside {who}"], rates[f"recorded, beside {who}"]
        ratio = plain.over(recorded)
        shown = verdict(ratio, goal, at_least=False) if who == "ours" else ratio.show(".1f")
        print(f"  {who:<12}plain {_milliseconds(plain):<32}recorded {_milliseconds(recorded):<32}{shown}")
    print(flush=True)


def ask(shape: dict[str, int], rounds: int) -> None:
    """Print what the answers cost."""
    seconds: defaultdict[str, Figures] = defaultdict(Figures)
    terms: dict[str, int] = {}
    for _ in range(rounds):
        found = measure.child("answers", {"shape": shape, "length": LENGTH}, allocator=False)
        for name, windows in found["seconds"].items():
            seconds[name].add_rate(1, windows)
        terms = found["terms"]
    print("One number of GPT-2's width unfolded, its ten largest terms named; milliseconds")
    worst = Figures([0.0])
    for name, n in terms.items():
        taken = _milliseconds(seconds[name])
        print(f"  {name:<42}{n:>7,} terms  {taken}")
        worst = max(worst, _inverse(seconds[name]), key=lambda figure: figure.median)
    print(f"  {'the slowest of them':<57}{verdict(worst, 5, at_least=False)}")
    print(f"  {'before the first one: roles and addresses':<57}{_milliseconds(seconds['preparing'])}")
    flow, forward = seconds["flow"], seconds["forward"]
    print(f"A whole flow at {LENGTH} tokens, layers, heads and tokens read off: {_milliseconds(flow)} ms")
    print(f"  flow / forward                           {verdict(forward.over(flow), 2, at_least=False)}\n", flush=True)


def keep(shape: dict[str, int]) -> None:
    """Print what the tape keeps."""
    found = measure.child("kept", {"shape": shape, "length": LENGTH}, allocator=False)
    print("Memory kept, MB")
    for name, goal in (("forward", 1.5), ("generated", 3.0)):
        title = {"forward": f"a token of a forward pass of {LENGTH}", "generated": "a token generated with our cache"}
        kept, resident = (found[name][what] / MB for what in ("kept", "resident"))
        print(f"  {title[name]:<42}{verdict(Figures([kept], [False]), goal, at_least=False)}; resident {resident:.2f}")
    step = found["step"]
    print(f"  a training step of {step['what']}: {step['kept'] / MB:,.0f}; resident {step['resident'] / MB:,.0f}; ")
    print(f"    {step['recorded']:.2f} s, {step['plain']:.2f} s when not recorded\n", flush=True)


def why(seconds: float, rounds: int) -> None:
    """Print how long `pellucid why` takes to its first answer, from the start of the command."""
    waited = Figures()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        folders.trained(run, Path(folder) / "held-out.txt", seconds)
        command = [*PELLUCID, "why", str(run), PROMPT]
        for number in range(rounds + 1):
            with measure.window() as window:
                took = first_token(command, measure.environment(False))
            if number:  # the first one brings the files into the system's cache
                waited.add(took, window.disturbed)
    print(f"`pellucid why` on a small trained run, seconds  {verdict(waited, 4, at_least=False)}", flush=True)


def _inverse(rates: Figures) -> Figures:
    return Figures([1e3 / rate for rate in rates.values], rates.disturbed)


def _milliseconds(rates: Figures) -> str:
    return _inverse(rates).show(",.2f")


# in a process of their own


def ours(shape: dict[str, int], length: int, runs: int, hugging_face: bool = False) -> dict[str, Any]:
    """Windows of plain and of recorded runs."""
    import pellucid as pl

    network, ids_BT = _decoder(shape, length, hugging_face)
    return _alternating(lambda: network(ids_BT), lambda: pl.trace(network, ids_BT), runs, runs)


def peer(shape: dict[str, int], length: int, runs: int, hugging_face: bool = False) -> dict[str, Any]:
    """The same by TorchLens."""
    import torchlens

    warnings.simplefilter("ignore")  # what it says of the networks' branches would tear the table
    network, ids_BT = _decoder(shape, length, hugging_face)
    return _alternating(lambda: network(ids_BT), lambda: torchlens.trace(network, ids_BT), runs, 1)


def _alternating(plain: Callable[[], Any], recorded: Callable[[], Any], runs: int, recordings: int) -> dict[str, Any]:
    """Three windows of each, by turns, in seconds of one run."""
    import torch

    windows: defaultdict[str, list[dict[str, float]]] = defaultdict(list)
    with torch.no_grad():
        for turn in range(4):
            for name, work, times in (("plain", plain, runs), ("recorded", recorded, recordings)):
                with measure.window() as found:
                    for _ in range(times):
                        work()
                gc.collect()  # what one has left is not the other's
                if turn:
                    windows[name].append(asdict(Window(found.seconds / times, found.foreign)))
    return windows


def answers(shape: dict[str, int], length: int) -> dict[str, Any]:
    """Windows of unfoldings and of a flow, and how many terms each unfolding has."""
    import torch

    import pellucid as pl
    from pellucid.tracing.text import TextTrace

    class Numbered:
        vocab_size = shape["vocab_size"]

        def encode(self, text: str) -> list[int]:
            return [int(text)]

        def show(self, id: int) -> str:
            return str(id)

    network, ids_BT = _decoder(shape, length)
    trace = TextTrace(pl.trace(network, ids_BT).tape, Numbered())
    middle, last = shape["n_layers"] // 2, length - 1
    with measure.window() as preparing:
        assert trace.unfolding.roles is trace.roles  # each is made when it is first asked for
    questions = {
        "a logit": trace.logit(1000),
        "one token's logit rather than another's": trace.choice(1000, 2000),
        "a log-probability: the whole head": trace.log_probability(1000),
        "a number of the last norm": f"norm[0,{last},5]",
        "a neuron": trace.neuron(middle, 100),
        "a number of a feed-forward layer": f"blocks.{middle}.feed_forward[0,{last},5]",
        "a number of attention": f"blocks.{middle}.attention[0,{last},5]",
        "a query": f"blocks.{middle}.attention.qkv[0,{last},5]",
    }
    seconds, terms = {"preparing": [asdict(preparing)]}, {}

    def timed(name: str, work: Callable[[], Any], times: int) -> None:
        work()
        found = measure.repeated(lambda: [work() for _ in range(times)], 3)
        seconds[name] = [asdict(Window(window.seconds / times, window.foreign)) for window in found]

    for name, question in questions.items():
        terms[name] = len(trace.why(question).terms)
        timed(name, lambda question=question: trace.why(question).terms[:10], 20)
    with torch.no_grad():
        timed("forward", lambda: network(ids_BT), 3)
    timed("flow", lambda: trace.flow(questions["one token's logit rather than another's"]), 3)
    return {"seconds": seconds, "terms": terms}


def kept(shape: dict[str, int], length: int) -> dict[str, Any]:
    """Bytes that the tape keeps, and by which the process grew: for a token read, one generated, a training step."""
    import torch

    import pellucid as pl
    from pellucid.networks.cache import KeyValueCache

    network, ids_BT = _decoder(shape, length)

    def generate(tokens: int) -> None:
        cache = KeyValueCache(network.config, capacity=length + tokens)
        next_BT = ids_BT
        with torch.no_grad():
            for _ in range(tokens):
                next_BT = network(next_BT, cache, last_only=True).argmax(-1)

    def recorded(work: Callable[[], Any]) -> dict[str, float]:
        work()
        before = resident()
        with pl.record(network) as trace:
            work()
        gc.collect()
        return {"kept": trace.tape.kept_bytes, "resident": resident() - before}

    @torch.no_grad()
    def forward() -> None:
        network(ids_BT)

    prompt, whole = recorded(lambda: generate(1)), recorded(lambda: generate(1 + GENERATED))
    return {
        "forward": {name: amount / length for name, amount in recorded(forward).items()},
        "generated": {name: (whole[name] - prompt[name]) / GENERATED for name in whole},
        "step": _step(),
    }


def _step() -> dict[str, Any]:
    """A step of the main job as it is: bf16 autocast, fused AdamW, two micro-batches, clipping."""
    import torch

    import pellucid as pl
    from memory_forecast import Draw, plan_of
    from pellucid.networks.decoder import Decoder
    from pellucid.tasks.text import TextTask
    from pellucid.training import loop
    from pellucid.training.optimisers import Optimiser

    shape = {"vocab_size": 2048, "d_model": 256, "n_layers": 4, "n_heads": 4, "context": 128}
    drawn = Draw("llama", shape, batch=8, context=128, precision="bf16", optimiser="adamw", accumulation=2)

    class Batches:
        position = 0

        def __next__(self) -> tuple[Any, Any]:
            ids = torch.randint(shape["vocab_size"], (drawn.batch, drawn.context + 1))
            return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()

    plan = plan_of(drawn, 3)
    network = Decoder(drawn.config)
    task = TextTask.__new__(TextTask)  # its loss needs nothing of a prepared text
    steps = loop.steps(network, task, Optimiser(network, plan), plan, Batches())
    next(steps)
    with measure.window() as plain:
        next(steps)
    before = resident()
    with measure.window() as recorded, pl.record(network) as trace:
        next(steps)
    gc.collect()
    return {
        "what": "4 x 256, 2 x 8 x 128 tokens, bf16",
        "kept": trace.tape.kept_bytes,
        "resident": resident() - before,
        "plain": plain.seconds,
        "recorded": recorded.seconds,
    }


def resident() -> int:
    """Bytes of memory that this process occupies."""
    import psutil

    return psutil.Process().memory_info().rss


def _decoder(shape: dict[str, int], length: int, hugging_face: bool = False) -> tuple[Any, Any]:
    """A GPT-2 of this shape, ours or transformers', and what it reads."""
    import torch

    ids_BT = torch.randint(shape["vocab_size"], (1, length), generator=torch.Generator().manual_seed(0))
    if hugging_face:
        from transformers import GPT2Config, GPT2LMHeadModel

        names = {"n_positions": "context", "n_embd": "d_model", "n_layer": "n_layers", "n_head": "n_heads"}
        settings = {theirs: shape[name] for theirs, name in names.items()}
        config = GPT2Config(vocab_size=shape["vocab_size"], use_cache=False, bos_token_id=0, eos_token_id=0, **settings)
        return GPT2LMHeadModel(config).eval(), ids_BT

    from pellucid.networks.decoder import Decoder, decoder_config

    return Decoder(decoder_config("gpt2", **shape)).eval(), ids_BT


if __name__ == "__main__":
    measure.serve(ours=ours, peer=peer, answers=answers, kept=kept)
    main()
