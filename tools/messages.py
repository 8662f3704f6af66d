"""Collect the messages from the source, merge them with their Chinese, and compile the catalogue.

python tools/messages.py [PART.po ...]   collect, take translations from the parts as well, compile
python tools/messages.py --check         only say what is missing; exit 1 if anything is
"""

import argparse
import ast
import gettext
import io
import string
import sys
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

SOURCE = Path(__file__).parents[1] / "src" / "pellucid"
CATALOGUE = "anatomy/catalogue/*.toml"
PO = SOURCE / "locale" / "zh" / "LC_MESSAGES" / "pellucid.po"
MO = PO.with_suffix(".mo")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", type=Path, help="PO files whose translations are taken over")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if anything is missing")
    options = parser.parse_args()
    if not options.check:
        update(options.parts)
    found = problems()
    print("\n".join(found) or f"{len(messages())} messages, all in English and Chinese")
    return int(bool(found))


def update(parts: list[Path]) -> None:
    """Write the catalogue and its compiled form: the messages of the source, each with the Chinese known for it."""
    known = chinese(PO)
    for part in parts:
        known |= chinese(part)
    # A fixed date, or the compiled file would differ each time it is written.
    catalogue = Catalog("zh", creation_date=_EPOCH, revision_date=_EPOCH, fuzzy=False)
    for message, files in messages().items():
        catalogue.add(message, known.get(message, ""), locations=[(file, 0) for file in files])
    PO.parent.mkdir(parents=True, exist_ok=True)
    with PO.open("wb") as file:
        file.write(_HEADER.encode())
        write_po(file, catalogue, width=120, sort_output=True, include_lineno=False, omit_header=True)
    with MO.open("wb") as file:
        write_mo(file, catalogue)


def problems() -> list[str]:
    """One line for each thing that would show a Chinese reader English, or the wrong thing."""
    found, translations, source = untranslatable(), chinese(PO), messages()
    for message, files in source.items():
        if not translations.get(message):
            found.append(f"no Chinese: {message!r} ({', '.join(files)})")
        elif fields(message) != fields(translations[message]):
            found.append(f"other {{fields}} in the Chinese of {message!r} ({', '.join(files)})")
    found += [f"no longer in the source: {message!r}" for message in translations if message not in source]
    if compiled() != {message: text for message, text in translations.items() if text}:
        found.append(f"{MO.name} is not what {PO.name} says")
    return [*found, "run: make messages"] if found else []


def messages() -> dict[str, list[str]]:
    """Each message of the source, and each note of the catalogue of models, with the files it stands in."""
    result: dict[str, list[str]] = {}
    for file, message in (*_in_calls(), *_in_notes()):
        result.setdefault(message, [])
        if file not in result[message]:
            result[message].append(file)
    return result


def _in_calls() -> Iterator[tuple[str, str]]:
    found = extract_from_dir(SOURCE, [("**.py", "python")], keywords={"_": None})
    yield from ((file, str(message)) for file, _line, message, _comments, _context in found)


def _in_notes() -> Iterator[tuple[str, str]]:
    for path in sorted(SOURCE.glob(CATALOGUE)):
        for row in tomllib.loads(path.read_text("utf-8")).values():
            said = [row.get("note"), row["source"] if "status" in row else None]  # why nothing is known, not a paper
            yield from ((str(path.relative_to(SOURCE)), message) for message in said if message)


def untranslatable() -> list[str]:
    """Calls of ``_`` whose argument is not a plain string: nobody can collect what they will say."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_":
                literal = len(node.args) == 1 and isinstance(node.args[0], ast.Constant)
                if not literal or node.keywords:
                    found.append(f"not a plain string: {ast.unparse(node)} ({path.relative_to(SOURCE)}:{node.lineno})")
    return found


def chinese(path: Path) -> dict[str, str]:
    """What a PO file says: message to translation."""
    if not path.exists():
        return {}
    catalogue = read_po(io.StringIO(path.read_text("utf-8")))
    return {str(entry.id): str(entry.string) for entry in catalogue if entry.id}


def compiled() -> dict[str, str]:
    """What the program reads at run time."""
    if not MO.exists():
        return {}
    with MO.open("rb") as file:
        catalogue = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
    return {message: text for message, text in catalogue.items() if message}


def fields(message: str) -> set[str]:
    """The names in braces: ``{n} of {total:,}`` has n and total."""
    return {
        name.split(".")[0].split("[")[0]
        for _text, name, _spec, _kind in string.Formatter().parse(message)
        if name is not None
    }


_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_HEADER = """\
# Pellucid's messages in Chinese, written by tools/messages.py: edit the msgstr lines, then run `make messages`.
msgid ""
msgstr ""
"Language: zh\\n"
"Content-Type: text/plain; charset=UTF-8\\n"
"Content-Transfer-Encoding: 8bit\\n"

"""

if __name__ == "__main__":
    sys.exit(main())
