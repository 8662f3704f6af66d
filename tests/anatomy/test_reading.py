"""Anything in: each way to name a network, against the network itself; by headers only; what cannot be read."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import pellucid as pl
from pellucid.anatomy.reading import read_family
from pellucid.checkpoints.plain import save_plain
from pellucid.cli import app as cli
from pellucid.networks.decoder import Decoder, decoder_config
from pellucid.networks.dense import Dense, DenseConfig
from pellucid.networks.detector import Detector, DetectorConfig

CACHE = Path(__file__).parents[2] / "cache"
QUICK = {"steps": 2, "evaluations": 1, "threads": 1}
SMALL = {"width": 32, "depth": 1, "heads": 2}
ROTARY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
ROTARY |= {"vocab_size": 96, "max_position_embeddings": 64, "pad_token_id": 0}
GROUPED = ROTARY | {"num_key_value_heads": 2}
BIG = {"vocab_size": 64, "hidden_size": 128, "intermediate_size": 96, "num_hidden_layers": 4, "pad_token_id": 0}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
OPENAI = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "vocab_size": 96}


def numbers(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


# runs of ours


def pictures(folder: Path) -> Path:
    noise = np.random.default_rng(0)
    for kind in ("across", "down"):
        (folder / kind).mkdir(parents=True)
        for n in range(12):
            Image.fromarray(noise.integers(0, 255, (12, 12), dtype=np.uint8)).save(folder / kind / f"{n}.png")
    return folder


def table(folder: Path) -> Path:
    path = folder / "houses.csv"
    path.write_text("rooms,place,price\n" + "".join(f"{n % 7},{'ab'[n % 2]},{n * 3}\n" for n in range(40)))
    return path


def lines(folder: Path, **columns: str) -> Path:
    path = folder / "rows.jsonl"
    words = [{name: f"{text} {n} {n * n}" if name != "label" else "ab"[n % 2] for name, text in columns.items()}
             for n in range(60)]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in words))
    return path


RUNS = {
    "table": (table, {"target": "price", "layers": "4"}),
    "text": (lambda folder: (folder / "t.txt").write_text("to be or not to be. " * 200) and folder / "t.txt",
             SMALL | {"context": 16, "vocab": 270, "batch": 4}),
    "pictures": (lambda folder: pictures(folder / "set"), {"network": "conv 4 3, batch, relu, average all; dense 2"}),
    "labels": (lambda folder: lines(folder, text="so", label=""), SMALL | {"task": "labels", "target": "label"}),
    "pairs": (lambda folder: lines(folder, de="das ist", en="that is"),
              SMALL | {"task": "pairs", "text": "de", "target": "en"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pellucid.training.run.seconds_per_step", lambda task, plan: 0.01)
        for name, (source, options) in RUNS.items():
            folder = tmp_path_factory.mktemp(name)
            pl.train(source(folder), folder / "run", **QUICK, **options)
            made[name] = folder / "run"
    return made


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_counted_by_its_config_json(runs, name):
    found, network = pl.anatomy(runs[name]), pl.open(runs[name]).network
    assert found.parameters.total == numbers(network)
    assert any(name in note for note in found.notes)
    assert found.stored == "fp32"
    held = sum(held.numbers for held in found.file.values())
    assert held == found.parameters.total + found.parameters.buffers
    alone = pl.anatomy(runs[name] / "config.json")
    assert (alone.parameters, alone.file) == (found.parameters, {})


def test_a_run_is_counted_without_its_weights_and_without_torch(runs, tmp_path):
    folders = []
    for name, run in runs.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_bytes((run / "config.json").read_bytes())
        folders.append(str(tmp_path / name))
    program = f"import sys, pellucid as pl; [pl.anatomy(f).parameters for f in {folders}]; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert not {"torch", "numpy", "safetensors"} & set(done.stdout.split())


def test_a_table_s_columns_are_told(runs):
    assert any("from rooms, place to price" in note for note in pl.anatomy(runs["table"]).notes)


def test_what_open_returns_is_counted(runs):
    assert pl.anatomy(pl.open(runs["text"])).parameters == pl.anatomy(runs["text"]).parameters
    assert pl.anatomy(pl.open(runs["table"])).parameters == pl.anatomy(runs["table"]).parameters


def test_a_run_that_was_not_measured_yet_is_read_from_its_checkpoint(runs, tmp_path):
    last = tmp_path / "run" / "checkpoints" / "last"
    last.mkdir(parents=True)
    (tmp_path / "run" / "plan.json").write_text("{}")
    (last / "config.json").write_bytes((runs["text"] / "config.json").read_bytes())
    assert pl.anatomy(tmp_path / "run").parameters == pl.anatomy(runs["text"]).parameters


def test_a_detector_is_counted_for_its_pictures(tmp_path):
    network = Detector(DetectorConfig(2, (4, 6, 8), grid=1, d_head=8))
    config = {"model_type": "pellucid-detector", **asdict(network.config)}
    save_plain(network, tmp_path, config, {"task": "boxes", "classes": ["a", "b"], "picture_size": 64})
    found = pl.anatomy(tmp_path)
    assert found.parameters.total == numbers(network)
    assert found.neurons.by_path["stages.0.halve.0"] == 4 * 32 * 32


def test_the_room_has_the_name_of_its_verb():
    from pellucid import anatomy

    assert pl.anatomy("lenet-5").name == anatomy("lenet-5").name == pl.anatomy.reading.read("lenet-5").name


# folders of transformers

FOLDERS = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**GROUPED)),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**GROUPED, tie_word_embeddings=True)),
    "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(**OPENAI)),
    "mixtral": lambda: hf.MixtralForCausalLM(hf.MixtralConfig(**GROUPED, num_local_experts=4)),
    "phi3": lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**GROUPED)),
    "bert": lambda: hf.BertForSequenceClassification(hf.BertConfig(**ROTARY, num_labels=3)),
    "t5": lambda: hf.T5ForConditionalGeneration(hf.T5Config(vocab_size=96, d_model=32, d_kv=8, d_ff=48, num_layers=2)),
    "vit": lambda: hf.ViTForImageClassification(
        hf.ViTConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=32)
    ),
    "resnet": lambda: hf.ResNetForImageClassification(
        hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[2, 1], layer_type="basic")
    ),
}


@pytest.mark.parametrize("family", FOLDERS)
def test_a_folder_of_transformers(family, tmp_path):
    model = FOLDERS[family]()
    model.save_pretrained(tmp_path)
    found = pl.anatomy(tmp_path)
    assert found.parameters.total == numbers(model) == pl.anatomy(tmp_path / "config.json").parameters.total
    assert not any("not in the file" in note for note in found.notes)
    file = pl.anatomy(tmp_path / "model.safetensors")
    assert (file.parameters, file.neurons) == (found.parameters, found.neurons)


def test_shards_are_read_as_one(tmp_path):
    model = FOLDERS["llama"]()
    model.bfloat16().save_pretrained(tmp_path, max_shard_size="20kB")
    found = pl.anatomy(tmp_path)
    assert len([*tmp_path.glob("*.safetensors")]) > 2
    assert found.file == {"BF16": (numbers(model), 2 * numbers(model))}
    assert found.stored == "bf16"
    assert pl.anatomy(tmp_path / "model.safetensors.index.json").parameters == found.parameters
    next(tmp_path.glob("*-00002-of-*")).unlink()
    with pytest.raises(pl.PellucidError, match="shard"):
        pl.anatomy(tmp_path)


def test_a_config_that_contradicts_the_weights_is_refused_and_each_is_counted_alone(tmp_path):
    FOLDERS["llama"]().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"intermediate_size": 64}))
    with pytest.raises(pl.PellucidError) as error:
        pl.anatomy(tmp_path)
    assert "mlp" in error.value.what
    assert "(48, 32)" in error.value.what or "(32, 48)" in error.value.what
    assert "feed_forward" in error.value.where
    assert pl.anatomy(tmp_path / "config.json").config["intermediate_size"] == 64
    weights = pl.anatomy(tmp_path / "model.safetensors")
    assert weights.parameters.total == numbers(FOLDERS["llama"]())
    assert any("left aside" in note for note in weights.notes)


def test_what_is_beside_the_network_in_its_file_is_told(tmp_path):
    FOLDERS["llama"]().save_pretrained(tmp_path)
    from safetensors.torch import load_file

    tensors = load_file(tmp_path / "model.safetensors")
    save_file(tensors | {"adapter.weight": torch.zeros(5, 7)}, tmp_path / "model.safetensors")
    assert any("adapter.weight" in note for note in pl.anatomy(tmp_path).notes)
    del tensors["model.norm.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    assert any("not in the file: norm" in note for note in pl.anatomy(tmp_path).notes)


# tensors alone


def test_dense_layers_are_read_from_their_tensors(tmp_path):
    network = Dense(DenseConfig(6, 3, (5, 5, 5), norm="layer"))
    save_file(network.state_dict(), tmp_path / "some.safetensors")
    found = pl.anatomy(tmp_path / "some.safetensors")
    assert found.parameters.total == numbers(network)
    assert found.neurons.total == 5 + 5 + 5 + 3
    assert found.explain("layers.3.linear").total == 3 * 6
    assert "layers[1:3].*.linear" in found.parameters.by_path
    for ask in (lambda: found.forward(), lambda: found.training_step(), lambda: found.dimensions):
        with pytest.raises(pl.PellucidError, match="how data flow"):
            ask()


def test_matrices_that_lie_the_other_way_round_are_known_by_their_bias(tmp_path):
    model = FOLDERS["gpt2"]()
    save_file({name: tensor.clone() for name, tensor in model.state_dict().items()}, tmp_path / "gpt2.safetensors")
    found = pl.anatomy(tmp_path / "gpt2.safetensors")
    assert found.neurons.by_path["transformer.h.*.mlp.c_fc"] == 3 * 4 * 32
    assert found.parameters.by_kind["embedding"] == 32 * (96 + 64)


def test_neurons_of_convolutions_need_the_picture(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 2))
    save_file(network.state_dict(), tmp_path / "net.safetensors")
    found = pl.anatomy(tmp_path)
    assert found.parameters.total == numbers(network)
    assert found.parameters.buffers == 2 * 8 + 1
    with pytest.raises(pl.PellucidError, match="8 × 3 × 3 × 3"):
        _ = found.neurons


def test_what_a_file_of_tensors_does_not_tell_is_said_and_the_rest_shown(tmp_path, capsys):
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 2))
    path = tmp_path / "net.safetensors"
    save_file(network.state_dict(), path)
    assert cli.run(["anatomy", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "258 parameters" in printed
    assert "not known" in printed
    assert cli.run(["anatomy", str(path), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["neurons"], answer["dimensions"], answer["parameters"]["total"]) == (None, None, 258)
    for question in (["--serve"], ["--train", "--tokens", "1B"], ["--explain", "neurons"]):
        assert cli.run(["anatomy", str(path), *question]) == 2
        assert 2 <= len(capsys.readouterr().err.splitlines()) <= 3


def test_packed_weights_are_no_parameters_and_said(tmp_path):
    tensors = {"up.qweight": torch.zeros(8, 4, dtype=torch.int32), "up.scales": torch.zeros(4)}
    save_file(tensors, tmp_path / "net.safetensors")
    found = pl.anatomy(tmp_path)
    assert (found.parameters.total, found.parameters.buffers) == (4, 32)
    assert any("up.qweight" in note for note in found.notes)


# GGUF

GGUFS = {  # the architecture there, the model, and what else its settings say
    "llama": (gguf.MODEL_ARCH.LLAMA, FOLDERS["llama"]),
    "qwen2": (gguf.MODEL_ARCH.QWEN2, FOLDERS["qwen2"]),
    "qwen3": (gguf.MODEL_ARCH.QWEN3, lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**GROUPED, head_dim=16))),
    "gemma2": (gguf.MODEL_ARCH.GEMMA2, lambda: hf.Gemma2ForCausalLM(hf.Gemma2Config(**GROUPED, head_dim=16))),
    "phi2": (gguf.MODEL_ARCH.PHI2, lambda: hf.PhiForCausalLM(hf.PhiConfig(**ROTARY))),
    "phi3": (gguf.MODEL_ARCH.PHI3, FOLDERS["phi3"]),
    "stablelm": (gguf.MODEL_ARCH.STABLELM, lambda: hf.StableLmForCausalLM(hf.StableLmConfig(**GROUPED))),
    "olmo2": (gguf.MODEL_ARCH.OLMO2, lambda: hf.Olmo2ForCausalLM(hf.Olmo2Config(**GROUPED))),
    "mixtral": (gguf.MODEL_ARCH.LLAMA, FOLDERS["mixtral"]),
    "qwen3moe": (
        gguf.MODEL_ARCH.QWEN3MOE,
        lambda: hf.Qwen3MoeForCausalLM(hf.Qwen3MoeConfig(**GROUPED | EXPERTS)),
    ),
    "gptneox": (gguf.MODEL_ARCH.GPTNEOX, lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**ROTARY))),
    "gpt2": (gguf.MODEL_ARCH.GPT2, FOLDERS["gpt2"]),
}


def write_gguf(path: Path, architecture: gguf.MODEL_ARCH, model: nn.Module, kind: str = "F32", parts: int = 1) -> Path:
    """As llama.cpp's converter writes it: its names, GPT-2's matrices turned, a tied head left out."""
    config, names = model.config, gguf.get_tensor_name_map(architecture, 3)
    size = -(-len(model.state_dict()) // parts) if parts > 1 else 0
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture], split_max_tensors=size)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    writer.add_feed_forward_length(getattr(config, "intermediate_size", 4 * config.hidden_size))
    writer.add_context_length(config.max_position_embeddings)
    if getattr(config, "head_dim", None):
        writer.add_key_length(config.head_dim)
    if experts := getattr(config, "num_local_experts", None):
        writer.add_expert_count(experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(getattr(config, "moe_intermediate_size", config.intermediate_size))
    for name, tensor in model.state_dict().items():
        if ".experts." in name:
            block = f"blk.{name.split('.')[2]}.ffn"
            halves = ("gate", "up") if "gate_up" in name else ("down",)
            for half, part in zip(tensor.chunk(len(halves), dim=1), halves, strict=True):
                writer.add_tensor(f"{block}_{part}_exps.weight", half.contiguous().numpy())
            continue
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        array = tensor.float().numpy()
        turned = ".c_" in name and array.ndim == 2
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        array = np.ascontiguousarray(array.T) if turned else array
        if array.ndim == 2 and kind != "F32":
            quantised = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(found, gguf.quantize(array, quantised), raw_dtype=quantised)
        else:
            writer.add_tensor(found, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("family", GGUFS)
def test_a_gguf_is_the_network_of_its_settings(family, tmp_path):
    architecture, make = GGUFS[family]
    model = make()
    found = pl.anatomy(write_gguf(tmp_path / "model.gguf", architecture, model))
    assert found.parameters.total == numbers(model)
    assert found.config["num_hidden_layers" if family != "gpt2" else "n_layer"] == 3
    assert found.context == 64
    assert found.neurons.total > 0
    assert found.forward(token=8).total > 0


def test_a_gguf_s_bytes_are_told_by_number_format(tmp_path):
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**GROUPED | {"intermediate_size": 64}))  # rows of whole blocks
    path = write_gguf(tmp_path / "model.gguf", gguf.MODEL_ARCH.LLAMA, model, "Q8_0")
    found, vectors = pl.anatomy(path), 32 * (2 * 3 + 1)
    matrices = numbers(model) - vectors
    assert found.file == {"Q8_0": (matrices, matrices // 32 * 34), "F32": (vectors, 4 * vectors)}
    assert found.stored == "Q8_0"


def test_a_gguf_whose_settings_are_of_another_network_is_counted_by_its_tensors(tmp_path):
    model = FOLDERS["qwen2"]()  # whose biases Llama's settings cannot name
    found = pl.anatomy(write_gguf(tmp_path / "model.gguf", gguf.MODEL_ARCH.LLAMA, model))
    assert found.parameters.total == numbers(model)
    assert found.config == {}
    assert any("do not fit its tensors" in note for note in found.notes)


def test_a_gguf_in_several_files_is_one(tmp_path):
    model = FOLDERS["llama"]()
    whole = write_gguf(tmp_path / "whole.gguf", gguf.MODEL_ARCH.LLAMA, model)
    write_gguf(tmp_path / "net.gguf", gguf.MODEL_ARCH.LLAMA, model, parts=2)
    whole.unlink()
    found = pl.anatomy(tmp_path)
    assert found.parameters.total == numbers(model)
    assert found.config == pl.anatomy(tmp_path / "net-00002-of-00002.gguf").config != {}
    (tmp_path / "net-00001-of-00002.gguf").unlink()
    with pytest.raises(pl.PellucidError, match="shard net-00001-of-00002"):
        pl.anatomy(tmp_path)


@pytest.mark.slow
def test_smollm2_is_counted_by_its_header():
    path = CACHE / "smollm2-135m.gguf"
    if not path.exists():
        pytest.skip("run `python tests/fetch.py` first, as `make test-all` does")
    found = pl.anatomy(path)
    assert found.parameters.total == 134_515_008 == pl.anatomy("smollm2-135m").parameters.total
    assert sum(held.bytes for held in found.file.values()) < path.stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize(("name", "total"), [("minilm", 22_713_216), ("efficientnet-lite0", 4_652_008)])
def test_fetched_folders_are_counted(name, total):
    if not (CACHE / name).exists():
        pytest.skip("run `python tests/fetch.py` first, as `make test-all` does")
    found = pl.anatomy(CACHE / name)
    assert found.parameters.total == total == pl.anatomy(CACHE / name / "model.safetensors").parameters.total


# only headers are read


def sparse(path: Path, header: bytes, size: int) -> Path:
    path.write_bytes(header)
    os.truncate(path, size)
    return path


def test_a_file_of_100_gb_answers_by_its_header(tmp_path):
    rows, width = 250_000, 100_000
    entry = {"dtype": "F32", "shape": [rows, width], "data_offsets": [0, 4 * rows * width]}
    header = json.dumps({"up.weight": entry}).encode()
    path = tmp_path / "huge.safetensors"
    sparse(path, len(header).to_bytes(8, "little") + header, 8 + len(header) + 4 * rows * width)
    assert path.stat().st_size > 1e11
    assert pl.anatomy(path).parameters.total == rows * width


# names, shapes, objects


def test_a_published_model_by_its_name_alias_and_place_on_the_hub():
    found = [pl.anatomy(name) for name in ("llama-2-70b", "Llama-2-70B", "meta-llama/Llama-2-70b-hf")]
    assert {network.parameters.total for network in found} == {68_976_648_192}
    assert found[0].entry is not None
    assert found[0].context == 4096


def test_a_folder_is_preferred_to_the_published_model_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    FOLDERS["gpt2"]().save_pretrained("gpt2")
    assert pl.anatomy("gpt2").parameters.total == numbers(FOLDERS["gpt2"]())


def test_a_shape_typed_by_hand():
    assert pl.anatomy("784-128-10").parameters.total == 784 * 128 + 128 + 128 * 10 + 10
    assert pl.anatomy("7841-2810").neurons.total == 2810


@pytest.mark.parametrize(
    ("family", "sizes", "model"),
    [
        ("llama", {"heads": 8, "kv_heads": 2, "d_ff": 96}, lambda: hf.LlamaForCausalLM(
            hf.LlamaConfig(**BIG, num_attention_heads=8, num_key_value_heads=2))),
        ("qwen3", {"head_dim": 16, "d_ff": 96}, lambda: hf.Qwen3ForCausalLM(
            hf.Qwen3Config(**BIG, num_attention_heads=8, num_key_value_heads=8, head_dim=16))),
        ("gpt2", {"heads": 2}, lambda: hf.GPT2LMHeadModel(hf.GPT2Config(
            vocab_size=64, n_positions=32, n_embd=128, n_layer=4, n_head=2))),
        ("gpt1", {}, lambda: hf.OpenAIGPTLMHeadModel(hf.OpenAIGPTConfig(
            vocab_size=64, n_positions=32, n_embd=128, n_layer=4, n_head=2))),
    ],
)  # fmt: skip
def test_a_family_by_its_sizes(family, sizes, model):
    found = read_family(family, layers=4, d_model=128, vocab=64, context=32, **sizes)
    assert found.parameters.total == numbers(model())


def test_a_family_s_sizes_are_derived_as_for_our_own():
    found = read_family("llama", layers=2, d_model=256, vocab=100)
    ours = decoder_config("llama", vocab_size=100, d_model=256, n_layers=2, n_heads=4, context=1, tied=False)
    assert found.parameters.total == numbers(Decoder(ours, seed=None))
    assert "d_ff = 704" in found.notes[-1]
    assert "n_heads = 4" in found.notes[-1]
    assert "n_layers" not in found.notes[-1]


def test_objects_are_counted():
    assert pl.anatomy(nn.Linear(3, 4), torch.zeros(1, 3)).parameters.total == 16
    decoder = Decoder(decoder_config("gpt2", vocab_size=9, d_model=8, n_layers=1, n_heads=2, context=5), seed=None)
    assert pl.anatomy(decoder).parameters.total == numbers(decoder)
    config = {"model_type": "gpt2", "n_layer": 1, "n_embd": 48}
    assert pl.anatomy(config).parameters.by_kind["embedding"] == 48 * (50257 + 1024)


@pytest.mark.parametrize("what", ["nets.py:small", "nets:small", "nets:MADE", "nets:Small.make"])
def test_what_the_user_s_own_code_makes(what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "nets", raising=False)
    Path("nets.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def small(): return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.zeros(1, 3)\n"
        "MADE = small()[0]\n"
        "class Small:\n    make = staticmethod(small)\n"
    )
    found = pl.anatomy(what)
    assert found.parameters.total == 16 + 10
    assert any("nets" in note for note in found.notes)


# what cannot be read

HEADER = json.dumps({"a.weight": {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]}}).encode()


def file_of(header: bytes, length: int | None = None, data: int = 64) -> bytes:
    return (len(header) if length is None else length).to_bytes(8, "little") + header + bytes(data)


LLAMA = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
DAMAGED = {
    "empty.safetensors": b"",
    "five.safetensors": b"12345",
    "beyond.safetensors": file_of(HEADER, length=10**6),
    "endless.safetensors": file_of(HEADER, length=2**63),
    "cut.safetensors": file_of(HEADER[:40]),
    "short.safetensors": file_of(HEADER, data=60),
    "list.safetensors": file_of(b"[1, 2]"),
    "kind.safetensors": file_of(HEADER.replace(b"F32", b"F31")),
    "shape.safetensors": file_of(HEADER.replace(b"[4, 4]", b"[4, 5]")),
    "negative.safetensors": file_of(HEADER.replace(b"[4, 4]", b"[-4, -4]")),
    "bare.safetensors": file_of(b"{}"),
    "deep.safetensors": file_of(b"[" * 100_000),
    "junk.safetensors": bytes(range(256)) * 4,
    "empty.gguf": b"",
    "word.gguf": b"GGUF",
    "cut.gguf": b"GGUF\x03\0\0\0" + b"\xff" * 16,
    "junk.gguf": b"GGUF" + bytes(range(256)),
    "empty.json": b"",
    "junk.json": bytes(range(256)),
    "utf16.json": json.dumps(LLAMA).encode("utf-16"),
    "list.json": b"[]",
    "deep.json": b"[" * 100_000,
    "nothing.json": b"{}",
    "type.json": json.dumps(LLAMA | {"model_type": "lama"}).encode(),
    "word.json": json.dumps(LLAMA | {"hidden_size": "wide"}).encode(),
    "half.json": json.dumps(LLAMA | {"num_hidden_layers": 2.5}).encode(),
    "heads.json": json.dumps(LLAMA | {"num_attention_heads": 5}).encode(),
    "groups.json": json.dumps(LLAMA | {"num_key_value_heads": 3}).encode(),
    "negative.json": json.dumps(LLAMA | {"vocab_size": -1}).encode(),
    "ours.json": json.dumps({"model_type": "pellucid-dense", "inputs": 3, "pellucid": {}}).encode(),
    "width.json": json.dumps({"model_type": "pellucid-dense", "inputs": 3, "outputs": "x", "pellucid": {}}).encode(),
    "map.safetensors.index.json": json.dumps({"weight_map": {"a": 3}}).encode(),
    "notes.txt": b"a text",
    "weights.bin": b"PK\x03\x04",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_damaged_is_said(name, tmp_path):
    (tmp_path / name).write_bytes(DAMAGED[name])
    with pytest.raises(pl.PellucidError) as error:
        pl.anatomy(tmp_path / name)
    assert str(tmp_path) in error.value.where
    assert error.value.what
    assert error.value.fix
    assert error.value.exit_code == 2


def test_what_is_no_network_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nothing").mkdir()
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "nets.py").write_text(
        "def broken(): raise KeyError('no')\nnumber = lambda: 3\nempty = tuple\nplace = '.'\n"
    )
    asked = {
        "nothing": "neither config.json nor",
        "pipe.json": "neither a file nor a folder",
        "away.gguf": "no such file",
        "./away": "no such file",
        "gtp2": "no published model",
        "a" * 5000: "no published model",
        "zero\0byte": "no published model",
        "": "No network is named",
        "gpt-4": "No configuration of GPT-4",
        "nets.py:broken": "KeyError: 'no'",
        "nets.py:missing": "has no missing",
        "nets.py:number": "int is no network",
        "nets.py:empty": "tuple is no network",
        "nets.py:place": "str is no network",
        "no_such_module:made": "ModuleNotFoundError",
        "away.py:made": "There is no away.py",
    }
    for what, words in asked.items():
        with pytest.raises(pl.PellucidError, match=words) as error:
            pl.anatomy(what)
        assert error.value.fix or error.value.where, what
    with pytest.raises(pl.PellucidError, match="gpt2"):
        pl.anatomy("gtp2")
    with pytest.raises(pl.PellucidError, match="int is no network"):
        pl.anatomy(3)


def test_a_file_that_may_not_be_read_is_said(tmp_path, monkeypatch):
    (tmp_path / "net.safetensors").write_bytes(file_of(HEADER))

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(pl.PellucidError, match="Permission denied"):
        pl.anatomy(tmp_path / "net.safetensors")


@pytest.mark.parametrize(
    ("family", "sizes", "words"),
    [
        ("lama", {"layers": 2, "d_model": 64}, "no family 'lama'"),
        ("llama", {"layers": 2}, "at least its layers and its width"),
        ("llama", {"layers": 0, "d_model": 64}, "0 is not possible"),
        ("llama", {"layers": 2, "d_model": 64, "heads": 0}, "0 is not possible"),
        ("llama", {"layers": 2, "d_model": 64, "heads": 5}, "5 heads cannot share"),
        ("gpt2", {"layers": 2, "d_model": 64, "kv_heads": 1}, "no n_kv_heads"),
    ],
)
def test_sizes_that_make_no_network_are_refused(family, sizes, words):
    with pytest.raises(pl.PellucidError, match=words):
        read_family(family, **sizes)


def test_a_module_that_needs_other_inputs_is_said():
    with pytest.raises(pl.PellucidError):
        pl.anatomy(nn.Linear(3, 4), torch.zeros(1, 5))


@pytest.mark.parametrize("d_ff", [96, 192, 384])
def test_a_gate_that_is_shaped_as_queries_keys_and_values_together(tmp_path, d_ff):
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 64}
    config = hf.Qwen3Config(vocab_size=100, hidden_size=64, intermediate_size=d_ff, **sizes)
    model = hf.Qwen3ForCausalLM(config)
    model.save_pretrained(tmp_path)
    found = pl.anatomy(tmp_path)
    assert found.parameters.total == numbers(model)
    assert not any("not in the file" in note for note in found.notes)


def test_a_mark_of_byte_order_is_no_damage(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "llama"} | ROTARY), encoding="utf-8-sig")
    assert pl.anatomy(path).parameters == pl.anatomy({"model_type": "llama"} | ROTARY).parameters


@pytest.mark.parametrize(("shape", "which"), [("784-0-10", 2), ("0-10", 1), ("784-128-0", 3)])
def test_a_width_of_0_is_pointed_out(shape, which):
    with pytest.raises(pl.PellucidError, match=f"Width {which} of {shape} is 0") as error:
        pl.anatomy(shape)
    assert "1 or more" in error.value.fix


def test_sizes_that_a_configuration_leaves_out_are_said(tmp_path):
    said = "as in the class of llama: vocab_size = 32000, hidden_size = 4096, intermediate_size = 11008, "
    config = {"model_type": "llama"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for what in (config, tmp_path, tmp_path / "config.json"):
        (note,) = [note for note in pl.anatomy(what).notes if "not in the configuration" in note]
        assert said in note
        assert note.endswith(" …")
        assert "=" not in note.partition(" …")[2]
    own = {"model_type": "gemma3", "text_config": {"hidden_size": 64}, "vision_config": {"vision_use_head": False}}
    (note,) = [note for note in pl.anatomy(own).notes if "not in the configuration" in note]
    assert "class of gemma3_text: vocab_size = " in note
    assert "hidden_size" not in note


def test_what_a_class_wrote_itself_leaves_nothing_out(tmp_path):
    hf.LlamaConfig(**GROUPED).save_pretrained(tmp_path)
    for what in (tmp_path, "llama-2-7b", "784-128-10"):
        assert not any("not in the configuration" in note for note in pl.anatomy(what).notes)
