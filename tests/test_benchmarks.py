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


@pytest.mark.slow
def test_we_count_right_where_others_do_not() -> None:
    command = [sys.executable, str(BENCHMARKS / "counters.py")]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert "goal 0.1 %: met" in printed, printed
