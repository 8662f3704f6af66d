"""What the C library (glibc, on Linux) does with freed memory, in a process that the `pellucid` command started.

A decoder's step asks for the same large blocks over and over: kept, they are there at once, without new pages from the
system. Other networks' blocks differ from layer to layer, and those that are computed again come at another time: kept,
they leave holes that nothing fits into, up to a third of all memory. `docs/performance.md` has the figures of both.
"""

from __future__ import annotations

import ctypes
import os
import sys

SETTINGS = {  # freed memory is kept
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "68719476736",
    "MALLOC_TOP_PAD_": "268435456",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
SWITCH = "PELLUCID_ALLOCATOR"  # "off" or "keep" by the user; "settled" or "kept" where a process has the settings
LARGE = 8 * 2**20  # bytes of a block that is better given back
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # glibc's names of `mallopt`


def restart() -> None:
    """Start this process again with `SETTINGS`, which must stand in the environment before Python runs.

    Only on Linux, only once, and not with PELLUCID_ALLOCATOR=off; with =keep nothing is ever given back. Settings of
    the user's stand.
    """
    mode = os.environ.get(SWITCH)
    if sys.platform != "linux" or mode in ("off", "settled", "kept"):
        return
    environment = {**SETTINGS, **os.environ, SWITCH: "kept" if mode == "keep" else "settled"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def suit(reads_text: bool, recompute: bool) -> None:
    """Give large blocks back where kept ones leave holes; smaller ones too where memory is dearer than time."""
    if recompute:
        give_back_large_blocks(LARGE // 2)
    elif not reads_text:
        give_back_large_blocks()


def give_back_large_blocks(large: int = LARGE) -> None:
    """From now on, blocks of `large` bytes and more go back to the system when they are freed."""
    if os.environ.get(SWITCH) == "settled":
        libc = ctypes.CDLL(None)
        libc.mallopt(MMAP_THRESHOLD, large)
        libc.mallopt(TRIM_THRESHOLD, 2 * LARGE)
        libc.mallopt(TOP_PAD, large)
        give_back()


def give_back() -> None:
    """Give what is free now back to the system."""
    if os.environ.get(SWITCH) == "settled":
        ctypes.CDLL(None).malloc_trim(0)
