"""Training speed against `transformers`' GPT-2 of the same shape, and against what cannot be avoided.

Ours is the loop of `pellucid train`: `one_step` with AdamW, clipping and the checks for non-finite numbers. The peer is
the loop that its users write: bf16 autocast, loss from labels, `torch.optim.AdamW` with its defaults, no clipping; as
shipped, and once more with the allocator settings that the `pellucid` command makes. The floor is the matrix products
and the attention of the same shape alone, forward and backward, in bf16. Each run is a process of its own; rounds
alternate.

python benchmarks/training_speed.py [--quick] [--rounds 3] [--shapes baby gpt2x1 gpt2x4]
"""

from collections import defaultdict
from dataclasses import MISSING, asdict, fields
from typing import Any

import _measure as measure
from _measure import Figures, verdict

SHAPES: dict[str, dict[str, int]] = {
    "baby": {"layers": 6, "width": 384, "heads": 6, "context": 256, "vocab": 65, "sequences": 16, "steps": 4},
    "gpt2x1": {"layers": 12, "width": 768, "heads": 12, "context": 1024, "vocab": 50257, "sequences": 1, "steps": 4},
    "gpt2x4": {"layers": 12, "width": 768, "heads": 12, "context": 1024, "vocab": 50257, "sequences": 4, "steps": 2},
    "quick": {"layers": 2, "width": 128, "heads": 2, "context": 128, "vocab": 65, "sequences": 8, "steps": 2},
}
# name: (work, settings, with our allocator)
RUNS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "ours": ("ours", {}, True),
    "transformers": ("peer", {}, False),
    "transformers, our allocator": ("peer", {}, True),
    "floor": ("floor", {}, True),
    "ours, dropout 0.2": ("ours", {"dropout": 0.2}, True),
}


def main() -> None:
    asked = measure.options(
        __doc__,
        rounds={"type": int, "default": 3},
        shapes={"nargs": "+", "choices": list(SHAPES), "default": ["baby", "gpt2x1", "gpt2x4"]},
    )
    measure.header("imports, building the model, the first step; drawing the batch is timed", asked.quick)
    for name in ["quick"] if asked.quick else asked.shapes:
        compare(name, 1 if asked.quick else asked.rounds)


def compare(name: str, rounds: int) -> None:
    """Print one shape's table."""
    shape = SHAPES[name]
    items = shape["sequences"] * shape["context"]
    rates: defaultdict[str, Figures] = defaultdict(Figures)
    for _ in range(rounds):
        for run, (work, settings, allocator) in RUNS.items():
            rates[run].add_rate(items, measure.child(work, {"shape": shape, **settings}, allocator))
    print(
        f"{name}: {shape['layers']} x {shape['width']}, {shape['sequences']} x {shape['context']} tokens a step, bf16"
    )
    for run, rate in rates.items():
        print(f"  {run:<32}{rate.show()} tokens/s")
    ours = rates["ours"]
    print(f"  {'ours / transformers':<32}{verdict(ours.over(rates['transformers']), 1.4)}")
    print(f"  {'... with our allocator':<32}{ours.over(rates['transformers, our allocator']).show('.2f')}")
    print(f"  {'ours / floor':<32}{verdict(ours.over(rates['floor']), 0.6)}")
    print(f"  {'dropout 0.2 / 0':<32}{verdict(rates['ours, dropout 0.2'].over(ours), 0.8)}\n", flush=True)


def windows(step: Any, times: int) -> list[dict[str, float]]:
    """The first step pays for memory and kernels; it is not timed."""
    step()
    return [asdict(window) for window in measure.repeated(step, times)]


def ours(shape: dict[str, int], dropout: float = 0.0) -> list[dict[str, float]]:
    """Seconds of our steps."""
    import numpy as np

    from pellucid.data.tokens import Batches
    from pellucid.networks.decoder import Decoder, decoder_config
    from pellucid.tasks.text import TextTask
    from pellucid.training.loop import one_step
    from pellucid.training.optimisers import Optimiser
    from pellucid.training.plan import Plan

    config = decoder_config(
        "gpt2",
        vocab_size=shape["vocab"],
        d_model=shape["width"],
        n_layers=shape["layers"],
        n_heads=shape["heads"],
        context=shape["context"],
        dropout=dropout,
    )
    blank = {f.name: 0 for f in fields(Plan) if f.default is MISSING and f.default_factory is MISSING}
    plan = Plan(
        **blank
        | {"batch": shape["sequences"], "items": shape["context"], "accumulation": 1, "planned_steps": 1000}
        | {"optimiser": "adamw", "learning_rate": 3e-4, "schedule": "stable", "weight_decay": 0.1, "clip": 1.0}
        | {"precision": "bf16", "device": "cpu"}
    )
    network = Decoder(config)
    optimiser = Optimiser(network, plan)
    ids = np.random.default_rng(0).integers(shape["vocab"], size=1_000_000)
    batches = Batches(ids, shape["context"], shape["sequences"])
    task = TextTask.__new__(TextTask)  # its loss needs nothing of a prepared text
    return windows(lambda: one_step(0, network, task, batches, optimiser, plan), shape["steps"])


def peer(shape: dict[str, int]) -> list[dict[str, float]]:
    """Seconds of a plain loop's steps over `GPT2LMHeadModel`."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=shape["vocab"],
        n_positions=shape["context"],
        n_embd=shape["width"],
        n_layer=shape["layers"],
        n_head=shape["heads"],
        attn_pdrop=0.0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)

    def step() -> None:
        ids = torch.randint(shape["vocab"], (shape["sequences"], shape["context"]))
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return windows(step, shape["steps"])


def floor(shape: dict[str, int]) -> list[dict[str, float]]:
    """Seconds of the matrix products and the attention alone, forward and backward."""
    import torch
    import torch.nn.functional as F

    torch.manual_seed(0)
    width, heads, sequences, context = shape["width"], shape["heads"], shape["sequences"], shape["context"]

    def weight(outputs: int, inputs: int) -> torch.Tensor:
        return (torch.randn(outputs, inputs) / inputs**0.5).bfloat16().requires_grad_()

    layers = [
        [weight(3 * width, width), weight(width, width), weight(4 * width, width), weight(width, 4 * width)]
        for _ in range(shape["layers"])
    ]
    head = weight(shape["vocab"], width)
    weights = [head, *(w for layer in layers for w in layer)]
    inputs_BTD = torch.randn(sequences, context, width).bfloat16().requires_grad_()
    gradient_BTV = torch.randn(sequences, context, shape["vocab"]).bfloat16()

    def step() -> None:
        x_BTD = inputs_BTD
        for qkv, output, up, down in layers:
            parts = F.linear(x_BTD, qkv).view(sequences, context, 3, heads, -1).permute(2, 0, 3, 1, 4)
            y_BHTK = F.scaled_dot_product_attention(*parts, is_causal=True)
            x_BTD = F.linear(y_BHTK.transpose(1, 2).reshape(sequences, context, width), output)
            x_BTD = F.linear(F.linear(x_BTD, up), down)
        torch.autograd.grad(F.linear(x_BTD, head), [inputs_BTD, *weights], gradient_BTV)

    return windows(step, shape["steps"])


if __name__ == "__main__":
    measure.serve(ours=ours, peer=peer, floor=floor)
    main()
