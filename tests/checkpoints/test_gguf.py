"""GGUF files, written here as llama.cpp's converter writes them, against transformers and tokenizers."""

import json
import re
from itertools import pairwise
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence, Split
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from pellucid.checkpoints.gguf import open_gguf
from pellucid.cli import app as cli
from pellucid.data.tokenizer import Tokenizer
from pellucid.errors import PellucidError
from pellucid.generation.sampling import Sampling
from pellucid.language_model import LanguageModel

CACHE = Path(__file__).parents[2] / "cache"
SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
SHAPE |= {"num_key_value_heads": 2, "max_position_embeddings": 64, "vocab_size": 300, "rms_norm_eps": 1e-5}
FAMILIES = {
    "llama": (LlamaForCausalLM, LlamaConfig),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config),
    "gpt2": (GPT2LMHeadModel, GPT2Config),
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 8192, "rope_theta": 500_000.0}
TEXT = "The cat sat on the mat. I'd 12345 dogs sat on THE log!\r\n\n  春眠不覺曉，處處聞啼鳥。🦙 naïve x=1\n" * 5
VOCABULARY = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefghijklmnop"]


def model_of(family: str, seed: int = 0, **config):
    """A small random model of transformers', with weights wide enough to have opinions."""
    kind, configuration = FAMILIES[family]
    shape = (
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 300} if family == "gpt2" else SHAPE
    )
    torch.manual_seed(seed)
    model = kind(configuration(**shape | config)).eval()
    for name, parameter in model.named_parameters():
        parameter.data = torch.randn_like(parameter) * (0.3 if parameter.dim() == 2 else 0.1)
        if "norm" in name or "ln_" in name:
            parameter.data += 1
    return model


def settings_of(family: str, model) -> dict:
    """What the converter writes down of the model's configuration."""
    config = model.config
    if family == "gpt2":
        return {
            "gpt2.context_length": config.n_positions,
            "gpt2.embedding_length": config.n_embd,
            "gpt2.block_count": config.n_layer,
            "gpt2.feed_forward_length": 4 * config.n_embd,
            "gpt2.attention.head_count": config.n_head,
            "gpt2.attention.layer_norm_epsilon": config.layer_norm_epsilon,
        }
    rope = config.rope_parameters
    found = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": rope["rope_theta"],
        "vocab_size": config.vocab_size,
    }
    if family == "qwen3":
        found |= {"attention.key_length": config.head_dim, "attention.value_length": config.head_dim}
    if rope["rope_type"] in ("linear", "yarn"):
        found |= {"rope.scaling.type": rope["rope_type"], "rope.scaling.factor": rope["factor"]}
    if rope["rope_type"] == "yarn":
        found["rope.scaling.original_context_length"] = rope["original_max_position_embeddings"]
    return {f"{family}.{name}": value for name, value in found.items()}


def tensors_of(family: str, model) -> dict[str, np.ndarray]:
    """The tensors under llama.cpp's names and in its order of rows."""
    config = model.config
    layers = config.n_layer if family == "gpt2" else config.num_hidden_layers
    architecture = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}[family]
    names = gguf.get_tensor_name_map(architecture, layers)
    found = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        array = tensor.numpy()
        if family == "gpt2" and re.search(r"(c_attn|c_proj|c_fc)\.weight", name):
            array = array.T
        if family == "llama" and (turned := re.search(r"\.([qk])_proj\.", name)):
            heads = config.num_attention_heads if turned[1] == "q" else config.num_key_value_heads
            array = array.reshape(heads, 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
        found[names.get_name(name, try_suffixes=(".weight", ".bias"))] = np.ascontiguousarray(array)
    if family == "llama" and config.rope_parameters["rope_type"] == "llama3":
        base = config.rope_parameters["rope_theta"] ** -(np.arange(0, config.head_dim, 2) / config.head_dim)
        found["rope_freqs.weight"] = (base / model.model.rotary_emb.inv_freq.numpy()).astype(np.float32)
    return found


def spm_settings(tokens=VOCABULARY, scores=None) -> dict:
    byte = re.compile("<0x..>")
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores or [0.0] * len(tokens),
        "tokenizer.ggml.token_type": [2, 3, 3, *(6 if byte.fullmatch(token) else 1 for token in tokens[3:])],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


def write(path: Path, family: str, settings: dict, tensors: dict, kind: str = "F32") -> Path:
    writer = gguf.GGUFWriter(path, settings.get("general.architecture", family))
    for name, value in settings.items():
        if name == "general.architecture":
            continue
        match value:
            case None:
                continue
            case bool():
                writer.add_bool(name, value)
            case int():
                writer.add_uint32(name, value)
            case float():
                writer.add_float32(name, value)
            case str():
                writer.add_string(name, value)
            case _:
                writer.add_array(name, value)
    quantised = gguf.GGMLQuantizationType[kind]
    for name, array in tensors.items():
        if array.dtype == np.uint8:  # blocks of the kind already
            writer.add_tensor(name, array, raw_dtype=quantised)
        elif array.ndim == 2 and kind != "F32":
            writer.add_tensor(name, gguf.quantize(array, quantised), raw_dtype=quantised)
        else:
            writer.add_tensor(name, array.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_model(path: Path, family: str, model, extra: dict | None = None, kind: str = "F32") -> Path:
    content = settings_of(family, model) | spm_settings() | (extra or {})
    return write(path, family, content, tensors_of(family, model), kind)


@torch.no_grad()
def assert_same_logits(path: Path, theirs, atol: float = 1e-4) -> None:
    network, _tokenizer, _begin = open_gguf(path)
    ids_BT = torch.randint(0, 300, (2, 40), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(network(ids_BT), theirs(ids_BT).logits, atol=atol, rtol=1e-4)


# networks


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True}),
        ("llama", {"rope_parameters": LLAMA3, "max_position_embeddings": 32768}),
        ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0}}),
        ("qwen2", {"tie_word_embeddings": True}),
        ("qwen2", {"tie_word_embeddings": False, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
        ("qwen3", {"head_dim": 16, "tie_word_embeddings": False}),
        (
            "qwen3",
            {
                "head_dim": 16,
                "max_position_embeddings": 128,
                "rope_parameters": {
                    "rope_type": "yarn",
                    "factor": 4.0,
                    "rope_theta": 10_000.0,
                    "original_max_position_embeddings": 32,
                },
            },
        ),
        ("gpt2", {}),
    ],
)
def test_logits_are_those_of_transformers(family, config, tmp_path):
    theirs = model_of(family, **config)
    assert_same_logits(write_model(tmp_path / "m.gguf", family, theirs), theirs)


@settings(max_examples=12)
@given(
    family=st.sampled_from(["llama", "qwen2", "qwen3"]),
    kv_heads=st.sampled_from([1, 2, 3]),
    groups=st.integers(1, 3),
    half=st.integers(1, 4),
    layers=st.integers(1, 3),
    tied=st.booleans(),
    seed=st.integers(0, 9),
)
def test_any_shape_opens(tmp_path_factory, family, kv_heads, groups, half, layers, tied, seed):
    heads, head_dim = kv_heads * groups, 2 * half
    shape = {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "hidden_size": heads * head_dim}
    shape |= {"num_hidden_layers": layers, "tie_word_embeddings": tied}
    if family == "qwen3":
        shape |= {"head_dim": head_dim + 2}
    theirs = model_of(family, seed, **shape)
    assert_same_logits(write_model(tmp_path_factory.mktemp("any") / "m.gguf", family, theirs), theirs)


@pytest.mark.parametrize(
    "kind", ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q4_K", "Q6_K", "IQ4_XS"]
)
def test_quantised_numbers_are_what_they_stand_for(kind, tmp_path):
    """A quantised file opens to the same parameters as the file of what its blocks stand for, in fp32."""
    theirs = model_of("llama", hidden_size=256, intermediate_size=256, num_hidden_layers=1)
    content, tensors = settings_of("llama", theirs) | spm_settings(), tensors_of("llama", theirs)
    quantised = gguf.GGMLQuantizationType[kind]
    if "K" in kind or "X" in kind:  # the package cannot make these: any bytes are blocks, small ones are small numbers
        size, generator = gguf.GGML_QUANT_SIZES[quantised][1], np.random.default_rng(0)
        tensors = {
            name: generator.integers(0, 40, (len(array), array.shape[1] // 256 * size), np.uint8)
            if array.ndim == 2
            else array
            for name, array in tensors.items()
        }
    path = write(tmp_path / "quantised.gguf", "llama", content, tensors, kind)
    meant = {tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type) for tensor in gguf.GGUFReader(path).tensors}
    expected = open_gguf(write(tmp_path / "plain.gguf", "llama", content, meant))[0].state_dict()
    found = open_gguf(path)[0].state_dict()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
        assert tensor.isfinite().all()
        assert tensor.std() > 0


def test_a_model_in_bfloat16(tmp_path):
    path = write_model(tmp_path / "m.gguf", "llama", model_of("llama"))
    assert LanguageModel.open(path, precision="bf16").network.head.weight.dtype == torch.bfloat16


# refusals


@pytest.mark.parametrize(
    ("family", "extra"),
    [
        ("llama", {"general.architecture": "falcon"}),
        ("llama", {"general.type": "adapter"}),
        ("llama", {"split.count": 2}),
        ("llama", {"llama.expert_count": 8}),
        ("llama", {"llama.rope.scaling.type": "longrope"}),
        ("llama", {"llama.rope.dimension_count": 4}),
        ("llama", {"llama.attention.sliding_window": 16}),
        ("llama", {"llama.attention.value_length": 4}),
        ("llama", {"llama.logit_scale": 0.5}),
        ("llama", {"llama.something_new": 1}),
        ("llama", {"llama.attention.head_count": [4, 2]}),
        ("llama", {"llama.block_count": 3}),
        ("llama", {"llama.block_count": 1}),
        ("llama", {"llama.feed_forward_length": 32}),
        ("llama", {"llama.context_length": None}),
        ("llama", {"llama.attention.layer_norm_rms_epsilon": None}),
        ("qwen3", {"qwen3.attention.key_length": 1 << 31}),
        ("qwen2", {"qwen2.attention.causal": False}),
        ("gpt2", {"gpt2.rope.freq_base": 1e4}),
        ("llama", {"tokenizer.ggml.model": "bert"}),
        ("llama", {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "deepseek-llm"}),
        ("llama", {"tokenizer.ggml.remove_extra_whitespaces": True}),
        ("llama", {"tokenizer.ggml.something_new": True}),
        ("llama", {"tokenizer.ggml.bos_token_id": 99_999}),
        ("llama", {"tokenizer.ggml.tokens": None}),
        ("llama", {"tokenizer.ggml.tokens": ["a"] * len(VOCABULARY)}),
        ("llama", {"tokenizer.ggml.scores": [0.0]}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value,
)
def test_what_is_not_supported_is_refused_by_name(family, extra, tmp_path, capfd):
    path = write_model(tmp_path / "m.gguf", family, model_of(family), extra)
    before = path.read_bytes()
    assert cli.run(["generate", str(path), "abc"]) == 2
    said = capfd.readouterr().err
    name = next(reversed(extra))
    assert name in said or "damaged" in said or "blk." in said
    assert len(said.splitlines()) <= 3
    assert [file.name for file in tmp_path.iterdir()] == ["m.gguf"]
    assert path.read_bytes() == before


def test_positions_that_are_not_llama_3s_are_refused(tmp_path):
    theirs = model_of("llama", rope_parameters=LLAMA3, max_position_embeddings=32768)
    tensors = tensors_of("llama", theirs)
    tensors["rope_freqs.weight"][1] *= 1.5
    path = write(tmp_path / "m.gguf", "llama", settings_of("llama", theirs) | spm_settings(), tensors)
    with pytest.raises(PellucidError, match="rope_freqs"):
        open_gguf(path)


@pytest.mark.parametrize("change", ["missing", "left over", "wrong shape"])
def test_tensors_must_be_those_of_the_model(change, tmp_path):
    theirs = model_of("qwen2")
    tensors = tensors_of("qwen2", theirs)
    if change == "missing":
        del tensors["blk.1.ffn_up.weight"]
    elif change == "left over":
        tensors["blk.1.attn_sinks.weight"] = np.ones(4, np.float32)
    else:
        tensors["blk.1.ffn_up.weight"] = np.ones((47, 32), np.float32)
    path = write(tmp_path / "m.gguf", "qwen2", settings_of("qwen2", theirs) | spm_settings(), tensors)
    with pytest.raises(PellucidError, match=r"blk\.1\.(ffn_up|attn_sinks)\.weight"):
        open_gguf(path)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF" + bytes(40), b"GGUF\0\0\0\3" + bytes(40), b"{}", b"\0" * 99])
def test_what_is_no_gguf_is_said(content, tmp_path, capfd):
    (tmp_path / "m.gguf").write_bytes(content)
    assert cli.run(["generate", str(tmp_path / "m.gguf"), "abc"]) == 2
    assert "m.gguf" in capfd.readouterr().err
    assert cli.run(["generate", str(tmp_path / "none.gguf"), "abc"]) == 2


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    theirs = model_of("llama", num_hidden_layers=1)
    return write_model(tmp_path_factory.mktemp("whole") / "m.gguf", "llama", theirs).read_bytes()


@settings(max_examples=60)
@given(share=st.floats(0, 0.9999))
def test_a_file_cut_short_is_damaged(whole, tmp_path_factory, share):
    path = tmp_path_factory.mktemp("cut") / "m.gguf"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(PellucidError):
        open_gguf(path)


@settings(max_examples=200)
@given(data=st.data())
def test_no_changed_byte_leads_to_anything_but_a_message(whole, tmp_path_factory, data):
    settings_end = whole.index(b"output_norm.weight")
    places = data.draw(st.lists(st.integers(4, settings_end + 600), min_size=1, max_size=3))
    changed = bytearray(whole)
    for place in places:
        changed[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("changed") / "m.gguf"
    path.write_bytes(changed)
    try:
        network, tokenizer, _begin = open_gguf(path)
    except PellucidError:
        return
    assert network.config.vocab_size == 300
    tokenizer.decode(tokenizer.encode("abc def"))


# tokenizers


def published(pre: str) -> Backend:
    """A tokenizer as the family publishes it in tokenizer.json, trained on a few lines."""
    contractions = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    words = contractions + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    backend = Backend(models.BPE(ignore_merges=pre == "llama-bpe"))
    spell = ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = {
        "gpt-2": ByteLevel(add_prefix_space=False),
        "smollm": Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]),
        "llama-bpe": Sequence([Split(Regex(words % "{1,3}"), "isolated"), spell]),
        "qwen2": Sequence([Split(Regex(words % ""), "isolated"), spell]),
    }[pre]
    if pre == "qwen2":
        backend.normalizer = normalizers.NFC()
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=292, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([TEXT], trainer)
    backend.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    backend.add_tokens(["<think>"])
    return backend


CHATML = """{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + eos_token + '\n' }}
{%- endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""


def bpe_settings(pre: str, backend: Backend) -> dict:
    content = json.loads(backend.to_str())
    vocabulary = backend.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    types = {"<|im_start|>": 3, "<|im_end|>": 3, "<think>": 4}
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [types.get(token, 1) for token in tokens],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in content["model"]["merges"]],
        "tokenizer.ggml.scores": None,
        "tokenizer.ggml.bos_token_id": vocabulary["<|im_start|>"],
        "tokenizer.ggml.eos_token_id": vocabulary["<|im_end|>"],
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHATML,
    }


@pytest.fixture(scope="module", params=["gpt-2", "smollm", "llama-bpe", "qwen2"])
def pair(request, tmp_path_factory) -> tuple[Backend, LanguageModel]:
    """A published tokenizer, and a model opened from a .gguf that holds it."""
    backend = published(request.param)
    theirs = model_of("llama", vocab_size=backend.get_vocab_size())
    path = tmp_path_factory.mktemp("bpe") / "m.gguf"
    return backend, LanguageModel.open(write_model(path, "llama", theirs, bpe_settings(request.param, backend)))


@settings(max_examples=150)
@given(text=st.text() | st.text("The catsI'VE 12345\r\n春眠é<think>!?=", max_size=60))
def test_byte_level_ids_are_those_of_the_published_tokenizer(pair, text):
    backend, model = pair
    assert model.tokenizer.encode(text) == backend.encode(text).ids
    if model.tokenizer.lossless:
        assert model.tokenizer.decode(model.tokenizer.encode(text)) == text


def test_a_whole_text_has_the_published_ids(pair):
    backend, model = pair
    ids = backend.encode(TEXT).ids
    assert len(ids) < len(TEXT.encode())
    assert model.tokenizer.encode("I <think> so") == backend.encode("I <think> so").ids
    assert model.tokenizer.encode(TEXT) == ids
    assert model.tokenizer.encode_documents([TEXT]).tolist() == [*ids, model.tokenizer.end_id]
    assert b"".join(map(model.tokenizer.token_bytes, ids)).decode() == TEXT
    assert model.tokenizer.show(ids[0])


def test_special_tokens_and_the_chat_template_come_along(pair):
    backend, model = pair
    start, end = (backend.token_to_id(token) for token in ("<|im_start|>", "<|im_end|>"))
    assert model.tokenizer.end_id == end
    assert model.start_id == start
    assert model.tokenizer.prefix == []
    assert start not in model.tokenizer.encode("<|im_start|>")
    assert model.tokenizer.encode("<|im_start|>", allow_special=True) == [start]
    assert model.chats
    written = list(model.chat([{"role": "user", "content": "The cat"}], max_tokens=4, seed=1))
    assert written
    written = list(model.generate("The c", max_tokens=4, seed=1))
    assert "".join(token.text for token in written).strip()


def test_a_saved_tokenizer_is_the_same(pair, tmp_path):
    _backend, model = pair
    model.tokenizer.save(tmp_path, "llama")
    again = Tokenizer.open(tmp_path)
    assert again.encode(TEXT) == model.tokenizer.encode(TEXT)
    assert again.end_id == model.tokenizer.end_id
    assert again.chat_template == CHATML


def best_joins(text: str, tokens: list[str], scores: list[float]) -> list[int]:
    """SentencePiece's BPE as its paper has it: join the best-scoring neighbours, the leftmost first."""
    ids, parts = {token: id for id, token in enumerate(tokens)}, list("▁" + text.replace(" ", "▁") if text else "")
    while True:
        joins = [(-scores[ids[a + b]], n) for n, (a, b) in enumerate(pairwise(parts)) if a + b in ids]
        if not joins:
            break
        n = min(joins)[1]
        parts[n : n + 2] = [parts[n] + parts[n + 1]]
    spelled = ([ids[part]] if part in ids else [ids[f"<0x{byte:02X}>"] for byte in part.encode()] for part in parts)
    return [id for part in spelled for id in part]


PIECES = [
    "▁a",
    "ab",
    "▁ab",
    "abc",
    "bc",
    "▁abc",
    "de",
    "def",
    "▁de",
    "ef",
    "▁▁",
    "▁▁▁▁",
    "ph",
    "▁i",
    "in",
    "▁in",
    "ing",
]
SPM_TOKENS = [*VOCABULARY[: 3 + 256], *PIECES, "▁", *"abcdefghijklmnop春"]
SPM_SCORES = [0.0] * 259 + [-float(n) for n in range(len(SPM_TOKENS) - 259)]


@pytest.fixture(scope="module")
def spm(tmp_path_factory) -> LanguageModel:
    path = tmp_path_factory.mktemp("spm") / "m.gguf"
    return LanguageModel.open(write_model(path, "llama", model_of("llama"), spm_settings(SPM_TOKENS, SPM_SCORES)))


@settings(max_examples=200)
@given(text=st.text("abcdefgin  ph", max_size=40) | st.text(max_size=20).filter(lambda text: "▁" not in text))
def test_sentencepiece_ids_join_the_best_scores_first(spm, text):
    assert spm.tokenizer.encode(text) == best_joins(text, SPM_TOKENS, SPM_SCORES)
    assert spm.tokenizer.decode(spm.tokenizer.encode(text)) == text


def test_sentencepiece_begins_with_its_token(spm):
    assert spm.tokenizer.prefix == [1]
    assert spm.tokenizer.end_id == 2
    assert spm.start_id == 1
    assert spm.tokenizer.token_bytes(SPM_TOKENS.index("<0xE6>")) == b"\xe6"
    assert spm.tokenizer.token_bytes(1) == b""
    assert spm.tokenizer.show(SPM_TOKENS.index("▁ab")) == "␣ab"
    assert not spm.chats
    assert list(spm.generate("abc de", max_tokens=4, seed=1))


# real files


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt-2", "llama-bpe", "llama-spm", "qwen2"])
def test_llama_cpp_s_own_test_vectors(name, tmp_path):
    """47 difficult texts and their ids, as published with llama.cpp, for vocabularies of real models."""
    from pellucid.checkpoints.gguf_file import GGUFFile
    from pellucid.checkpoints.gguf_tokenizer import tokenizer_from

    stem = CACHE / "vocabularies" / f"ggml-vocab-{name}.gguf"
    if not stem.exists():
        pytest.skip("run `python tests/fetch.py` first, as `make test-all` does")
    tokenizer, _begin = tokenizer_from(GGUFFile(stem).settings)
    texts = Path(f"{stem}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    expected = [[int(id) for id in line.split()] for line in Path(f"{stem}.out").read_text().split("\n")]
    assert len(texts) > 40
    for text, ids in zip(texts, expected, strict=True):
        assert tokenizer.encode(text) == ids, text


@pytest.fixture(scope="module")
def smollm() -> Path:
    path = CACHE / "smollm2-135m.gguf"
    if not path.exists():
        pytest.skip("run `python tests/fetch.py` first, as `make test-all` does")
    return path


@pytest.mark.slow
def test_smollm2_knows_the_capital_of_france(smollm):
    model = LanguageModel.open(smollm)
    written = list(model.generate("The capital of France is", sampling=Sampling(greedy=True), max_tokens=1))
    assert "".join(token.text for token in written) == " Paris"
    assert model.probability("The capital of France is", " Paris") > 0.5
    answer = "".join(
        token.text
        for token in model.chat(
            [{"role": "user", "content": "What is the capital of France?"}],
            sampling=Sampling(greedy=True),
            max_tokens=12,
        )
    )
    assert "Paris" in answer


@pytest.mark.slow
@torch.no_grad()
def test_smollm2_s_logits_are_those_of_transformers(smollm):
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
        tie_word_embeddings=True,
    )
    theirs = LlamaForCausalLM(config).eval()
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 30)
    stored = {t.name: gguf.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(smollm).tensors}
    for name, tensor in theirs.state_dict().items():
        array = stored[
            names.get_name(name, try_suffixes=(".weight",)) if name != "lm_head.weight" else "token_embd.weight"
        ]
        if turned := re.search(r"\.([qk])_proj\.", name):
            heads = 9 if turned[1] == "q" else 3
            array = array.reshape(heads, 32, 2, 576).swapaxes(1, 2).reshape(array.shape)
        tensor.copy_(torch.tensor(array))
    model = LanguageModel.open(smollm)
    ids_BT = torch.tensor([model.tokenizer.encode("The capital of France is Paris, and that of Italy is Rome.")])
    torch.testing.assert_close(model.network(ids_BT), theirs(ids_BT).logits, atol=2e-3, rtol=1e-4)
