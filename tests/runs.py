"""What several tests do with runs: stop them, and see what a folder holds."""

import hashlib
import os
import signal
from pathlib import Path

from pellucid.training.progress import Progress


class Stop(Progress):
    """Interrupts the training, as Ctrl-C does, when a step is made."""

    def __init__(self, at: int, by: signal.Signals = signal.SIGINT) -> None:
        self.at, self.by = at, by

    def step(self, step, plan, seconds):
        if step.number + 1 == self.at:
            os.kill(os.getpid(), self.by)


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def snapshot(folder: Path) -> dict[str, str]:
    """Everything in a folder, hidden files too, and its content."""
    return {str(path.relative_to(folder)): digest(path) if path.is_file() else "" for path in sorted(folder.rglob("*"))}
