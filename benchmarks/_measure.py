"""What every benchmark shares: timed windows that know of foreign load, runs in a process of their own, tables.

A window is disturbed, and marked "!", when other programs used more than `MOST_FOREIGN` of a core meanwhile. Ratios are
taken round by round: A and B run one after the other in each round, so a neighbour's load that lasts hits both.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pellucid.training import allocator as ours

MOST_FOREIGN = 0.1  # cores
CACHE = Path(__file__).parents[1] / "cache"
PELLUCID = [sys.executable, "-m", "pellucid"]
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Window:
    """A stretch of time: how long it was, and how many cores others used meanwhile."""

    seconds: float = 0.0
    foreign: float = 0.0

    @property
    def disturbed(self) -> bool:
        return self.foreign > MOST_FOREIGN


@contextmanager
def window() -> Iterator[Window]:
    """Time the body. Own work is this process's and that of the children that ended in the body."""
    found = Window()
    busy, own, started = _busy(), _own(), time.perf_counter()
    yield found
    found.seconds = time.perf_counter() - started
    found.foreign = max(0.0, (_busy() - busy - (_own() - own)) / found.seconds)


def repeated(work: Callable[[], object], times: int) -> list[Window]:
    """`work` done `times` times, a window each."""
    windows = []
    for _ in range(times):
        with window() as found:
            work()
        windows.append(found)
    return windows


def _busy() -> float:
    """Seconds that all cores together have worked since the start, the time stolen by other machines included."""
    try:
        user, nice, system, _idle, _io, irq, softirq, steal, *_ = map(int, _line("/proc/stat", "cpu ").split()[1:])
    except OSError:  # not Linux: nothing is known of others
        return _own()
    return (user + nice + system + irq + softirq + steal) / _TICKS


def _own() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _line(path: str, start: str) -> str:
    return next((line for line in Path(path).read_text().splitlines() if line.startswith(start)), "")


# runs in a process of their own


def child(name: str, settings: Mapping[str, Any], allocator: bool) -> Any:
    """Run `name` of this script's `serve` in a fresh process; what it returned.

    With `allocator` it has the environment that the `pellucid` command gives itself, else a plain one.
    """
    command = [sys.executable, sys.argv[0], "--child", name, json.dumps(settings)]
    ran = subprocess.run(command, env=environment(allocator), stdout=subprocess.PIPE, text=True)
    if ran.returncode:
        sys.exit(f"{name} {dict(settings)} ended with exit code {ran.returncode}")
    return json.loads(ran.stdout.splitlines()[-1])


def serve(**works: Callable[..., Any]) -> None:
    """In a process that `child` started, do the work asked for, print what it returns, and end."""
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(works[sys.argv[2]](**json.loads(sys.argv[3]))))
        sys.exit()


def environment(allocator: bool) -> dict[str, str]:
    """This process's environment without (or with) our allocator settings, and without a re-start by `pellucid`."""
    plain = {name: value for name, value in os.environ.items() if name not in (*ours.SETTINGS, ours.SWITCH)}
    plain |= {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}  # they would tear the table
    return plain | (ours.SETTINGS | {ours.SWITCH: "settled"} if allocator else {})


# what is printed


def options(description: str, **more: Mapping[str, Any]) -> argparse.Namespace:
    """The arguments of a benchmark: `--quick`, and `more`, each the keywords of `add_argument`."""
    parser = argparse.ArgumentParser(description=description.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="under two minutes: does it run? Its figures mean nothing")
    for name, keywords in more.items():
        parser.add_argument(f"--{name}", **keywords)
    return parser.parse_args()


def header(not_timed: str, quick: bool) -> None:
    """Where and with what this is measured."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        cpu = _line("/proc/cpuinfo", "model name").partition(":")[2].strip() or cpu
        flags = _line("/proc/cpuinfo", "flags").split()
        extensions = [name for name in ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16") if name in flags]
        cpu += f" ({', '.join(extensions)})"
    packages = ("torch", "transformers", "tokenizers", "tiktoken", "numpy")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    print(f"{os.cpu_count()} cores of {cpu}; {platform.system()}; Python {platform.python_version()}; {versions}")
    print(f"! = others used more than {MOST_FOREIGN} core meanwhile; ratios are taken in each round, then the median")
    print(f"Not timed: {not_timed}")
    if quick:
        print("--quick: these figures say only that the benchmark runs.")
    print(flush=True)


@dataclass
class Figures:
    """One figure, measured once a round."""

    values: list[float] = field(default_factory=list)
    disturbed: list[bool] = field(default_factory=list)

    def add(self, value: float, disturbed: bool) -> None:
        self.values.append(value)
        self.disturbed.append(disturbed)

    def add_rate(self, items: float, windows: Sequence[Mapping[str, float]]) -> None:
        """Items a second, from the median of one round's windows; undisturbed ones where there are any."""
        found = [Window(**w) for w in windows]
        chosen = [w for w in found if not w.disturbed] or found
        self.add(items / statistics.median(w.seconds for w in chosen), chosen[0].disturbed)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def over(self, other: "Figures") -> "Figures":
        """The ratio in each round."""
        pairs = zip(self.values, other.values, strict=True)
        marks = zip(self.disturbed, other.disturbed, strict=True)
        return Figures([a / b for a, b in pairs], [a or b for a, b in marks])

    def show(self, form: str = ",.0f") -> str:
        """Median (least to most), "!" where rounds were disturbed: how many of how many."""
        bad, rounds = sum(self.disturbed), len(self.values)
        mark = f" !{bad}/{rounds}" if bad else ""
        return f"{self.median:{form}} ({min(self.values):{form}} to {max(self.values):{form}}){mark}"


def verdict(figure: Figures, goal: float, at_least: bool = True) -> str:
    """The figure beside its goal."""
    met = figure.median >= goal if at_least else figure.median <= goal
    return f"{figure.show('.2f')}  goal {'>=' if at_least else '<='} {goal:g}: {'met' if met else 'MISSED'}"


def shakespeare() -> list[str]:
    """The 42 plays and poems, in the order of their file names (see tests/fetch.py)."""
    return [path.read_text("utf-8") for path in sorted((CACHE / "shakespeare").glob("*.txt"))]


def tang() -> list[str]:
    """41,465 poems, their lines joined by line breaks."""
    with (CACHE / "tang.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]
