"""`pellucid anatomy` as its user meets it."""

import json
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from pellucid import language
from pellucid.cli import app as cli

GPT2 = {"model_type": "gpt2", "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12}


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def ask(capsys):
    """Run `pellucid anatomy` and give what it prints, spaces and line ends as one."""

    def run(*words: str, code: int = 0) -> str:
        assert cli.run(["anatomy", *words]) == code, capsys.readouterr().err
        said = capsys.readouterr()
        assert all(len(line) <= 80 for line in said.out.splitlines())
        assert "Traceback" not in said.err
        return " ".join((said.out if code == 0 else said.err).split())

    return run


@pytest.mark.parametrize(
    ("name", "parameters", "neurons"),
    [
        ("gpt3", "174,604,259,328", "10,667,089"),
        ("lenet-mnist", "431,080", "15,230"),
        ("784-128-10", "101,770", "138"),
        ("y=ax+b", "2", "1"),
    ],
)
def test_the_report(ask, name, parameters, neurons):
    said = ask(name)
    assert f"{parameters} parameters" in said
    assert f"{neurons} neurons" in said


def test_a_formula(ask):
    said = ask("gpt3", "--explain", "feed-forward")
    assert "12288 × 49152 + 49152 + 49152 × 12288 + 12288 = 1,208,020,992" in said
    assert "115,970,015,232" in said
    assert "82,944" in ask("gpt2", "--explain", "neurons blocks")


def test_a_comparison(ask):
    said = ask("llama-2-7b", "--compare", "llama-2-70b")
    assert "+62,238,232,576" in said
    assert "num_hidden_layers" in said


def test_what_if(ask):
    said = ask("gpt2", "--what-if", "n_layers=24", "--what-if", "d_model=1024", "--what-if", "n_heads=16")
    assert "354,823,168" in said


def test_a_shape_typed_by_hand(ask):
    shape = ["--layers", "32", "--d-model", "4096", "--heads", "32", "--d-ff", "11008", "--vocab", "32000"]
    assert "6,738,415,616" in ask("--family", "llama", *shape, "--context", "4096")


def test_the_gpt_family(ask):
    said = ask("--list", "gpt")
    for name, total, published in (
        ("gpt1", "116,534,784", "117M"),
        ("gpt2-xl", "1,557,611,200", "1558M"),
        ("gpt3", "174,604,259,328", "175.0B"),
    ):
        assert f"{name} {total} {published}" in said
    assert re.search(r"gpt4 rumour 1\.76T", said)
    assert "gpt3.5 undisclosed" in said


def test_a_training(ask):
    said = ask("llama-2-70b", "--train", "--devices", "6000", "--price", "1.16")
    assert "11.95" in said
    assert "1,995,571 $" in said
    assert "utilisation = 39.0%, assumed" in said
    assert "3.143e+23" in ask("gpt3", "--train", "--tokens", "300B")


def test_a_serving(ask):
    said = ask("llama-3.1-8b", "--serve", "--format", "Q4_K_M", "--device", "rtx-4090", "--length", "8192")
    assert "4.58 GiB" in said
    assert "Fits" in said
    assert "131.07 kB" in said
    assert "Does not fit" in ask("llama-2-70b", "--serve", "--device", "rtx-4090")


def test_a_budget(ask):
    said = ask("--budget", "1k", "--device", "h100-sxm")
    assert "device-hours = money / price = 1,000 $ / 3.99 $" in said
    assert "20 tokens a parameter" in said


def test_the_hardware(ask):
    assert re.search(r"a100-80gb 312 bf16 80 2,039 400", ask("--hardware"))


@pytest.mark.parametrize(
    "words",
    [
        ["gpt2"],
        ["gpt2", "--explain", "all"],
        ["gpt2", "--compare", "gpt3"],
        ["gpt2", "--train", "--tokens", "1B"],
        ["gpt2", "--serve"],
        ["--budget", "5", "--device", "t4", "--price", "0.3"],
        ["--list", "gpt"],
        ["--hardware"],
    ],
)
def test_json_is_one_object(words, capsys):
    assert cli.run(["anatomy", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", ["anatomy.svg", "anatomy.html"])
def test_a_picture(ask, tmp_path, name):
    ask("gpt2", "--save", str(tmp_path / name))
    assert "124,439,808" in (tmp_path / name).read_text("utf-8")


def test_in_chinese(capsys):
    with language.speaking("zh"):
        assert cli.run(["anatomy", "gpt2", "--train", "--tokens", "9B", "--device", "t4"]) == 0
        assert cli.run(["anatomy", "--list", "gpt4"]) == 0
    said = capsys.readouterr().out
    assert "参数" in said
    assert "传闻" in said


# Bad input


@pytest.mark.parametrize(
    ("words", "word"),
    [
        ([], "WHAT"),
        (["gpt22"], "gpt2"),
        (["gpt2", "--family", "llama"], "WHAT"),
        (["gpt2", "--layers", "3"], "--what-if"),
        (["gpt2", "--explain", "atention"], "attention"),
        (["gpt2", "--what-if", "layres=3"], "n_layer"),
        (["gpt2", "--what-if", "n_layer"], "NAME=VALUE"),
        (["gpt2", "--what-if", "n_layer=-1"], "n_layer"),
        (["gpt2", "--what-if", "n_head=7"], "n_embd"),
        (["gpt2", "--compare", "nothing-like-it"], "nothing-like-it"),
        (["gpt2", "--train", "--serve"], "--serve"),
        (["gpt2", "--train", "--tokens", "many"], "2T"),
        (["gpt2", "--train", "--tokens", "nan"], "tokens"),
        (["gpt2", "--train", "--tokens", "0"], "tokens"),
        (["gpt2", "--train", "--tokens", "1e9", "--device", "a100"], "a100-80gb"),
        (["gpt2", "--train", "--tokens", "1e9", "--batch", "0"], "batch"),
        (["gpt2", "--train", "--tokens", "1e9", "--sharding", "fspd"], "fsdp"),
        (["resnet-50", "--train"], "--tokens"),
        (["gpt2", "--serve", "--format", "Q4KM"], "Q4_K_M"),
        (["gpt2", "--serve", "--tokens", "1T"], "--train"),
        (["gpt2", "--serve", "--length", "-1"], "length"),
        (["gpt2", "--save", "picture.bmp"], ".svg"),
        (["--budget", "1000"], "--device"),
        (["--budget", "-1", "--device", "h100-sxm"], "money"),
        (["--list", "no such words"], "no such words"),
        (["--family", "lama", "--layers", "2"], "llama"),
        (["784-0-10"], "784-0-10"),
    ],
)
def test_a_slip_is_told(ask, tmp_path, monkeypatch, words, word):
    monkeypatch.chdir(tmp_path)
    assert word in ask(*words, code=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({key: value for key, value in GPT2.items() if key != "model_type"}, "model_type"),
        (GPT2 | {"model_type": "gpt-9000"}, "gpt-9000"),
        (GPT2 | {"n_head": 7}, "n_head"),
        (GPT2 | {"n_embd": "768"}, "n_embd"),
        (GPT2 | {"n_layer": -12}, "n_layer"),
        (GPT2 | {"n_layer": 1.5}, "n_layer"),
    ],
)
def test_a_config_that_cannot_be(ask, tmp_path, config, word):
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    said = ask(str(tmp_path / "config.json"), code=2)
    assert word in said
    assert "config.json" in said


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.safetensors", b""),
        ("short.safetensors", struct.pack("<Q", 10_000) + b'{"a":'),
        ("cut.safetensors", struct.pack("<Q", 20) + b'{"a": {"dtype": "F32'),
        ("empty.gguf", b""),
        ("cut.gguf", b"GGUF" + struct.pack("<IQQ", 3, 5, 5)),
        ("junk.gguf", b"GGML" + bytes(100)),
        ("config.json", b"\xff\xfe\x00junk"),
        ("config.json", b"[]"),
    ],
)
def test_a_damaged_file(ask, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert name in ask(str(tmp_path / name), code=2)


def test_no_torch_is_needed(tmp_path):
    program = (
        "import sys; from pellucid.cli.app import run;"
        "codes = [run(['anatomy', *words.split()]) for words in sys.argv[1:]];"
        "print(codes, sorted({'torch', 'numpy', 'safetensors', 'gguf'} & set(sys.modules)), file=sys.stderr)"
    )
    (tmp_path / "config.json").write_text(json.dumps(GPT2), "utf-8")
    asked = [
        "gpt3",
        "784-128-10",
        "llama-2-70b --train --devices 8",
        "gpt2 --serve --device t4",
        "--list",
        str(tmp_path),
    ]
    done = subprocess.run([sys.executable, "-c", program, *asked], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[0, 0, 0, 0, 0, 0] []"


def test_a_module_from_a_file(ask, tmp_path):
    path = Path(tmp_path) / "nets.py"
    path.write_text(
        "import torch\n"
        "def line(): return torch.nn.Linear(1, 1)\n"
        "def shown(): return torch.nn.Linear(1, 1), torch.zeros(1, 1)\n"
        "def broken(): raise RuntimeError('no weights here')\n",
        "utf-8",
    )
    assert "2 parameters" in ask(f"{path}:line")
    assert "2 parameters" in ask(f"{path}:shown")
    assert "no weights here" in ask(f"{path}:broken", code=2)
    assert "curve" in ask(f"{path}:curve", code=2)


@pytest.mark.parametrize(
    ("words", "word"),
    [
        (["gpt2", "--length", "0"], "length"),
        (["gpt2", "--depth", "0"], "depth"),
        (["gpt2", "--serve", "--device", "t4", "--devices", "-3"], "devices"),
        (["gpt2", "--serve", "--price", "3"], "--device"),
        (["gpt2", "--train", "--tokens", "1B", "--utilisation", "0.5"], "--device"),
        (["gpt2", "--train", "--tokens", "1B", "--devices", "8", "--sharding", "none"], "ddp"),
        (["gpt2", "--train", "--tokens", "1B", "--optimiser", "lion"], "adamw"),
        (["--family", "gpt2", "--layers", "2.5", "--d-model", "8"], "2.5"),
        (["--hardware", "gpt2"], "gpt2"),
        (["t5-3b", "--serve"], "--length"),
        (["resnet-50", "--serve", "--length", "9"], "no text"),
        (["gpt2", "--explain", "blocks.12"], "blocks"),
    ],
)
def test_what_would_say_nothing_is_refused(ask, words, word):
    assert word in ask(*words, code=2)


def test_pictures_are_no_tokens(ask):
    said = ask("resnet-50", "--train", "--tokens", "1.28M", "--device", "a100-80gb", "--batch", "256")
    assert "1.28 M inputs" in said
    assert "6ND" not in said
    said = ask("resnet-50", "--serve", "--device", "t4", "--batch", "8")
    assert "8 at once" in said
    assert "cache" not in said


def test_what_writes_nothing_has_no_speed_of_writing(ask):
    said = ask("bert-base", "--serve", "--device", "t4")
    assert "tokens a second" not in said


def test_the_source_of_a_translator_counts(capsys):
    def exact(*words: str) -> float:
        assert cli.run(["anatomy", "t5-3b", "--train", "--tokens", "1B", "--length", "512", "--json"]) == 0
        return json.loads(capsys.readouterr().out)["exact"]

    assert 1 < exact() / (6 * 2.85e9 * 1e9) < 1.2  # 6ND, and attention's products


def test_fp32_takes_the_peak_of_fp32(capsys):
    def hours(precision: str) -> float:
        words = ["--train", "--tokens", "1B", "--device", "a100-80gb", "--precision", precision, "--json"]
        assert cli.run(["anatomy", "gpt2", *words]) == 0
        return json.loads(capsys.readouterr().out)["cost"]["hours"]

    assert hours("fp32") == pytest.approx(hours("bf16") * 312 / 19.5)


def test_longer_than_the_network_was_made_for(ask):
    assert "up to 1,024 tokens" in ask("gpt2", "--serve", "--length", "5000")


@pytest.mark.parametrize(
    ("name", "setting", "field"),
    [
        ("gpt2", "layers=3", "n_layer"),
        ("transformer-base", "heads=4", "h"),
        ("transformer-base", "n_layers=2", "N"),
        ("gemma-3-4b", "d_model=1280", "text_config.hidden_size"),
    ],
)
def test_words_of_this_house(name, setting, field, capsys):
    assert cli.run(["anatomy", name, "--what-if", setting, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["left"] == name
    changes = [name for change in said["changes"] for name in change["fields"]]
    assert changes == ([] if field == "h" else [field])  # how a width is shared by heads costs nothing


def test_an_example_of_several_is_told(ask, tmp_path, monkeypatch):
    code = "from torch import nn, randn\n\ndef one():\n    return nn.Linear(3, 4), randn(1, 3)\n\n"
    code += "def two():\n    return nn.Linear(3, 4), randn(2, 3)\n\ndef none():\n    return nn.Linear(3, 4)\n"
    (tmp_path / "mine.py").write_text(code, "utf-8")
    monkeypatch.chdir(tmp_path)
    assert "batch of one" not in ask("mine.py:one")
    assert "(2, 3): for a batch of one" in ask("mine.py:two")
    assert "by its modules alone" in ask("mine.py:none")


def test_what_never_runs_is_no_expert(ask, tmp_path, monkeypatch):
    code = "from torch import nn, randn\n\nclass Odd(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
    code += "        self.a, self.b = nn.Linear(3, 4), nn.Linear(5, 6)\n\n    def forward(self, x):\n"
    code += "        return self.a(x)\n\ndef odd():\n    return Odd(), randn(1, 3)\n"
    (tmp_path / "mine.py").write_text(code, "utf-8")
    monkeypatch.chdir(tmp_path)
    said = ask("mine.py:odd")
    assert "never runs" in said
    assert "router" not in said


def test_whisper_writes_as_much_as_it_was_made_for(ask):
    assert "1 × 448 tokens" in ask("whisper-tiny", "--serve")


def test_a_shape_that_was_published_is_no_number_of_parameters(capsys):
    assert cli.run(["anatomy", "--list", "playground"]) == 0
    assert "%" not in capsys.readouterr().out
