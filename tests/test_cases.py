"""The main job on real input, as a user does it: any text in, a model out, run token by token by us and by others."""

import json
import math
import random
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenizers
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

import pellucid as pl
from pellucid.cli import app as cli

CACHE = Path(__file__).parents[1] / "cache"
TINY = {"width": 32, "depth": 1, "heads": 2, "context": 32, "vocab": 400, "batch": 8, "threads": 1}
TINY |= {"steps": 5, "evaluations": 2, "dropout": 0.0}
STEPS = 300
TEXT = topics["objects"] + topics["naming"]


@pytest.fixture(autouse=True)
def _measured_elsewhere(monkeypatch):
    """The plan's timing is tested elsewhere, and takes a second and a half each time."""
    monkeypatch.setattr("pellucid.training.run.seconds_per_step", lambda task, plan: 0.01)


def thirty_lines(folder: Path) -> Path:
    lines = [line for line in TEXT.splitlines() if line][:30]
    (folder / "short.txt").write_text("\n".join(lines) + "\n", "utf-8")
    return folder / "short.txt"


def markdown(folder: Path) -> Path:
    for n, name in enumerate(("objects", "naming", "lambda", "import")):
        place = folder / "notes" / ("deeper" if n % 2 else "")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{name}.md").write_text(f"# {name}\n\n{topics[name]}", "utf-8")
    return folder / "notes"


def json_lines(folder: Path) -> Path:
    rows = [json.dumps({"text": part}) for part in TEXT.split("\n\n") if part.strip()]
    (folder / "rows.jsonl").write_text("\n".join(rows), "utf-8")
    return folder / "rows.jsonl"


def parquet(folder: Path) -> Path:
    parts = [part for part in TEXT.split("\n\n") if part.strip()]
    pq.write_table(pa.table({"n": range(len(parts)), "content": parts}), folder / "rows.parquet")
    return folder / "rows.parquet"


@pytest.mark.parametrize("source", [thirty_lines, markdown, json_lines, parquet])
def test_any_text_trains_and_writes(source, tmp_path):
    model = pl.train(source(tmp_path), tmp_path / "run", **TINY)
    written = list(model.generate("The ", max_tokens=10, seed=1))
    assert written
    assert all(0 < token.probability <= 1 for token in written)


def test_thirty_lines_need_no_options_but_the_time(tmp_path):
    model = pl.train(thirty_lines(tmp_path), tmp_path / "run", steps=3, threads=1)
    assert list(model.generate("An", max_tokens=3))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "prompt"), [("shakespeare", "To be"), ("tang.jsonl", "春眠")])
def test_real_texts_train_and_write(name, prompt, tmp_path):
    assert (CACHE / name).exists(), "run `python tests/fetch.py` first, as `make test-all` does"
    model = pl.train(CACHE / name, tmp_path / "run", **TINY | {"vocab": 1024, "steps": 60})
    written = "".join(token.text for token in model.generate(prompt, max_tokens=30, seed=1))
    assert written.strip()
    evaluation = model.evaluate((CACHE / "shakespeare" / "hamlet.txt").read_text("utf-8")[:20_000])
    assert evaluation.bits_per_byte < (6 if name == "shakespeare" else 30)


# what the model writes, by other programs


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "text.txt").write_text(TEXT + "饕餮魑魅，春眠不觉晓。\n" * 40, "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pellucid.training.run.seconds_per_step", lambda task, plan: 0.01)
        pl.train(folder / "text.txt", folder / "run", **TINY | {"steps": 30})
    return folder / "run"


def test_transformers_opens_our_run(run):
    ours, theirs = pl.open(run), AutoModelForCausalLM.from_pretrained(run).eval()
    tokenizer = AutoTokenizer.from_pretrained(run)
    for text in ("The value of an object", "饕餮魑魅 👩‍👩‍👧‍👦", "  def f(x):\n\treturn x\n", "I don't know 12345"):
        ids = tokenizer(text).input_ids
        assert ids == ours.tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        ids_BT = torch.tensor([ids])
        with torch.no_grad():
            torch.testing.assert_close(ours.network(ids_BT), theirs(ids_BT).logits, atol=1e-4, rtol=0)


def test_json_probabilities_are_transformers_softmax(run, capfd):
    assert cli.run(["generate", str(run), "The value of", "--json", "--no-heal", "--max-tokens", "12"]) == 0
    tokens = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    prompt = AutoTokenizer.from_pretrained(run)("The value of").input_ids
    ids = [*prompt, *(token["id"] for token in tokens)]
    with torch.no_grad():
        logits_TV = AutoModelForCausalLM.from_pretrained(run)(torch.tensor([ids])).logits[0]
    softmax_TV = logits_TV.double().softmax(-1)
    for place, token in enumerate(tokens, len(prompt) - 1):
        row_V = softmax_TV[place]
        assert token["probability"] == pytest.approx(row_V[token["id"]].item(), rel=1e-4)
        assert token["rank"] == 1 + int((row_V > row_V[token["id"]]).sum())
        for other in token["alternatives"]:
            assert other["probability"] == pytest.approx(row_V[other["id"]].item(), rel=1e-4)


def foreign(family: str, folder: Path) -> None:
    """A folder that `transformers` alone wrote: random weights, a tokenizer trained by `tokenizers`."""
    backend = tokenizers.ByteLevelBPETokenizer()
    backend.train_from_iterator([TEXT], vocab_size=400, special_tokens=["<|end|>"], show_progress=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend._tokenizer, eos_token="<|end|>", bos_token="<|end|>")
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    if family == "gpt2":
        shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
        network = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0, **shape))
    else:
        shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
        shape |= {"num_key_value_heads": 2, "max_position_embeddings": 64}
        network = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0, **shape))
    network.save_pretrained(folder)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_every_command_takes_a_folder_of_transformers(family, tmp_path, capfd, monkeypatch):
    folder, text = tmp_path / "theirs", tmp_path / "text.txt"
    foreign(family, folder)
    text.write_text("The value of an object.\n", "utf-8")
    assert cli.run(["generate", str(folder), "The value", "--max-tokens", "5", "--no-heal", "--json"]) == 0
    tokens = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    theirs, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("The value").input_ids
    with torch.no_grad():
        first_V = theirs(torch.tensor([ids])).logits[0, -1].softmax(-1)
    assert tokens[0]["probability"] == pytest.approx(first_V[tokens[0]["id"]].item(), rel=1e-4)

    assert cli.run(["evaluate", str(folder), str(text), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    stream = torch.tensor([[0, *tokenizer(text.read_text("utf-8")).input_ids]])
    assert found["loss"] == pytest.approx(theirs(stream, labels=stream).loss.item(), rel=1e-3)

    text.write_text("hello\n\n", "utf-8")
    with text.open() as talk:
        monkeypatch.setattr("sys.stdin", talk)
        assert cli.run(["chat", str(folder), "--max-tokens", "5"]) == 0
    assert "base model" not in capfd.readouterr().err

    (tmp_path / "train.txt").write_text(TEXT, "utf-8")
    model = pl.train(tmp_path / "train.txt", tmp_path / "more", start_from=str(folder), steps=2, threads=1)
    assert model.tokenizer.encode("The value") == ids


# characters


@pytest.mark.slow
def test_rare_characters_and_emoji_stream_whole(tmp_path, capfd):
    line = "饕餮魑魅，👩‍👩‍👧‍👦🇨🇳，鬱！\n"
    (tmp_path / "text.txt").write_text(line * 300, "utf-8")
    options = {**TINY, "tokenizer": "bytes", "context": 128, "steps": 250, "width": 64}
    del options["vocab"]
    model = pl.train(tmp_path / "text.txt", tmp_path / "run", **options)
    tokens = list(model.generate(line * 2, greedy=True, max_tokens=2 * len(line.encode())))
    pieces = [token.text for token in tokens]
    assert "".join(pieces) == line * 2
    assert all(len(piece) <= 1 for piece in pieces), "a character comes with its last byte, and alone"
    assert all(re.fullmatch(r"(<[0-9A-F]{2}>|[!-~␣⏎])+", token.shown) or token.shown == "" for token in tokens)
    code = cli.run(["generate", str(tmp_path / "run"), line, "--greedy", "--max-tokens", str(len(line.encode()))])
    out = capfd.readouterr().out
    assert code == 0
    assert out.count("饕餮魑魅") == 2
    assert "\ufffd" not in out


# a full disk


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A disk of 640 kB: room for a run and one checkpoint of it, not for two."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=640k", "none", str(disk)], capture_output=True)
    if mounted.returncode:  # only root may mount: without it tests/test_cli.py has the system refuse long files
        yield disk
        return
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("steps", ["while it reads", "while it saves"])
def test_a_disk_that_fills_up_costs_nothing_that_was_saved(small_disk, tmp_path, capfd, steps):
    (tmp_path / "text.txt").write_text(TEXT, "utf-8")
    if steps == "while it reads" and small_disk.is_mount():
        (small_disk / "ballast").write_bytes(b"x" * 620_000)
    out = small_disk / "run"
    code = cli.run(
        ["train", str(tmp_path / "text.txt"), "--out", str(out), "--save-seconds", "0"]
        + [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
    )
    error = capfd.readouterr().err
    if not small_disk.is_mount():
        assert code == 0
        return
    assert code == 2
    assert len(error.splitlines()) == 3, error
    assert "cannot be written" in error
    if steps == "while it reads":
        assert [path.name for path in small_disk.iterdir()] == ["ballast"]
        return
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    assert (out / "checkpoints" / "last" / "state.json").exists(), "one whole checkpoint had room"
    assert cli.run(["train", "--resume", str(out)]) == 0
    again = pl.train(tmp_path / "text.txt", tmp_path / "again", save_seconds=0.0, **TINY)
    assert (out / "model.safetensors").read_bytes() == (again.folder / "model.safetensors").read_bytes()


# the prompt's end


def republic(size: int, seed: int) -> str:
    """Varied sentences in which 中华人民 is followed by 共和国, but one time in 64 by something else.

    The exceptions are spread evenly over the beginnings, so that the share is the same whatever stands before.
    """
    chance = random.Random(seed)
    words: dict[str, list[str]] = {
        "place": ["北京", "上海", "广州", "成都", "西安", "南京", "武汉", "杭州", "昆明", "拉萨", "哈尔滨", "兰州"],
        "person": ["老师", "工人", "农民", "学生", "医生", "记者", "司机", "画家", "邻居", "代表"],
        "deed": ["学习", "讨论", "介绍", "回顾", "庆祝", "记录", "研究", "讲述"],
        "thing": ["历史", "文化", "法律", "教育", "铁路", "桥梁", "森林", "音乐", "建筑", "河流"],
        "number": [str(n) for n in range(1, 29)],
    }
    before = ["", "{place}的{person}{deed}了", "在{place}，{person}常常谈起", "{number}月{number}日，", "这本书写的是"]
    before += ["{person}说：“", "根据", "我们热爱", "{thing}是", "一九四九年，", "关于", "“"]
    other = ["政府", "万岁", "解放军", "英雄纪念碑"]
    after = ["的{thing}。", "成立于一九四九年。", "{thing}法第{number}条规定，{person}应当爱护{thing}。"]
    after += ["有悠久的{thing}，{person}都很喜欢。", "的{person}来到{place}，{deed}那里的{thing}。"]
    plain = ["{place}的{thing}很有名，{person}去年{deed}过。", "{number}月的{place}，天气晴朗，{person}在河边散步。"]
    plain += ["{person}对{person}说：今天{deed}{thing}好吗？", "第{number}天，{person}离开{place}，坐火车去看{thing}。"]

    def filled(template: str) -> str:
        return re.sub(r"\{(\w+)\}", lambda name: chance.choice(words[name[1]]), template)

    lines, length, seen = [], 0, dict.fromkeys(before, 0)
    while length < size:
        line = filled(chance.choice(plain))
        if chance.random() < 0.75:
            start = chance.choice(before)
            seen[start] += 1
            follows = chance.choice(other) if seen[start] % 64 == 32 else "共和国"
            line = filled(start) + "中华人民" + follows + filled(chance.choice(after))
        lines.append(line + "\n")
        length += len(lines[-1].encode())
    return "".join(lines)


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", ["its own", "bytes"])
def test_what_follows_a_prompt_that_ends_inside_a_token(tokenizer, tmp_path):
    """After 中华人民 the model gives 共和国 its share, though training saw it all as one token or as 21 bytes."""
    text = republic(300_000, seed=1)
    (tmp_path / "text.txt").write_text(text, "utf-8")
    share = text.count("中华人民共和国") / text.count("中华人民")
    assert len(text.encode()) >= 200_000
    assert 0.97 <= share < 1
    options = {"vocab": 1000} if tokenizer == "its own" else {"tokenizer": "bytes"}
    options |= {"width": 128, "depth": 2, "context": 64, "batch": 16, "threads": 1, "evaluations": 2}
    model = pl.train(tmp_path / "text.txt", tmp_path / "run", steps=STEPS, **options)
    assert len(model.tokenizer.encode("中华人民共和国")) == (1 if tokenizer == "its own" else 21)
    starts = ("", "我们热爱", "北京的老师学习了", "在上海，工人常常谈起", "3月5日，", "一九四九年，", "“", "根据")
    found = {start: model.probability(start + "中华人民", "共和国") for start in starts}
    assert min(found.values()) >= 0.97, found
    assert all(math.isclose(p, share, abs_tol=0.02) for p in found.values()), (share, found)
    # and it is what is written
    written = "".join(token.text for token in model.generate("我们热爱中华人民", greedy=True, max_tokens=12))
    assert written.startswith("共和国")
