"""Generation against `transformers`' `generate` and the memory's bandwidth: GPT-2 124M's shape, batch 1, greedy.

Decoding excludes the prompt: from the first new token to the last, each as its caller gets it (ours with probability,
rank and five alternatives; theirs through a streamer). The prompt's time is that until the first token of a prompt of
512. The bound is the bandwidth of adding up 1 GB of fp32, measured in the same round and process, over the bytes of the
weights that each token needs (all but the positions; the tied embedding once). Weights are random, written once by
`transformers` and opened by both. What int8 costs in accuracy is measured on a small model that was trained.

python benchmarks/generation_speed.py [--quick] [--rounds 3]
"""

import tempfile
import time
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import _folders as folders
import _measure as measure
from _measure import Figures, verdict

PROMPT, TOKENS, LONG_PROMPT = 32, 128, 512
# name: (work, settings, with our allocator)
RUNS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "ours fp32": ("ours", {"precision": "fp32"}, True),
    "transformers fp32": ("peer", {"precision": "fp32"}, False),
    "ours int8": ("ours", {"precision": "fp32", "quantise": True}, True),
    "transformers fp32, our allocator": ("peer", {"precision": "fp32"}, True),
    "ours bf16": ("ours", {"precision": "bf16"}, True),
    "transformers bf16": ("peer", {"precision": "bf16"}, False),
    "transformers bf16, our allocator": ("peer", {"precision": "bf16"}, True),
}


def main() -> None:
    asked = measure.options(__doc__, rounds={"type": int, "default": 3})
    measure.header(
        "imports, opening the folder, int8 rounding, tokenizing; one prompt and 8 tokens before", asked.quick
    )
    rounds = 1 if asked.quick else asked.rounds
    decoding: defaultdict[str, Figures] = defaultdict(Figures)
    reading: defaultdict[str, Figures] = defaultdict(Figures)
    share = Figures()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "gpt2"
        folders.random_gpt2(model, folders.QUICK_SHAPE if asked.quick else folders.SHAPE)
        for _ in range(rounds):
            for name, (work, settings, allocator) in RUNS.items():
                found = measure.child(work, {"folder": str(model), **settings}, allocator)
                decoding[name].add_rate(TOKENS, found["decoding"])
                reading[name].add_rate(LONG_PROMPT, found["reading"])
                if name == "ours fp32":
                    bound = found["bandwidth"] / found["bytes"]
                    share.add(decoding[name].values[-1] / bound, decoding[name].disturbed[-1])
                    last = found
        for title, figures in (("decoding", decoding), (f"a prompt of {LONG_PROMPT}", reading)):
            print(f"{title}, tokens/s")
            for name, figure in figures.items():
                print(f"  {name:<34}{figure.show(',.1f')}")
        print(f"bandwidth {last['bandwidth'] / 1e9:.1f} GB/s; {last['bytes'] / 1e6:.0f} MB of weights a token")
        print(f"  fp32 decoding / bandwidth bound   {verdict(share, 0.85)}")
        ours, theirs = decoding["ours fp32"], decoding["transformers fp32"]
        print(f"  fp32 decoding / transformers      {ours.over(theirs).show('.2f')}")
        print(f"  int8 / transformers fp32          {verdict(decoding['ours int8'].over(theirs), 1.9)}")
        ratio = reading["ours bf16"].over(reading["transformers bf16"])
        print(f"  prompt in bf16 / transformers     {verdict(ratio, 1.2)}")
        ratio = reading["ours bf16"].over(reading["transformers bf16, our allocator"])
        print(f"  ... with our allocator            {ratio.show('.2f')}", flush=True)
        accuracy(Path(folder), 5 if asked.quick else 60)


def accuracy(folder: Path, seconds: float) -> None:
    """What int8 costs a trained model, on text that it has not seen."""
    held_out = folder / "held-out.txt"
    folders.trained(folder / "run", held_out, seconds)
    cost = measure.child("cost", {"folder": str(folder / "run"), "text": str(held_out)}, True)
    print(
        f"int8's loss of accuracy, a model trained for {seconds:g} s: {cost['bits_per_byte']:.4f} -> "
        f"{cost['int8_bits_per_byte']:.4f} bits per byte, |change of ln p| {cost['log_probability_change']:.4f} on "
        f"average, over {cost['tokens']:,} held-out tokens; on the random weights nothing is to be lost"
    )


def ours(folder: str, precision: str, quantise: bool = False) -> dict[str, Any]:
    """Windows of decoding and of reading a long prompt by our streaming `generate`; the bandwidth beside them."""
    import pellucid
    from pellucid.generation.decode import generate

    model = pellucid.Model.open(folder, precision=precision, quantise=quantise)
    ids = _ids(model.tokenizer)

    def first_and_rest(prompt: int, tokens: int) -> tuple[measure.Window, measure.Window]:
        stream = generate(
            model.network,
            model.tokenizer,
            ids[:prompt],
            pellucid.Sampling(greedy=True),
            max_tokens=tokens,
            start_id=model.start_id,
            heal=False,  # so that both read the same tokens
            quick=model.quick,
        )
        with measure.window() as first:
            next(stream)
        with measure.window() as rest:
            made = sum(1 for _token in stream)
        assert made == tokens - 1
        return first, rest

    found = _windows(first_and_rest)
    weights = sum(p.numel() for p in model.network.parameters()) - model.network.positions.weight.numel()
    return found | {"bandwidth": bandwidth(), "bytes": 4 * weights}


def peer(folder: str, precision: str) -> dict[str, Any]:
    """The same by `transformers`."""
    import torch
    from transformers import AutoModelForCausalLM

    from pellucid.data.tokenizer import Tokenizer

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    model.generation_config.eos_token_id = None  # so that it writes as many tokens as asked for
    ids = torch.tensor([_ids(Tokenizer.open(folder))])

    class Clock:
        """A streamer that notes when each token comes; the prompt comes first."""

        def __init__(self) -> None:
            self.times: list[float] = []

        def put(self, _ids: torch.Tensor) -> None:
            self.times.append(time.perf_counter())

        def end(self) -> None: ...

    def first_and_rest(prompt: int, tokens: int) -> tuple[measure.Window, measure.Window]:
        clock, started = Clock(), time.perf_counter()
        prompt_BT = ids[:, :prompt]
        with measure.window() as whole:
            model.generate(
                prompt_BT,
                attention_mask=torch.ones_like(prompt_BT),
                max_new_tokens=tokens,
                do_sample=False,
                use_cache=True,
                streamer=clock,
            )
        _prompt, first, *rest = clock.times
        assert len(rest) == tokens - 1
        last = rest[-1] if rest else first
        return measure.Window(first - started, whole.foreign), measure.Window(last - first, whole.foreign)

    return _windows(first_and_rest)


def _windows(first_and_rest: Any) -> dict[str, Any]:
    first_and_rest(LONG_PROMPT, 8)
    decoding = [first_and_rest(PROMPT, TOKENS + 1)[1] for _ in range(3)]
    reading = [first_and_rest(LONG_PROMPT, 1)[0] for _ in range(3)]
    return {"decoding": [asdict(w) for w in decoding], "reading": [asdict(w) for w in reading]}


def _ids(tokenizer: Any) -> list[int]:
    return tokenizer.encode(measure.shakespeare()[0][:20_000])[:LONG_PROMPT]


def bandwidth() -> float:
    """Bytes a second that the cores read from memory: the best of several sums over 1 GB of fp32."""
    import torch

    data = torch.ones(2**28)
    return 4 * data.numel() / min(window.seconds for window in measure.repeated(data.sum, 7))


def cost(folder: str, text: str) -> dict[str, float]:
    """What int8 changes in predicting a text."""
    import pellucid

    return asdict(pellucid.Model.open(folder, quantise=True).int8_cost(Path(text).read_text("utf-8")))


if __name__ == "__main__":
    measure.serve(ours=ours, peer=peer, cost=cost)
    main()
