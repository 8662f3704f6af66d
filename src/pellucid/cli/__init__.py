"""The command line: each command is a thin face of one public function."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the `pellucid` command."""
    if {"train", "ladder"} & set(sys.argv[1:4]) and not {"--help", "-h"} & set(sys.argv):
        from pellucid.training import allocator  # only for training: writing would start later, with large pages zeroed

        allocator.restart()
    from pellucid.cli.app import run  # after the re-start, which should cost nothing

    sys.exit(run(sys.argv[1:]))
