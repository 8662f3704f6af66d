"""Bits per byte of held-out text against the recipe that nanoGPT publishes for a CPU.

(a) The same shape, bytes and number of tokens, byte tokens, three seeds each: our loop and optimiser against theirs.
(b) The same 180 s of training on all cores, one after the other: `pellucid train FILE --minutes 3` with its own plan
    against their characters, with their schedule stretched to the seconds that ours took (180 at least).

Shakespeare: 42 texts joined by line breaks, the last 5 % of the bytes held out. Tang poems: a line break after each
line, the last 5 % of the poems held out. Bits per byte count every held-out byte once, in blocks of the context that do
not overlap. xz is given the training part.

python benchmarks/recipe.py [--quick] [--parts a b] [--texts shakespeare tang] [--seeds 3] [--seconds 180]
"""

import json
import math
import statistics
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _measure as measure
from _measure import PELLUCID

STEPS = 2000
GOALS = {"shakespeare": 0.87, "tang": 0.91}


@dataclass(frozen=True)
class Text:
    """A text in two parts, each in a file."""

    name: str
    train: Path
    held_out: Path


def main() -> None:
    asked = measure.options(
        __doc__,
        parts={"nargs": "+", "choices": ["a", "b"], "default": ["a", "b"]},
        texts={"nargs": "+", "choices": list(GOALS), "default": list(GOALS)},
        seeds={"type": int, "default": 3},
        seconds={"type": float, "default": 180},
    )
    if asked.quick:
        asked.seeds, asked.seconds, asked.texts = 1, 6, ["shakespeare"]
    measure.header("reading, tokenizing, planning, evaluation: the seconds are those of training steps", asked.quick)
    with tempfile.TemporaryDirectory() as folder:
        texts = [_text(name, Path(folder), asked.quick) for name in asked.texts]
        if "a" in asked.parts:
            equal_tokens(_text("shakespeare", Path(folder), asked.quick), asked.seeds, 40 if asked.quick else STEPS)
        if "b" in asked.parts:
            for text in texts:
                equal_time(text, asked.seconds)


def _text(name: str, folder: Path, short: bool) -> Text:
    """Write both parts."""
    if name == "shakespeare":
        data = "\n".join(measure.shakespeare()).encode()
        data = data[: 300_000 if short else None]
        cut = int(0.95 * len(data))
        while data[cut] & 0xC0 == 0x80:  # inside a character
            cut += 1
        parts = data[:cut], data[cut:]
    else:
        poems = measure.tang()
        poems = poems[: 2000 if short else None]
        cut = int(0.95 * len(poems))
        parts = tuple("".join(poem + "\n" for poem in some).encode() for some in (poems[:cut], poems[cut:]))
    text = Text(name, folder / f"{name}.train.txt", folder / f"{name}.held-out.txt")
    text.train.write_bytes(parts[0])
    text.held_out.write_bytes(parts[1])
    return text


def equal_tokens(text: Text, seeds: int, steps: int) -> None:
    """(a)"""
    shape = "--family gpt2 --width 128 --depth 4 --heads 4 --context 64 --batch 12 --accumulation 1 --tokenizer bytes"
    print(f"(a) {text.name}, byte tokens, {steps} steps of 12 x 64 tokens, 4 x 128; held-out loss, nats a byte")
    ours, theirs = [], []
    for seed in range(1, seeds + 1):
        run = _train(text, [*shape.split(), "--steps", str(steps), "--seed", str(seed)])
        ours.append(run["bits_per_byte"] * math.log(2))
        peer = measure.child("peer", _settings(text, seed, bytes_=True, steps=steps), allocator=False)
        theirs.append(peer["bits_per_byte"] * math.log(2))
        print(
            f"  seed {seed}: ours {ours[-1]:.4f} ({run['seconds']:.0f} s), nanoGPT's {theirs[-1]:.4f} "
            f"({peer['seconds']:.0f} s; {peer['parameters']:,} parameters)",
            flush=True,
        )
    spread = statistics.stdev(theirs) if seeds > 1 else 0.0
    mean, bar = statistics.mean(ours), statistics.mean(theirs) + spread
    print(f"  mean: ours {mean:.4f}, nanoGPT's {bar - spread:.4f}, its spread (standard deviation) {spread:.4f}")
    print(f"  goal: ours <= {bar:.4f}: {'met' if mean <= bar else 'MISSED'}\n", flush=True)


def equal_time(text: Text, seconds: float) -> None:
    """(b)"""
    from pellucid.data.compress import compression

    print(f"(b) {text.name}, {seconds:g} s of training each; bits per byte of {text.held_out.stat().st_size:,} bytes")
    ours = _train(text, ["--minutes", str(seconds / 60)])
    _print("ours", ours)
    peer = measure.child("peer", _settings(text, 1, seconds=max(seconds, ours["seconds"])), allocator=False)
    _print("nanoGPT's recipe, characters", peer)
    xz = compression(text.train.read_bytes(), text.held_out.read_bytes()).xz_given_training
    print(f"  {'xz -9e given the training part':<32}{xz:.3f}")
    ratio, goal = ours["bits_per_byte"] / peer["bits_per_byte"], GOALS[text.name]
    mark = " !" if max(ours["foreign"], peer["foreign"]) > measure.MOST_FOREIGN else ""
    print(f"  ratio {ratio:.3f}{mark}  goal <= {goal}: {'met' if ratio <= goal else 'MISSED'}\n", flush=True)


def _print(name: str, run: dict[str, Any]) -> None:
    mark = "!" if run["foreign"] > measure.MOST_FOREIGN else ""
    print(
        f"  {name:<32}{run['bits_per_byte']:.3f}   {run['seconds']:.1f} s, {run['steps']} steps, {run['shape']}, "
        f"{run['parameters']:,} parameters, others used {run['foreign']:.2f} cores{mark}",
        flush=True,
    )


def _train(text: Text, options: list[str]) -> dict[str, Any]:
    """Train by the command line; what plan and journal say."""
    with tempfile.TemporaryDirectory(dir=text.train.parent) as folder:
        run = Path(folder) / "run"
        files = [str(text.train), "--validation", str(text.held_out), "--out", str(run)]
        with measure.window() as found:
            command = [*PELLUCID, "train", *files, *options]
            subprocess.run(command, env=measure.environment(True), check=True, stdout=subprocess.DEVNULL)
        plan = json.loads((run / "plan.json").read_text())
        events = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    steps = [event for event in events if event["event"] == "step"]
    network = plan["network"]
    return {
        "bits_per_byte": events[-1]["bits_per_byte"],
        "seconds": sum(event["seconds"] for event in steps),
        "steps": len(steps),
        "parameters": plan["parameters"],
        "shape": f"{network['n_layers']} x {network['d_model']}, vocabulary {network['vocab_size']}, "
        f"{plan['batch'] * plan['accumulation']} x {network['context']} tokens, {plan['precision']}",
        "foreign": found.foreign,
    }


def _settings(text: Text, seed: int, bytes_: bool = False, **until: float) -> dict[str, Any]:
    return {"train": str(text.train), "held_out": str(text.held_out), "seed": seed, "bytes_": bytes_, **until}


def peer(
    train: str, held_out: str, seed: int, bytes_: bool, steps: int | None = None, seconds: float = math.inf
) -> dict[str, Any]:
    """nanoGPT's recipe for so many steps, or seconds."""
    import numpy as np

    import _nanogpt as nanogpt

    parts = [Path(path).read_bytes() for path in (train, held_out)]
    if bytes_:
        ids, vocab_size = [np.frombuffer(part, np.uint8) for part in parts], 256
    else:  # as nanoGPT prepares it: the characters of both parts
        texts = [np.array([ord(c) for c in part.decode()], np.int32) for part in parts]
        characters = np.unique(np.concatenate(texts))
        ids, vocab_size = [np.searchsorted(characters, t).astype(np.uint16) for t in texts], len(characters)
    # the first steps pay for memory and kernels, which is no training
    nanogpt.train(ids[0], vocab_size, seed, lambda made, _: made / 3)
    with measure.window() as found:
        network, made = nanogpt.train(
            ids[0], vocab_size, seed, lambda made, spent: made / steps if steps else spent / seconds
        )
    nats = nanogpt.nats(network, ids[1], int(ids[0][-1]))
    return {
        "bits_per_byte": nats / math.log(2) / len(parts[1]),
        "seconds": found.seconds,
        "steps": made,
        "parameters": sum(p.numel() for p in network.parameters()),
        "shape": f"4 x 128, vocabulary {vocab_size}, 12 x 64 tokens, fp32",
        "foreign": found.foreign,
    }


if __name__ == "__main__":
    measure.serve(peer=peer)
    main()
