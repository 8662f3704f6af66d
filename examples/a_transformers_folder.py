"""Our folder in `transformers`, and a folder of `transformers` in Pellucid: the same files, the same numbers.

    python examples/a_transformers_folder.py

Needs `pip install transformers`; downloads nothing.
"""

import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import pellucid as pl

folder = Path(tempfile.mkdtemp())
options = {"steps": 20, "vocab": 512, "width": 64, "depth": 2, "context": 64, "batch": 8}
ours = pl.train(None, folder / "run", **options)

# Ours, opened by transformers.
theirs, tokenizer = AutoModelForCausalLM.from_pretrained(folder / "run"), AutoTokenizer.from_pretrained(folder / "run")
ids = tokenizer("The value of an object", return_tensors="pt").input_ids
with torch.no_grad():
    difference = (theirs(ids).logits - ours.network(ids)).abs().max().item()
print(f"{type(theirs).__name__} opens it; its logits differ by at most {difference:.1e}")

# Theirs, opened by Pellucid.
theirs.save_pretrained(folder / "theirs")
tokenizer.save_pretrained(folder / "theirs")
model = pl.open(folder / "theirs")
print("".join(token.text for token in model.generate("The value", max_tokens=10, seed=1)))
print(f"{model.probability('The value', ' of'):.2%} for ' of' after 'The value'")
