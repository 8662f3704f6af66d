"""What the C library does with freed memory: seen in processes that have its settings from their start."""

import os
import platform
import subprocess
import sys

import pytest

from pellucid.training import allocator

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's settings")

HELD_AFTER = """
import os, sys
from pellucid.training import allocator
import torch

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

torch.ones(1)
if sys.argv[1] == "given back":
    allocator.give_back_large_blocks()
before = resident()
blocks = [torch.ones(4 * 2**20) for _ in range(16)]  # 16 MB each
del blocks[::2]  # every second one: holes
if sys.argv[1] == "given back once":
    allocator.give_back()
print(resident() - before)
"""


def held_after(how: str, mode: str = "settled") -> int:
    """Bytes held after 16 blocks of 16 MiB were made and 8 of them freed."""
    environment = os.environ | allocator.SETTINGS | {allocator.SWITCH: mode}
    command = [sys.executable, "-c", HELD_AFTER, how]
    return int(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def test_freed_blocks_are_kept_by_the_settings_and_given_back_on_demand():
    assert held_after("kept") > 250 * 2**20
    assert held_after("given back") < 150 * 2**20
    assert held_after("given back once") < 150 * 2**20
    assert held_after("given back", mode="kept") > 250 * 2**20


@pytest.mark.parametrize(
    ("command", "mode", "then"),
    [("train", None, "settled"), ("train", "keep", "kept"), ("train", "off", None), ("generate", None, None)],
)
def test_only_training_is_started_again_with_the_settings(command, mode, then, tmp_path):
    script = tmp_path / "start.py"  # what stands in the environment when the command's own code runs
    script.write_text(
        "import os, sys\n"
        "sys.modules['pellucid.cli.app'] = app = type(sys)('app')\n"
        "app.run = lambda arguments: print(*arguments, *map(os.environ.get, sys.argv[2:])) or 3\n"
        "from pellucid.cli import main\n"
        "main()\n"
    )
    names = [*allocator.SETTINGS, allocator.SWITCH]
    clean = {name: value for name, value in os.environ.items() if name not in names}
    clean["MALLOC_TOP_PAD_"] = "4096"  # the user's own, which stands
    if mode:
        clean[allocator.SWITCH] = mode
    ran = subprocess.run(
        [sys.executable, str(script), command, *names], env=clean, check=False, capture_output=True, text=True
    )
    expected = allocator.SETTINGS | {allocator.SWITCH: then} if then else dict.fromkeys(names) | {names[-1]: mode}
    values = [str({**expected, "MALLOC_TOP_PAD_": "4096"}[name]) for name in names]
    assert (ran.returncode, ran.stdout.split()) == (3, [command, *names, *values])
