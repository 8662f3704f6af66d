"""Train a small model on a text and let it write.

    python examples/train_on_your_text.py [YOUR_TEXT [FOLDER]]

Without a text it takes the demo text that comes with Python; a folder, .jsonl or .parquet will do as well.
"""

import sys
import tempfile
from pathlib import Path

import pellucid as pl
from pellucid.training.progress import Terminal

source = sys.argv[1] if len(sys.argv) > 1 else None
folder = sys.argv[2] if len(sys.argv) > 2 else Path(tempfile.mkdtemp(), "run")

# A few seconds' worth, to see it work; leave the options out for a model that has learned something.
options = {"steps": 40, "vocab": 512, "width": 64, "depth": 2, "context": 64, "batch": 8}
model = pl.train(source, folder, progress=Terminal(), **options)

prompt = "The "
print(prompt, end="")
for token in model.generate(prompt, max_tokens=40, temperature=0.8, seed=1):
    print(token.text, end="", flush=True)
print()
