"""How sure was the model of each token, and what else could have stood there?

    python examples/tokens_with_probabilities.py [RUN [PROMPT]]

RUN is a folder that `pellucid train` or `transformers` wrote; without one, a tiny model is trained first.
"""

import sys
import tempfile
from pathlib import Path

import pellucid as pl

if len(sys.argv) > 1:
    model = pl.open(sys.argv[1])
else:
    model = pl.train(None, Path(tempfile.mkdtemp(), "run"), steps=40, vocab=512, width=64, depth=2, context=64, batch=8)
prompt = sys.argv[2] if len(sys.argv) > 2 else "The value of "

for token in model.generate(prompt, max_tokens=10, temperature=0.8, seed=1):
    others = ", ".join(f"{other.shown} {other.probability:.1%}" for other in token.alternatives if other.id != token.id)
    print(f"{token.shown:>12} {token.probability:7.2%}  rank {token.rank:<4} others: {others}")

# The same for a text that is already there:
found = model.evaluate("The value of an object can change.", tokens=True)
print(f"{found.bits_per_byte:.2f} bits per byte; least expected:", min(found.scored, key=lambda t: t.probability).shown)
