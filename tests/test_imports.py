"""What must be quick is quick because it loads nothing heavy."""

import subprocess
import sys

import pytest

HEAVY = {"torch", "numpy", "transformers", "tokenizers", "tiktoken", "pyarrow", "safetensors", "gguf"}


@pytest.mark.parametrize(
    "program",
    [
        "import pellucid",
        "import pellucid.cli.app",
        "import pellucid; pellucid.anatomy('gpt3').parameters, pellucid.anatomy('784-128-10').neurons",
        "import pellucid.cli; sys.argv = ['pellucid', '--help']; pellucid.cli.main()",
        "import pellucid.cli; sys.argv = ['pellucid', 'train', '--help']; pellucid.cli.main()",
    ],
    ids=["import pellucid", "import pellucid.cli.app", "pl.anatomy(NAME)", "pellucid --help", "pellucid train --help"],
)
def test_nothing_heavy_is_loaded(program):
    watched = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print('LOADED', *sorted({HEAVY!r} & sys.modules.keys()), file=sys.stderr))\n"
        f"{program}\n"
    )
    done = subprocess.run([sys.executable, "-c", watched], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].split() == ["LOADED"]
    if "--help" in program:
        assert "train" in done.stdout


@pytest.mark.parametrize(
    "module",
    [
        "pellucid.anatomy.reading",
        "pellucid.data.text",
        "pellucid.data.tokenizer",
        "pellucid.data.compress",
        "pellucid.data.sets",
        "pellucid.data.encoding",
        "pellucid.data.pairs",
        "pellucid.data.pictures",
        "pellucid.training.verdict",
    ],
)
def test_what_needs_no_torch_loads_none(module):
    program = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_opening_a_folder_loads_nothing_of_gguf():
    program = "import sys, pellucid.language_model; sys.exit('gguf' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
