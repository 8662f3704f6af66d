"""The command line's face: every slip gets one clear message, exit code 2, and changes nothing on disk."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from pydoc_data.topics import topics
from types import SimpleNamespace

import pytest

import pellucid as pl
from pellucid import language
from pellucid.cli import app as cli
from pellucid.tasks.text import TextTask
from pellucid.training import progress
from pellucid.training import run as running
from pellucid.training.progress import Terminal
from runs import Stop, snapshot

TINY = {"width": 32, "depth": 1, "heads": 2, "context": 32, "vocab": 300, "batch": 4, "threads": 1}
OPTIONS = [f"--{name}={value}" for name, value in TINY.items()]
LIMIT = 64_000  # bytes: shorter than a checkpoint's files
MEASURED = running.seconds_per_step
PELLUCID = [sys.executable, "-m", "pellucid"]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Path:
    """A finished run, one that was stopped, and everything that should be refused."""
    folder = tmp_path_factory.mktemp("workshop")
    text = topics["lambda"] + topics["objects"] + topics["naming"]
    (folder / "text.txt").write_text(text, "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "seconds_per_step", lambda task, plan: 0.01)
        pl.train(folder / "text.txt", folder / "run", steps=4, evaluations=2, **TINY)
        with pytest.raises(pl.PellucidError):
            pl.train(folder / "text.txt", folder / "stopped", steps=8, evaluations=4, progress=Stop(5), **TINY)
    rows = [{"title": "a", "body": line} for line in text.splitlines() if line]
    files = {
        "empty.txt": b"",
        "white.txt": b" \n\t\n ",
        "binary.dat": bytes(range(256)),
        "bad-utf8.txt": "春眠不觉晓".encode() * 50 + b"\xff" + "处处闻啼鸟".encode() * 9,
        "word.txt": b"x",
        "short.txt": b"hello world\ngood bye\n",
        "broken.jsonl": b'{"text": "one"}\n{"text": "two"\n{"text": "three"}\n',
        "two-columns.jsonl": "\n".join(map(json.dumps, rows)).encode(),
        "numbers.jsonl": b'{"n": 1}\n{"n": 2}\n',
        "damaged.parquet": b"PAR1 is how it begins",
        "folder-of-binaries/a.bin": bytes(range(256)),
        "pickled/pytorch_model.bin": b"whatever",
        "pickled/config.json": (folder / "run" / "config.json").read_bytes(),
        "pickled/tokenizer.json": (folder / "run" / "tokenizer.json").read_bytes(),
    }
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "nothing").mkdir()
    return folder


@pytest.fixture(autouse=True)
def _here(workshop, monkeypatch):
    monkeypatch.chdir(workshop)
    monkeypatch.setattr(running, "seconds_per_step", lambda task, plan: 0.01)
    yield
    language.use("en")


@pytest.fixture
def pellucid(capfd) -> Callable[..., tuple[int, str, str]]:
    """Run a command in this process: its exit code, what it printed, and what it said on standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = cli.run(list(arguments))
        return code, *capfd.readouterr()

    return run


@pytest.fixture
def refused(pellucid) -> Callable[..., str]:
    """Run a command that must be refused; returns the message."""

    def run(*arguments: str) -> str:
        before = snapshot(Path())
        code, _out, error = pellucid(*arguments)
        assert code == 2, error
        assert 1 <= len(error.splitlines()) <= 3, error
        assert all(line.strip() for line in error.splitlines()), error
        assert "Traceback" not in error
        assert snapshot(Path()) == before
        return error

    return run


# slips


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("missing.txt", "no such file"),
        ("", "no such file"),
        ("empty.txt", "empty"),
        ("white.txt", "no text"),
        ("binary.dat", "byte 0 is 0"),
        ("nothing", "no text file"),
        ("folder-of-binaries", "no text file"),
        ("bad-utf8.txt", r"Byte 750 \(0xFF\) is not UTF-8"),
        ("word.txt", "too short"),
        ("broken.jsonl", "broken.jsonl, line 2"),
        ("two-columns.jsonl", "--text: title, body"),
        ("numbers.jsonl", "No column holds text"),
        ("damaged.parquet", "damaged.parquet"),
    ],
)
def test_a_source_that_cannot_be_read_is_refused(refused, source, says):
    assert re.search(says, refused("train", source, "--out", "new", "--steps", "2", *OPTIONS))
    if source != "word.txt":
        assert re.search(says, refused("evaluate", "run", source))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--minutes 0", "--minutes 0 makes no sense"),
        ("--minutes -1", "more than 0"),
        ("--minutes inf", "--minutes inf"),
        ("--minutes soon", "--minutes"),
        ("--steps 0", "--steps 0"),
        ("--minutes 1 --steps 3", "Both --minutes and --steps"),
        ("--size nonsense", "such as 3M"),
        ("--threads 0", "--threads 0"),
        ("--device cuda", "no device 'cuda'"),
        ("--device abacus", "no device 'abacus'"),
        ("--from run/plan.json --steps 1", "run/plan.json"),
        ("--from nothing --steps 1", "nothing"),
        ("--tokenizer text.txt --steps 1", "text.txt"),
        ("--validation empty.txt --steps 1", "empty.txt"),
        ("--plan text.txt", "not a plan"),
        ("--text column --steps 1", "Only tables"),
        ("--context 1000000 --steps 1", "--context"),
        ("--width 33 --heads 1 --steps 1", "--width"),
        ("--vocab 3 --steps 1", "at least 257"),
        ("--seed 99999999999999999999", "--seed"),
        ("--learning-rate nan", "--learning-rate"),
        ("--weight-decay inf", "--weight-decay"),
        ("--dropout 1", "--dropout 1"),
        ("--warmup 0.9 --decay 0.9", "together"),
        ("--family gpt5", "gpt2"),
        ("--widht 32", "--width"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(refused, options, says, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert says in refused("train", "text.txt", "--out", "new/run", *options.split())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("train text.txt", "--out"),
        ("train text.txt --out text.txt", "not overwritten"),
        ("train text.txt --out run", "--resume run"),
        ("train text.txt --out text.txt/below", "text.txt"),
        ("train --resume nothing", "no run"),
        ("train --resume unknown", "no run"),
        ("train text.txt --resume stopped", "SOURCE"),
        ("train --resume stopped --steps 9", "--steps"),
        ("train --resume stopped --dry-run", "--dry-run"),
        ("train --resume run", "--from run"),
        ("generate unknown x", "no model"),
        ("generate nothing x", "config.json"),
        ("generate text.txt x", "no model"),
        ("generate pickled x", "pickle"),
        ("generate run", "--from-nothing"),
        ("chat unknown", "no model"),
        ("evaluate unknown text.txt", "no model"),
        ("evaluate run two-columns.jsonl --text nope", "title, body"),
        ("evaluate run text.txt --threads 0", "--threads"),
        ("generate", "RUN"),
        ("generate run To be or not", 'quotes: "'),
        ("trian text.txt", '"train"'),
        ("--language xx train", "--language zh"),
        ("train --language", "--language zh"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused(refused, arguments, says):
    assert says in refused(*arguments.split())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--temperature", "-1"),
        ("--temperature", "nan"),
        ("--top-p", "2"),
        ("--top-p", "0"),
        ("--top-k", "-1"),
        ("--min-p", "3"),
        ("--repetition-penalty", "0"),
        ("--max-tokens", "0"),
        ("--samples", "0"),
        ("--seed", "-1"),
        ("--stop", ""),
        ("--threads", "0"),
        ("--threads", "-3"),
        ("--device", "cuda"),
        ("--device", "abacus"),
        ("--precision", "fp8"),
        ("--temperatur", "1"),
    ],
)
def test_sampling_that_makes_no_sense_is_refused(refused, option, value, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert option in refused("generate", "run", "The", option, value)


def test_an_empty_prompt_is_refused(refused, monkeypatch):
    assert "no prompt" in refused("generate", "run", "")
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        assert "no prompt" in refused("generate", "run", "-")


def test_half_a_character_is_refused(refused):
    assert "Character 2 of the text, U+D800" in refused("generate", "run", "x\ud800y")


def test_a_plan_that_begins_with_a_lost_model_is_refused(refused, tmp_path, monkeypatch):
    plan = json.loads(Path("run/plan.json").read_bytes())
    (tmp_path / "plan.json").write_text(json.dumps(plan | {"start_from": str(tmp_path / "lost")}))
    (tmp_path / "text.txt").write_bytes(Path("text.txt").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert "lost" in refused("train", "text.txt", "--out", "new", "--plan", "plan.json", "--vocab", "300")


def test_a_model_to_go_on_from_is_opened_before_anything_is_made(refused, monkeypatch):
    monkeypatch.setattr(running, "seconds_per_step", MEASURED)
    assert "pickle" in refused("train", "text.txt", "--out", "new", "--from", "pickled", "--steps", "1")


# damage


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def changed(**settings: object) -> Callable[[bytes], bytes]:
    return lambda data: json.dumps({**json.loads(data), **settings}).encode()


@pytest.mark.parametrize(
    ("file", "damage", "commands"),
    [
        ("model.safetensors", half, ("generate", "evaluate", "chat")),
        ("model.safetensors", lambda data: b"", ("generate",)),
        ("model.safetensors", lambda data: b"x" * 99, ("generate",)),
        ("config.json", half, ("generate",)),
        ("config.json", lambda data: b"[]", ("generate",)),
        ("config.json", changed(hidden_size=64), ("generate",)),
        ("config.json", changed(hidden_size="wide"), ("generate",)),
        ("config.json", changed(vocab_size=9), ("generate",)),
        ("config.json", changed(model_type="mystery"), ("generate",)),
        ("tokenizer.json", half, ("generate", "resume")),
        ("tokenizer.json", lambda data: b"{}", ("generate", "resume")),
        ("plan.json", half, ("resume", "plan")),
        ("plan.json", lambda data: b"[1]", ("resume", "plan")),
        ("plan.json", lambda data: b"{}", ("resume", "plan")),
        ("plan.json", changed(batch="many"), ("resume", "plan")),
        ("plan.json", changed(network={}), ("resume",)),
        ("journal.jsonl", half, ("resume",)),
        ("checkpoints/last/state.json", half, ("resume",)),
        ("checkpoints/last/state.json", lambda data: b"{}", ("resume",)),
        ("checkpoints/last/state.json", changed(surprise=1), ("resume",)),
        ("checkpoints/last/model.safetensors", half, ("resume",)),
        ("checkpoints/last/optimiser.safetensors", half, ("resume",)),
        ("data/train.bin", half, ("resume",)),
        ("data/train.bin.json", half, ("resume",)),
    ],
)
def test_a_damaged_file_is_named(refused, workshop, tmp_path, monkeypatch, file, damage, commands):
    shutil.copytree("stopped", tmp_path / "hurt")
    path = tmp_path / "hurt" / file
    path.write_bytes(damage(path.read_bytes()))
    monkeypatch.chdir(tmp_path)
    shutil.copy(workshop / "text.txt", "text.txt")
    lines = {
        "generate": "generate hurt The",
        "evaluate": "evaluate hurt text.txt",
        "chat": "chat hurt",
        "resume": "train --resume hurt",
        "plan": "train text.txt --out new --plan hurt/plan.json --vocab 300",
    }
    for command in commands:
        message = refused(*lines[command].split())
        # a tensor of another shape: either of two files may be the wrong one
        assert path.name in message or path.name.removesuffix(".json") in message or "tensor" in message


def test_a_full_disk_loses_nothing(tmp_path):
    """The system refuses to write long files, as on a full disk: what was saved stays and can be gone on with."""
    shutil.copytree("stopped", tmp_path / "run")
    kept = snapshot(tmp_path / "run" / "checkpoints" / "last")

    def no_space() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))

    command = [*PELLUCID, "train", "--resume", str(tmp_path / "run")]
    full = subprocess.run(command, preexec_fn=no_space, capture_output=True, text=True)
    assert full.returncode == 2, full.stderr
    assert "cannot be written" in full.stderr
    assert "Traceback" not in full.stderr
    assert len(full.stderr.splitlines()) == 3
    assert snapshot(tmp_path / "run" / "checkpoints" / "last") == kept
    running.resume(str(tmp_path / "run"))
    with pytest.raises(pl.PellucidError, match="finished"):
        running.resume(str(tmp_path / "run"))


@pytest.mark.parametrize("fails", ["mkdir", "journal"])
def test_a_folder_that_may_not_be_written_is_named(refused, tmp_path, monkeypatch, fails):
    """(Root may write everywhere, so the system's answer is put into its mouth.)"""

    def denied(*arguments: object, **how: object) -> None:
        raise PermissionError(13, "Permission denied", "new")

    if fails == "mkdir":
        monkeypatch.setattr("tempfile.mkdtemp", denied)
        assert "Permission denied" in refused("train", "text.txt", "--out", "new", "--steps", "1", *OPTIONS)
    else:
        shutil.copytree("stopped", tmp_path / "stopped")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("pellucid.training.journal.Journal.__init__", denied)
        assert "Permission denied" in refused("train", "--resume", "stopped")


# what must work


def test_odd_prompts_are_continued(pellucid):
    for prompt in ("a\0b", "<|endoftext|>", "饕餮魑魅 👩‍👩‍👧‍👦 العربية", "\u2028\ufeff", " ", "\n"):
        code, out, error = pellucid("generate", "run", prompt, "--max-tokens", "3")
        assert code == 0, error
        assert out.startswith(prompt)


def test_a_prompt_longer_than_the_window_says_what_is_not_seen(pellucid):
    code, out, error = pellucid("generate", "run", topics["objects"][:1000] * 100, "--max-tokens", "3")
    assert code == 0
    assert len(out) > 100_000
    assert re.search(r"does not see the prompt's first [\d,]+ tokens, 'Objects.*'; it sees the last 29\]", error)
    assert len(error.splitlines()) == 1


def test_a_text_that_outgrows_the_window_says_so_once(pellucid):
    code, _out, error = pellucid("generate", "run", "The", "--max-tokens", "80")
    assert code == 0
    assert re.search(r"ceased to see the first \d+ of the tokens", error)
    assert len(error.splitlines()) == 1


def test_stop_strings_samples_and_a_prompt_from_standard_input(pellucid, monkeypatch, tmp_path):
    (tmp_path / "prompt").write_text("The value", "utf-8")
    with open(tmp_path / "prompt") as prompt:
        monkeypatch.setattr(sys, "stdin", prompt)
        code, out, _error = pellucid("generate", "run", "-", "--samples", "2", "--stop", "e", "--stop", "a")
    assert code == 0
    assert out.startswith("--- 1 ---\nThe value")
    assert "--- 2 ---\nThe value" in out
    assert not set("ea") & set(out.replace("The value", ""))


def test_json_is_one_object_a_token(pellucid):
    code, out, _error = pellucid("generate", "run", "The", "--json", "--max-tokens", "5", "--no-heal")
    assert code == 0
    tokens = [json.loads(line) for line in out.splitlines()]
    assert len(tokens) == 5
    assert tokens[-1]["finish"] == "length"
    assert all(0 < token["probability"] <= 1 and token["rank"] >= 1 for token in tokens)


def test_probabilities_are_shown(pellucid):
    code, out, _error = pellucid("generate", "run", "The", "--show", "probabilities", "--max-tokens", "5")
    assert code == 0
    assert "alternatives" in out
    assert out.count("%") > 5
    code, out, _error = pellucid("evaluate", "run", "text.txt", "--show", "probabilities")
    assert code == 0
    assert "bits per byte" in out


def test_evaluate_and_its_json_say_the_same(pellucid):
    found = json.loads(pellucid("evaluate", "run", "text.txt", "--json")[1])
    out = pellucid("evaluate", "run", "text.txt")[1]
    assert f"{found['bits_per_byte']:.3f} bits per byte" in out
    assert found["bytes"] == len(Path("text.txt").read_bytes())


def test_chat_continues_what_is_piped_in(pellucid, monkeypatch, tmp_path):
    (tmp_path / "talk").write_text("The value\nof an object\n\nnever read\n", "utf-8")
    with open(tmp_path / "talk") as talk:
        monkeypatch.setattr(sys, "stdin", talk)
        code, out, error = pellucid("chat", "run", "--max-tokens", "4")
    assert code == 0
    assert "base model: continuing your text" in error
    assert len(out.splitlines()) >= 2


def test_dry_run_prints_the_plan_and_leaves_nothing(pellucid):
    before = snapshot(Path())
    code, out, error = pellucid("train", "text.txt", "--out", "a/b", "--minutes", "0.5", "--threads", "1", "--dry-run")
    assert code == 0, error
    assert snapshot(Path()) == before
    plan = pl.plan("text.txt", minutes=0.5, threads=1)
    assert f"{plan.parameters:,}" in out
    for name in ("vocabulary", "context", "batch", "learning rate", "steps", "dropout", "time", "memory"):
        assert re.search(rf"^{name} +\S", out, re.MULTILINE), name
    reasons = {
        name
        for name, _value, reason in progress.rows(
            plan, SimpleNamespace(unit="tokens", rows=partial(TextTask.rows, None))
        )
        if not reason
    }
    assert not reasons, f"no reason is given for {reasons}"


def test_messages_are_chinese_where_asked_for(refused, pellucid, monkeypatch):
    chinese = re.compile(r"[\u4e00-\u9fff]")
    assert chinese.search(refused("--language", "zh", "train", "missing.txt", "--out", "new"))
    assert chinese.search(refused("generate", "unknown", "x", "--language=zh_CN.UTF-8"))
    monkeypatch.delenv("LANGUAGE")
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    monkeypatch.setattr(language, "_catalogue", None)
    message = refused("train", "text.txt", "--out", "run")
    assert all(chinese.search(line) for line in message.splitlines() if line != "run")


def test_every_line_of_a_training_is_chinese(pellucid, tmp_path):
    code, out, error = pellucid(
        *("train", "text.txt", "--language", "zh", "--steps", "2", "--out", str(tmp_path / "zh"), *OPTIONS)
    )
    assert code == 0, error
    english = [line for line in out.splitlines() if re.search(r"[A-Za-z]{3} [A-Za-z]{3,} [A-Za-z]{3}", line)]
    assert not english


def test_help_names_every_option_and_needs_no_torch():
    """Help is read often: it must come at once, and `import torch` takes seconds."""
    code = "import sys; from pellucid.cli.app import run; run(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    for command, options in {
        "train": ("--minutes", "--resume", "--dry-run", "--from", "--plan"),
        "generate": ("--top-p", "--show", "--json", "--stop", "--int8"),
        "chat": ("--temperature",),
        "evaluate": ("--text", "--json"),
    }.items():
        shown = subprocess.run([sys.executable, "-c", code, command, "--help"], capture_output=True, text=True)
        assert shown.returncode == 0, shown.stderr
        assert all(option in shown.stdout for option in options)


# interruptions


def test_ctrl_c_while_reading_or_planning_leaves_nothing(pellucid, monkeypatch):
    before = snapshot(Path())

    def interrupt(*arguments: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    for place in ("pellucid.data.text.read", "pellucid.training.run.seconds_per_step"):
        with monkeypatch.context() as patch:
            patch.setattr(place, interrupt)
            code, _out, error = pellucid("train", "text.txt", "--out", "new", "--steps", "2", *OPTIONS)
        assert code == 130
        assert "nothing was kept" in error
        assert snapshot(Path()) == before


def test_ctrl_c_while_training_saves_and_says_how_to_go_on(pellucid, monkeypatch, tmp_path):
    out = str(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(Terminal, "step", lambda self, step, plan, seconds: os.kill(os.getpid(), signal.SIGINT))
        code, _out, error = pellucid("train", "text.txt", "--out", out, "--steps", "4", *OPTIONS)
    assert code == 130
    assert "everything is saved" in error
    assert f"pellucid train --resume {out}" in error
    assert len(error.splitlines()) == 3
    code, printed, error = pellucid("train", "--resume", out)
    assert code == 0, error
    assert "Trained in" in printed


def test_ctrl_c_after_the_last_step_says_how_to_go_on(pellucid, monkeypatch, tmp_path):
    out = str(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr("pellucid.tasks.text.TextTask.baselines", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        code, _out, error = pellucid("train", "text.txt", "--out", out, "--steps", "2", *OPTIONS)
    assert code == 130
    assert f"--resume {out}" in error
    assert pellucid("train", "--resume", out)[0] == 0


def test_a_run_killed_before_an_evaluation_evaluates_first(pellucid, monkeypatch, tmp_path):
    out = str(tmp_path / "run")

    def killed(*arguments: object) -> None:
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr(running.Run, "evaluate", killed)
        with pytest.raises(SystemExit):
            cli.run(["train", "text.txt", "--out", out, "--steps", "4", "--evaluations", "2", *OPTIONS])
    code, printed, error = pellucid("train", "--resume", out)
    assert code == 0, error
    assert re.search(r"step +2: held out", printed)


def test_ctrl_c_while_writing_ends_quietly(pellucid, monkeypatch):
    from pellucid.generation.reader import Reader

    read, calls = Reader.logits, []

    def interrupt(self: Reader, *arguments, **how):
        calls.append(1)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return read(self, *arguments, **how)

    monkeypatch.setattr(Reader, "logits", interrupt)
    code, out, error = pellucid("generate", "run", "The")
    assert code == 130
    assert out.startswith("The")
    assert len(error.splitlines()) <= 1


def test_a_reader_that_leaves_is_no_error():
    """`pellucid generate … | head -1`"""
    command = [*PELLUCID, "generate", "run", "The", "--max-tokens", "100000", "--threads", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("The")
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait() == 0, errors
    assert "rror" not in errors


def test_a_figure_is_the_same_wherever_it_stands(pellucid, tmp_path):
    """Three steps are too few to say much, and what is said must hold together."""
    _code, out, _error = pellucid("train", "text.txt", "--out", str(tmp_path / "run"), "--steps", "3", *OPTIONS)
    measured = re.search(r"([\d.]+) bits per byte on all held-out text", out)
    compared = re.search(r"([\d.]+) bits per byte on unseen data", out)
    assert f"{float(measured[1]):.2f}" == compared[1]
    assert not re.search(r"\b(inf|nan)\b", out)
