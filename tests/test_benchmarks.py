"""The benchmarks that have no other test run to their end."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "parts", "says"),
    [
        ("explanations.py", "a b", ["flow, values", "flow / random"]),
        ("recording.py", "record ask keep", ["TorchLens", "a log-probability: the whole head", "a token generated"]),
        ("playground_speed.py", "speed look start", ["2-4-2-1 / the browser's engine", "Heat-maps", "found compiled"]),
    ],
)
def test_runs_quickly(script: str, parts: str, says: list[str]) -> None:
    command = [sys.executable, str(BENCHMARKS / script), "--quick", "--parts", *parts.split()]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert all(words in printed for words in says), printed
