"""Decoders in files: the logits of `transformers` in both directions, and every unsupported setting refused by name."""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from pellucid.checkpoints.decoder import MODEL_TYPES, decoder_config_from, foreign_config, open_decoder, save_decoder
from pellucid.errors import PellucidError
from pellucid.networks.decoder import Decoder, DecoderConfig, decoder_config

FOREIGN = [family for family in MODEL_TYPES if family != "sinusoidal"]
SMALL = {"vocab_size": 29, "d_model": 16, "n_layers": 2, "n_heads": 4, "context": 24}
many = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def noisy(network: torch.nn.Module, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.empty_like(parameter).normal_(0, 0.2, generator=generator))
    return network.eval()


def draw_ids(vocab_size: int, length: int) -> torch.Tensor:
    return torch.randint(vocab_size, (2, length), generator=torch.Generator().manual_seed(1))


def largest_difference(network: Decoder, foreign: Any) -> float:
    ids_BT = draw_ids(network.config.vocab_size, network.config.context)
    with torch.no_grad():
        return (network.eval()(ids_BT) - foreign.eval()(ids_BT).logits).abs().max().item()


# What is drawn


@st.composite
def scalings(draw: st.DrawFn) -> dict[str, Any] | None:
    kind = draw(st.sampled_from([None, "linear", "llama3", "yarn"]))
    if kind is None:
        return None
    scaling: dict[str, Any] = {"type": kind, "factor": draw(st.sampled_from([1.5, 4.0, 32.0]))}
    if kind == "llama3":
        scaling |= {"low_freq_factor": 1.0, "high_freq_factor": draw(st.sampled_from([2.0, 4.0]))}
    if kind == "yarn":
        scaling |= draw(st.sampled_from([{}, {"attention_factor": 1.3}, {"mscale": 0.7, "mscale_all_dim": 1.0}]))
        scaling |= draw(st.sampled_from([{}, {"beta_fast": 8, "beta_slow": 0.5}, {"truncate": False}]))
    if kind != "linear":
        scaling["original_max_position_embeddings"] = draw(st.sampled_from([8, 24, 64]))
    return scaling


@st.composite
def configs(draw: st.DrawFn, family: str) -> DecoderConfig:
    n_layers, n_heads = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 4]))
    shape: dict[str, Any] = {
        "vocab_size": draw(st.integers(3, 40)),
        "n_layers": n_layers,
        "n_heads": n_heads,
        "context": draw(st.integers(4, 24)),
        "tied": draw(st.booleans()),
        "norm_eps": draw(st.sampled_from([1e-6, 1e-5, 1e-3])),
        "activation": draw(st.sampled_from(["silu", "relu", "gelu_tanh", *(["gelu"] if family != "gpt1" else [])])),
    }
    if family in ("gpt1", "gpt2"):
        shape["d_model"] = n_heads * draw(st.sampled_from([4, 6]))
        if family == "gpt2":
            shape["d_ff"] = draw(st.integers(1, 40))
        return decoder_config(family, **shape)
    biases = draw(st.booleans())
    if family in ("llama", "qwen3"):
        shape |= {"qkv_bias": biases, "output_bias": biases}
    if family == "llama":
        shape["ff_bias"] = draw(st.booleans())
    window = draw(st.integers(1, 10))
    if family == "mistral":
        shape["sliding_windows"] = draw(st.sampled_from([None, (window,) * n_layers]))
    if family in ("qwen2", "qwen3"):
        pattern = draw(st.tuples(*[st.sampled_from([None, window])] * n_layers))
        shape["sliding_windows"] = pattern if any(pattern) else None
    return decoder_config(
        family,
        **shape,
        d_model=n_heads * {"qwen2": 4, "llama": 5}[family]
        if family in ("qwen2", "llama")
        else draw(st.integers(4, 20)),
        head_dim=4 if family == "qwen2" else draw(st.sampled_from([2, 6, 8])),
        n_kv_heads=draw(st.sampled_from([n for n in (1, 2, 4) if n <= n_heads])),
        d_ff=draw(st.integers(1, 40)),
        rotary_base=draw(st.sampled_from([500.0, 10_000.0, 1e6])),
        rotary_scaling=draw(scalings()),
    )


# Both directions


@pytest.mark.parametrize("family", FOREIGN)
@many
@given(data=st.data())
def test_transformers_opens_ours_and_we_open_what_it_saves(family: str, data: st.DataObject) -> None:
    config = data.draw(configs(family))
    network = noisy(Decoder(config))
    with tempfile.TemporaryDirectory() as folder:
        save_decoder(network, folder)
        foreign, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
        assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert largest_difference(network, foreign) < 1e-4
        again = open_decoder(folder)
        assert again.config == config
        assert all(torch.equal(a, b) for a, b in zip(again.parameters(), network.parameters(), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        foreign.save_pretrained(folder)
        assert largest_difference(open_decoder(folder), foreign) < 1e-4


@pytest.mark.parametrize("family", FOREIGN)
@many
@given(data=st.data())
def test_the_spelling_of_transformers_4_means_the_same(family: str, data: st.DataObject) -> None:
    """rope_theta and rope_scaling at the top, torch_dtype, no head_dim where it is hidden_size / heads."""
    config = data.draw(configs(family))
    content = foreign_config(config)
    old = {name: value for name, value in content.items() if name not in ("rope_parameters", "dtype", "layer_types")}
    if config.rotary_scaling and data.draw(st.booleans()):
        old["rope_scaling"] = {"type": old["rope_scaling"]["rope_type"], **old["rope_scaling"]}
    new = {name: value for name, value in content.items() if name not in ("rope_theta", "rope_scaling", "torch_dtype")}
    windows = config.sliding_windows or ()
    if family in ("llama", "mistral") or windows == tuple(sorted(windows, key=bool)):  # 4.x: full layers come first
        assert decoder_config_from(old) == config
    assert decoder_config_from(new) == config


@pytest.mark.parametrize("family", FOREIGN)
def test_what_transformers_leaves_out_has_its_defaults(family: str) -> None:
    """A config.json with the sizes only, read by both."""
    sizes = {"vocab_size": 29}
    if family in ("gpt1", "gpt2"):
        sizes |= {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 24}
    else:
        sizes |= {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 32, "intermediate_size": 20}
        sizes |= {"max_position_embeddings": 24}
    foreign = noisy(AutoModelForCausalLM.from_config(AutoConfig.for_model(MODEL_TYPES[family], **sizes)))
    with tempfile.TemporaryDirectory() as folder:
        foreign.save_pretrained(folder)
        (Path(folder) / "config.json").write_text(json.dumps({"model_type": MODEL_TYPES[family], **sizes}))
        assert largest_difference(open_decoder(folder), foreign) < 1e-4


@pytest.mark.parametrize("family", FOREIGN)
def test_base_models_explicit_heads_buffers_and_half_precision(family: str, tmp_path: Path) -> None:
    network = noisy(Decoder(decoder_config(family, **SMALL)))
    save_decoder(network, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert "lm_head.weight" not in tensors
    prefix = "transformer." if family in ("gpt1", "gpt2") else "model."
    bare = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    bare |= {"lm_head.weight": network.embedding.weight.detach().clone()}
    if prefix == "transformer.":
        bare |= {"h.0.attn.bias": torch.ones(1, 1, 24, 24), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    else:
        bare |= {"layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)}
    save_file(bare, tmp_path / "model.safetensors")
    ids_BT = draw_ids(29, 24)
    assert torch.equal(open_decoder(tmp_path)(ids_BT), network(ids_BT))

    save_decoder(network, tmp_path, dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}
    assert AutoModelForCausalLM.from_pretrained(tmp_path).dtype == torch.bfloat16
    opened = open_decoder(tmp_path)
    assert opened.embedding.weight.dtype == torch.float32
    torch.testing.assert_close(opened(ids_BT), network(ids_BT), rtol=0.1, atol=0.1)
    assert open_decoder(tmp_path, torch.bfloat16)(ids_BT).dtype == torch.bfloat16


def test_an_opened_decoder_trains_and_stays_tied(tmp_path: Path) -> None:
    save_decoder(noisy(Decoder(decoder_config("qwen3", **SMALL))), tmp_path)
    network = open_decoder(tmp_path)
    assert network.head.weight is network.embedding.weight
    assert not any(tensor.is_meta for tensor in (*network.parameters(), *network.buffers()))
    before = (tmp_path / "model.safetensors").read_bytes()
    network(draw_ids(29, 24)).sum().backward()
    torch.optim.AdamW(network.parameters(), lr=0.1).step()
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_sinusoidal_positions_are_ours_alone(tmp_path: Path) -> None:
    network = noisy(Decoder(decoder_config("sinusoidal", **SMALL, dropout=0.1)))
    save_decoder(network, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "pellucid"
    again = open_decoder(tmp_path)
    assert again.config == network.config
    assert torch.equal(again.eval()(draw_ids(29, 24)), network(draw_ids(29, 24)))


@pytest.mark.parametrize("family", MODEL_TYPES)
def test_dropout_tokens_and_notes_are_kept(family: str, tmp_path: Path) -> None:
    network = Decoder(decoder_config(family, **SMALL, dropout=0.25))
    save_decoder(network, tmp_path, {"task": "text", "名": "詩"}, tokens=(None, 3))
    content = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert content["pellucid"] == {"dropout": 0.25, "task": "text", "名": "詩"}
    assert content["bos_token_id"] is None
    assert content["eos_token_id"] == 3
    assert content.get("attn_pdrop", content.get("attention_dropout", 0.0)) == 0.0  # what was done: never applied
    assert open_decoder(tmp_path).config.dropout == 0.25


def test_saving_twice_gives_the_same_bytes_and_leaves_nothing_else(tmp_path: Path) -> None:
    def digests() -> dict[str, str]:
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.iterdir()}

    network = noisy(Decoder(decoder_config("llama", **SMALL)))
    save_decoder(network, tmp_path, {"a": 1})
    first = digests()
    save_decoder(open_decoder(tmp_path), tmp_path, {"a": 1})
    assert digests() == first
    assert first.keys() == {"config.json", "model.safetensors"}


# Refusals


GPT = {"n_embd": 16, "n_layer": 1, "n_head": 4, "n_positions": 24, "vocab_size": 29}
LLAMA = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": None,
    "intermediate_size": 20,
    "max_position_embeddings": 24,
    "vocab_size": 29,
}


@pytest.mark.parametrize(
    ("kind", "change", "name"),
    [
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights"),
        ("gpt2", {"activation_function": "quick_gelu"}, "activation_function"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention"),
        ("gpt2", {"n_head": 5}, "n_head"),
        ("gpt2", {"n_embd": None}, "n_embd"),
        ("gpt2", {"n_layer": "2"}, "n_layer"),
        ("gpt2", {"architectures": ["GPT2ForSequenceClassification"]}, "architectures"),
        ("gpt2", {"architectures": ["GPT2DoubleHeadsModel"]}, "architectures"),
        ("openai-gpt", {"afn": "gelu_fast"}, "afn"),
        ("llama", {"hidden_act": "gelu_fast"}, "hidden_act"),
        ("llama", {"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ("llama", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_scaling"),
        ("llama", {"rope_parameters": {"rope_type": "longrope", "factor": 2.0}}, "rope_parameters"),
        ("llama", {"rope_scaling": {"type": "linear"}}, "rope_scaling"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0, "mrope_section": 3}}, "rope_scaling"),
        ("llama", {"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "rope_parameters"),
        (
            "llama",
            {
                "rope_scaling": {"type": "linear", "factor": 2.0},
                "rope_parameters": {"rope_type": "linear", "factor": 3.0},
            },
            "rope_scaling",
        ),
        ("llama", {"num_attention_heads": 0}, "num_attention_heads"),
        ("llama", {"num_key_value_heads": 3}, "cannot share 3"),
        ("mistral", {"layer_types": ["sliding_attention", "full_attention"]}, "layer_types"),
        ("qwen3", {"layer_types": ["full_attention"]}, "layer_types"),
        ("qwen3", {"layer_types": ["linear_attention", "full_attention"]}, "layer_types"),
        ("qwen3_moe", {"num_experts": 8}, "model_type"),
        ("bert", {}, "model_type"),
        (None, {}, "model_type"),
        ("pellucid", {"decoder": {"family": "sinusoidal"}}, r"config\.json is damaged"),
    ],
)
def test_what_this_decoder_does_not_do_is_refused_by_name(kind: str | None, change: dict, name: str) -> None:
    sizes = GPT if kind in ("gpt2", "openai-gpt") else LLAMA
    if kind in ("gpt2", "openai-gpt", "llama", "mistral", "qwen3"):
        decoder_config_from({"model_type": kind, **sizes})  # without the change it is fine
    with pytest.raises(PellucidError, match=name) as caught:
        decoder_config_from({"model_type": kind, **sizes, **change}, "there/config.json")
    assert caught.value.where == "there/config.json"


@pytest.mark.parametrize(
    "harmless",
    [
        {"reorder_and_upcast_attn": True, "attn_pdrop": 0.1, "use_cache": False, "task_specific_params": {"x": 1}},
        {"quantization_config": None, "transformers_version": "4.1", "architectures": ["GPT2Model"]},
    ],
)
def test_what_does_not_change_the_computation_is_accepted(harmless: dict) -> None:
    plain = {"model_type": "gpt2", **GPT}
    assert decoder_config_from(plain | harmless) == decoder_config_from(plain)


@pytest.mark.parametrize(
    ("family", "change", "name"),
    [
        ("llama", {"qk_norm": True}, "qk_norm"),
        ("llama", {"d_model": 18, "head_dim": 4}, "d_model"),
        ("llama", {"sliding_windows": (4, 4)}, "sliding_windows"),
        ("mistral", {"qkv_bias": True}, "qkv_bias"),
        ("qwen3", {"sliding_windows": (4, 5)}, "sliding_windows"),
        ("qwen3", {"output_bias": True}, "output_bias"),
        ("gpt2", {"n_kv_heads": 2}, "n_kv_heads"),
        ("gpt2", {"head_dim": 8}, "head_dim"),
        ("gpt1", {"d_ff": 8}, "d_ff"),
        ("gpt1", {"activation": "gelu"}, "activation"),
    ],
)
def test_a_setting_without_a_place_is_never_saved_wrongly(family: str, change: dict, name: str, tmp_path: Path) -> None:
    network = Decoder(decoder_config(family, **(SMALL | change)))
    with pytest.raises(PellucidError, match=name):
        save_decoder(network, tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_wrong_tensors_are_refused_by_name(tmp_path: Path) -> None:
    save_decoder(noisy(Decoder(decoder_config("qwen3", **SMALL))), tmp_path)
    path, good = tmp_path / "model.safetensors", load_file(tmp_path / "model.safetensors")
    key = "model.layers.1.self_attn.k_proj.weight"
    for tensors, words in (
        ({name: tensor for name, tensor in good.items() if name != key}, f"{key} is missing"),
        (good | {key: torch.zeros(16, 15)}, rf"{key} is float32 \(16, 15\); config.json makes it \(16, 16\)"),
        (good | {key: good[key].to(torch.int8)}, f"{key} is int8"),
        (good | {"model.layers.2.mlp.up_proj.weight": torch.zeros(1)}, r"model\.layers\.2\.mlp.* has no place"),
        (good | {"lm_head.weight": torch.zeros(29, 16)}, r"another lm_head\.weight"),
    ):
        save_file(tensors, path)
        with pytest.raises(PellucidError, match=words) as caught:
            open_decoder(tmp_path)
        assert str(tmp_path) in caught.value.where
