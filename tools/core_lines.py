"""Print how many lines the core has, file by file, and fail when it outgrows its budget.

The core is what a reader must understand to trust the rest: the loop, the tape, its rules, why and flow. The rules of
backward passes and of optimisers say the same of training in the same words; they are counted beside it.
"""

import sys
from pathlib import Path

BUDGET = 2_000
CORE = ("training/loop.py", "tracing/tape.py", "tracing/rules", "tracing/why.py", "tracing/flow.py")
BESIDE = ("tracing/rules/backward.py", "tracing/rules/steps.py")
SOURCE = Path(__file__).parents[1] / "src" / "pellucid"


def main() -> int:
    beside = [path for name in BESIDE for path in _modules(name)]
    total = _count([path for name in CORE for path in _modules(name) if path not in beside])
    print(f"{total:6,}  core, of {BUDGET:,} lines; beside it:")
    _count(beside)
    return int(total > BUDGET)


def _count(paths: list[Path]) -> int:
    """Print each file's lines; their sum."""
    total = 0
    for path in paths:
        lines = len(path.read_text("utf-8").splitlines())
        total += lines
        print(f"{lines:6,}  {path.relative_to(SOURCE)}")
    return total


def _modules(name: str) -> list[Path]:
    """A core part is one module or a package of modules; one that is not built yet counts nothing."""
    path = SOURCE / name
    if path.suffix == ".py":
        return [path] if path.exists() else []
    return sorted(path.rglob("*.py")) or _modules(f"{name}.py")


if __name__ == "__main__":
    sys.exit(main())
