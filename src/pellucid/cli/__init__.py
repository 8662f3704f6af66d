"""The command line: each command is a thin face of one public function."""

from __future__ import annotations

import os
import sys

# glibc keeps freed memory instead of handing it back to the system: see docs/performance.md for what it gains
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "68719476736",
    "MALLOC_TOP_PAD_": "268435456",
    # without caches of small blocks: in them lie the slivers beside large ones, which then never grow together again
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0",
}


def main() -> None:
    """Entry point of the `pellucid` command."""
    settle_allocator(sys.argv[1:])
    from pellucid.cli.app import run  # after the re-start, which should cost nothing

    sys.exit(run(sys.argv[1:]))


def settle_allocator(arguments: list[str]) -> None:
    """On Linux, start this process again with glibc settings that must stand in the environment before Python runs.

    Only for training (writing would start later: large pages must be zeroed first), only once, and not at all with
    PELLUCID_ALLOCATOR=off; settings of the user's stand.
    """
    training = bool({"train", "ladder"} & set(arguments[:3])) and not {"--help", "-h"} & set(arguments)
    mode = os.environ.get("PELLUCID_ALLOCATOR", "")
    if sys.platform != "linux" or not training or mode in ("off", "settled"):
        return
    environment = {**ALLOCATOR, **os.environ, "PELLUCID_ALLOCATOR": "settled"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)
