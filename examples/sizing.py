"""How large is a network of your own, where does each number come from, and what would training it cost?

    python examples/sizing.py

Nothing is trained: shapes are enough.
"""

import torch
from torch import nn

import pellucid as pl

network = nn.Sequential(
    nn.Conv2d(3, 32, 3, padding=1),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(32, 64, 3, padding=1),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Linear(64 * 8 * 8, 256),
    nn.ReLU(),
    nn.Linear(256, 10),
)
anatomy = pl.anatomy(network, torch.randn(1, 3, 32, 32))
assert anatomy.parameters.total == sum(p.numel() for p in network.parameters())
print(f"{anatomy.parameters.total:,} parameters, {anatomy.neurons.total:,} neurons")
print(f"{anatomy.neurons.maps:,} neurons, where all of a feature map count as one")

# Any count as its formula, with this network's own numbers in it.
print("neurons:", anatomy.explain(quantity="neurons"))
print("the first dense layer:", anatomy.explain("7"))
print("multiply-adds of the convolutions:", anatomy.explain("convolution", "multiply-adds"))

# A hundred passes over 50,000 pictures on a rented device.
training = anatomy.training(tokens=100 * 50_000, device="a100-80gb", batch=128)
assert training.cost is not None
print(f"training: {training.exact:.3g} FLOPs, {60 * training.cost.hours:.2f} minutes, {training.cost.money:.3f} $")
for line in training.cost.explain():
    print("  " + line)

# The same questions about somebody else's network, by its name; and about one that nobody has built.
llama = pl.anatomy("llama-2-7b")
serving = llama.serving("Q4_K_M", device="rtx-4090", length=4096)
print(f"llama-2-7b: {serving.sizes.total / 2**30:.2f} GiB; fits: {serving.fits}")
fewer = llama.what_if(n_kv_heads=8)
print(f"with 8 key and value heads {llama.compare(fewer).total.difference:+,} parameters")
