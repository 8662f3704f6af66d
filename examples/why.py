"""Why this token? The answer's terms, the flow behind them, and what happens when a part is really taken away.

    python examples/why.py [RUN [PROMPT]]

RUN is a folder that `pellucid train` or `transformers` wrote, or a .gguf file; without one, a tiny model is trained.
"""

import sys
import tempfile
from pathlib import Path

import pellucid as pl

if len(sys.argv) > 1:
    model = pl.open(sys.argv[1])
else:
    model = pl.train(None, Path(tempfile.mkdtemp(), "run"), steps=40, vocab=512, width=64, depth=2, context=64, batch=8)
prompt = sys.argv[2] if len(sys.argv) > 2 else "The value of the"

trace = model.trace(prompt)
best, second = trace.candidates(2)
print(f"after {prompt!r}: {best.shown} {best.probability:.1%}, {second.shown} {second.probability:.1%}")

# One number, its terms, and a term of a term: each level adds up.
question = trace.choice(best.id, second.id)
answer = trace.why(question)
print(f"{answer.question}: {answer.value:+.3f} = {answer.total:+.3f}, a sum of {len(answer.terms)} terms")
for term in answer.terms[:3]:
    print(f"  {term.contribution:+.3f} = {term.coefficient:+.3f} x {term.value:+.3f}  {term.address}")
deeper = answer.terms[0].why()
print(f"{deeper.address} is {deeper.value:+.3f}, a sum of {len(deeper.terms)} terms by {deeper.operation}")

# All of it at once: what each part of each layer and each token contribute.
flow = trace.flow(question)
for layer in flow.layers:
    parts = ", ".join(f"{group.name.rpartition('.')[2]} {group.amount:+.3f}" for group in layer.groups)
    print(f"{layer.name}: {parts}, past it {layer.past:+.3f}, constants after it {layer.later + layer.constant:+.3f}")
assert flow.tokens is not None
print("by token:", ", ".join(f"{t} {share:+.3f}" for t, share in zip(trace.tokens, flow.tokens.tolist(), strict=True)))

# Exact is not causal: take something away, and measure.
print(answer.ablate(3))
print(trace.ablate(question, flow.layers[-1].groups[0].name))
with pl.edit(model, {flow.layers[0].groups[0].name: lambda x: 2 * x}):
    print("with the first layer's attention doubled:", model.trace(prompt).candidates(1)[0].shown)
