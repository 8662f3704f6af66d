"""What a terminal and a program get to see of each token."""

import base64
import json

from rich.console import Console

from pellucid.generation.decode import Alternative, Token, Window
from pellucid.generation.display import coloured, legend, percent, table, to_json

TOKEN = Token(
    id=7,
    text="魅",
    bytes="魅".encode(),
    shown="魅",
    probability=0.25,
    raw_probability=0.125,
    sampled_probability=0.5,
    rank=2,
    alternatives=(Alternative(3, "魑", 0.6), Alternative(7, "魅", 0.25)),
    index=0,
    sample=1,
    healed=b"\xe9",
    forgotten=Window(4, "旧", 12),
)


def test_json_has_every_field_on_one_line():
    line = to_json(TOKEN)
    assert "\n" not in line
    fields = json.loads(line)
    assert set(fields) == set(Token.__dataclass_fields__)
    assert base64.b64decode(fields["bytes"]) == "魅".encode()
    assert fields["alternatives"][0] == {"id": 3, "shown": "魑", "probability": 0.6}
    assert fields["forgotten"] == {"tokens": 4, "text": "旧", "kept": 12}


def test_the_table_lists_probabilities_and_the_other_tokens():
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table([TOKEN]))
    text = console.export_text()
    assert text.splitlines()[1].split() == ["魅", "25.0%", "50.0%", "2", "魑", "60.0%"]


def test_colours_tell_probabilities_apart():
    styles = [coloured("x", p).style for p in (0.001, 0.05, 0.2, 0.5, 0.99, 1.0, 1.0000001)]
    assert len(set(styles)) == 5
    assert styles[-1] == styles[-2] == styles[-3]
    assert legend().plain.count("≤") == 5


def test_small_probabilities_are_not_shown_as_0():
    assert [percent(p) for p in (0.0, 1.0, 0.1234, 0.0000123)] == ["0.0%", "100.0%", "12.3%", "0.0012%"]
