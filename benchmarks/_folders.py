"""Folders that several benchmarks generate with: GPT-2 124M's shape with random weights, and a small trained run."""

import os
import subprocess
from pathlib import Path

import _measure as measure
from _measure import PELLUCID

SHAPE = {"layers": 12, "width": 768, "heads": 12, "context": 1024}
QUICK_SHAPE = {"layers": 2, "width": 128, "heads": 2, "context": 1024}


def random_gpt2(folder: Path, shape: dict[str, int]) -> None:
    """A folder as `transformers` writes it, with GPT-2's number of tokens and a tokenizer trained on Shakespeare."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from pellucid.data.tokenizer import Tokenizer

    tokenizer = Tokenizer.train(measure.shakespeare(), 50257, "gpt2")
    end = tokenizer.end_id
    config = GPT2Config(
        n_positions=shape["context"],
        n_embd=shape["width"],
        n_layer=shape["layers"],
        n_head=shape["heads"],
        bos_token_id=end,
        eos_token_id=end,
    )
    torch.manual_seed(0)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save(folder, "gpt2")


def trained(folder: Path, held_out: Path, seconds: float) -> None:
    """A run of `pellucid train` on Shakespeare, with its own plan; the held-out text is written to `held_out`."""
    *texts, last = measure.shakespeare()
    source = folder.with_suffix(".txt")
    source.write_text("\n".join(texts), "utf-8")
    held_out.write_text(last, "utf-8")
    options = ["--minutes", str(seconds / 60), "--validation", str(held_out), "--out", str(folder)]
    environment = measure.environment(os.name == "posix")
    subprocess.run([*PELLUCID, "train", str(source), *options], env=environment, check=True, stdout=subprocess.DEVNULL)
