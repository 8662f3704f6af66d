"""From starting the command to its first token: `pellucid generate` against a minimal script over `transformers`.

The same folders: GPT-2 124M's shape with random weights, and a small trained run. Each start is a new process; the
files are in the system's cache for both. The clock stops when the last of the output has come, which holds the token.

python benchmarks/cold_start.py [--quick] [--rounds 9]
"""

import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import _folders as folders
import _measure as measure
from _measure import PELLUCID, Figures, verdict

PROMPT = "My lord, the king"
SCRIPT = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, prompt = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
inputs = tokenizer(prompt, return_tensors="pt")
output = model.generate(**inputs, max_new_tokens=1, do_sample=False)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:]), flush=True)
"""


def main() -> None:
    asked = measure.options(__doc__, rounds={"type": int, "default": 9})
    measure.header(
        "nothing; each command was run once before, so that its files are in the system's cache", asked.quick
    )
    rounds = 2 if asked.quick else asked.rounds
    with tempfile.TemporaryDirectory() as folder:
        gpt2, run = Path(folder) / "gpt2", Path(folder) / "run"
        folders.random_gpt2(gpt2, folders.QUICK_SHAPE if asked.quick else folders.SHAPE)
        folders.trained(run, Path(folder) / "held-out.txt", 5 if asked.quick else 30)
        script = Path(folder) / "peer.py"
        script.write_text(SCRIPT)
        for name, model in (("GPT-2 124M, random weights", gpt2), ("a small trained run", run)):
            compare(name, model, script, rounds)


def compare(name: str, model: Path, script: Path, rounds: int) -> None:
    """Print one folder's table."""
    generate = [*PELLUCID, "generate", str(model), PROMPT, "--max-tokens", "1", "--greedy"]
    peer = [sys.executable, str(script), str(model), PROMPT]
    plain = measure.environment(False)
    commands = {  # the command makes its own allocator settings, by starting again: that is timed
        "pellucid generate": (generate, plain),
        "transformers": (peer, plain),
        "transformers, our allocator": (peer, measure.environment(True)),
    }
    seconds: defaultdict[str, Figures] = defaultdict(Figures)
    for number in range(rounds + 1):
        for what, (command, environment) in commands.items():
            with measure.window() as window:
                waited = first_token(command, environment)
            if number:
                seconds[what].add(waited, window.disturbed)
    print(name)
    for what, figure in seconds.items():
        print(f"  {what:<30}{figure.show('.2f')} s")
    ours = seconds["pellucid generate"]
    print(f"  {'ours / transformers':<30}{verdict(ours.over(seconds['transformers']), 0.6, at_least=False)}")
    print(
        f"  {'... with our allocator':<30}{ours.over(seconds['transformers, our allocator']).show('.2f')}\n", flush=True
    )


def first_token(command: list[str], environment: dict[str, str]) -> float:
    """Seconds from the start of `command` until the last of its output came."""
    started = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        waited = 0.0
        while process.stdout.read(65536):
            waited = time.perf_counter() - started
    if process.returncode or not waited:
        sys.exit(f"{command} wrote nothing, or ended with exit code {process.returncode}")
    return waited


if __name__ == "__main__":
    main()
