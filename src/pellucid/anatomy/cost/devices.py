"""Hardware: what makers print of theirs (`devices.toml`), and what is measured of this machine's."""

from __future__ import annotations

import difflib
import math
import os
import time
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pellucid.errors import PellucidError
from pellucid.language import _

TRAINING = ("bf16", "fp16", "fp32")  # the formats that trainings multiply in
HERE = "this-machine"


@dataclass(frozen=True)
class Device:
    """One chip or machine."""

    name: str
    title: str
    peak: dict[str, float]  # number format ("bf16", "int8", ...): operations a second, dense
    bandwidth: float  # bytes a second, to and from its memory
    memory: int  # bytes
    source: str
    power: float | None = None  # watts at most
    price: float | None = None  # $ an hour
    price_date: str = ""
    price_source: str = ""
    has_cuda: bool = True  # whose context takes memory of its own

    def rate(self, precision: str | None = None) -> tuple[str, float]:
        """A number format and its peak, operations a second; without a name the fastest of those that trainings use.

        Raises:
            PellucidError: when no peak is known for that format.
        """
        name = precision or max((name for name in TRAINING if name in self.peak), key=self.peak.__getitem__)
        if name not in self.peak:
            raise PellucidError(
                _("No peak is known of {device} in {precision}.").format(device=self.title, precision=name),
                "precision",
                _("Known: {names}.").format(names=", ".join(self.peak)),
            )
        return name, self.peak[name]


def find(name: str) -> Device:
    """The device of that name, "this-machine" included; capitals and spaces do not matter.

    Raises:
        PellucidError: when there is none, with the names nearest to it.
    """
    key = name.strip().lower().replace(" ", "-").replace("_", "-")
    if key == HERE:
        return this_machine()
    if key not in table():
        near = [known for known in table() if key and known.startswith(key)]
        near = near or difflib.get_close_matches(key, table(), 4, 0.4) or list(table())
        raise PellucidError(
            _("There is no device {name!r} in the table.").format(name=name),
            "device",
            _("Nearest: {names}; or {here}, which is measured.").format(names=", ".join(near), here=HERE),
        )
    return table()[key]


@cache
def table() -> dict[str, Device]:
    """The devices of `devices.toml` by name."""
    rows = tomllib.loads(Path(__file__).with_name("devices.toml").read_text(encoding="utf-8"))
    return {name: _device(name, row) for name, row in rows.items()}


def _device(name: str, row: dict[str, Any]) -> Device:
    peak = {key.removeprefix("peak_"): value for key, value in row.items() if key.startswith("peak_")}
    rest = {key: value for key, value in row.items() if not key.startswith("peak_")}
    return Device(name, peak=peak, **rest | {"memory": int(row["memory"])})


def this_machine(device: str | None = None) -> Device:
    """This machine's own device, measured in some hundred milliseconds; its memory is what can still be taken now.

    The peak is the rate of a matrix product and the bandwidth that of a copy (read and written, as STREAM counts), each
    the best of five: what programs reach here, so below what a maker would print. Power and price are not known.

    Args:
        device: "cpu", "cuda" or "mps"; the fastest that torch finds when left out.

    Raises:
        PellucidError: when torch finds no such device, or the system does not tell its memory.
    """
    import torch

    from pellucid.networks.device import device as find_device

    kind = find_device(device)
    if kind == "cuda":
        title, memory = torch.cuda.get_device_name(), torch.cuda.mem_get_info()[0]
    else:
        title = _("this machine ({device}, threads: {n})").format(device=kind, n=torch.get_num_threads())
        memory = available_memory() or 0
    if not memory:
        raise PellucidError(
            _("This system does not tell how much memory it has."), HERE, _("Name a device of the table.")
        )
    side = 1024 if kind == "cpu" else 8192  # a GPU is not busy with less
    peak = {precision: 2 * side**3 / product_seconds(precision, kind, side) for precision in ("fp32", "bf16")}
    return Device(HERE, title, peak, _bandwidth(kind), memory, _("measured here"), has_cuda=kind == "cuda")


@cache  # one measurement serves many trainings in one process
def product_seconds(precision: str, device: str, side: int = 1024) -> float:
    """Seconds of the product of two square matrices in "fp32" or "bf16", the best of five: 2 side^3 operations."""
    import torch

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    left, right = (torch.ones(side, side, dtype=dtype, device=device) for _side in range(2))
    return _best(lambda: (left @ right)[0, 0].item())


def _bandwidth(device: str) -> float:
    import torch

    source = torch.ones(2**25, device=device)  # 128 MiB: more than caches hold
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best(lambda: target.copy_(source)[0].item())


def _best(work: Any) -> float:
    best = math.inf
    for _repeat in range(5):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


def available_memory() -> int | None:
    """Bytes of memory that can still be taken, where the system tells; on Linux also the limit of the control group."""
    try:
        text = Path("/proc/meminfo").read_text()
        available = int(text.split("MemAvailable:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (ValueError, OSError, AttributeError):
            return None
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and limit.read_text().strip().isdigit():
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        available = min(available, int(limit.read_text()) - used)
    return available
