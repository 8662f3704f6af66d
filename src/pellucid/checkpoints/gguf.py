"""Decoders in llama.cpp's files (GGUF), in.

What a file asks for and this decoder cannot do is refused by name: a model is opened right, or not at all.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pellucid.checkpoints.gguf_file import GGUFFile
from pellucid.checkpoints.gguf_tokenizer import tokenizer_from
from pellucid.data.tokenizer import Tokenizer
from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.networks.decoder import Decoder, DecoderConfig, decoder_config, rotary_frequencies

FAMILIES = ("llama", "qwen2", "qwen3", "gpt2")  # their names in the file; "llama" is Mistral's too
ROPE_FACTORS = "rope_freqs.weight"


def open_gguf(path: str | Path, dtype: torch.dtype = torch.float32) -> tuple[Decoder, Tokenizer, int | None]:
    """The decoder in a .gguf file, its tokenizer, and the id of the token that begins a text (or None).

    Args:
        path: The file. Quantised numbers are decoded: the decoder computes with what they stand for.
        dtype: Of the parameters, whatever the file's.

    Raises:
        PellucidError: when the file is missing, damaged, or asks for what this decoder or tokenizer does not do.
    """
    file = GGUFFile(path)
    config = _config(file)
    tokenizer, begin = tokenizer_from(file.settings)
    if tokenizer.vocab_size > config.vocab_size:
        raise _damaged(
            file, _("it has {n} tokens and {m} embeddings").format(n=tokenizer.vocab_size, m=config.vocab_size)
        )
    return _network(file, config, dtype), tokenizer, begin


# Configurations


def _config(file: GGUFFile) -> DecoderConfig:
    settings, tensors = file.settings, file.tensors
    settings.only("general.type", "model")
    settings.only("general.quantization_version", 2)
    if settings.values.get("split.count", 1) not in (0, 1):
        settings.refuse("split.count", _("Merge the parts into one file: llama-gguf-split --merge"))
    family = settings.get("general.architecture", str)
    if family not in FAMILIES:
        settings.refuse("general.architecture", _("Supported are {families}.").format(families=", ".join(FAMILIES)))
    d_model = settings.size(f"{family}.embedding_length")
    n_layers = settings.size(f"{family}.block_count")
    n_heads = settings.size(f"{family}.attention.head_count")
    head_dim = settings.size(f"{family}.attention.key_length", d_model // n_heads or None)
    vocab_size = _rows(file, "token_embd.weight")
    if len(tensors) < n_layers or _rows(file, "blk.0.attn_norm.weight") != d_model or head_dim > vocab_size * d_model:
        raise _damaged(file, _("its settings belong to another model"))
    kind = "layer_norm" if family == "gpt2" else "layer_norm_rms"
    shape: dict[str, Any] = {
        "vocab_size": vocab_size,
        "d_model": d_model,
        "n_layers": n_layers,
        "n_heads": n_heads,
        "n_kv_heads": settings.size(f"{family}.attention.head_count_kv", n_heads),
        "head_dim": head_dim,
        "d_ff": settings.size(f"{family}.feed_forward_length"),
        "context": settings.size(f"{family}.context_length"),
        "norm_eps": settings.positive(f"{family}.attention.{kind}_epsilon"),
        "tied": "output.weight" not in tensors,
    }
    if family != "gpt2":
        shape |= _rotary(file, family, head_dim, shape["context"])
        shape["qkv_bias"] = "blk.0.attn_q.bias" in tensors
        shape["output_bias"] = "blk.0.attn_output.bias" in tensors
        shape["ff_bias"] = "blk.0.ffn_up.bias" in tensors
    for name, value in {
        "vocab_size": vocab_size,
        "attention.value_length": head_dim,
        "attention.causal": True,
        "attention.sliding_window": 0,
        "expert_count": 0,
        "expert_used_count": 0,
        "pooling_type": 0,
        "tensor_data_layout": "Meta AI original pth",  # how every "llama" orders its rows: see _unpermuted
    }.items():
        settings.only(f"{family}.{name}", value)
    settings.refuse_others(f"{family}.")
    config = decoder_config(family, **shape)
    try:
        Decoder(config, seed=None)
    except (ValueError, RuntimeError) as error:
        raise _damaged(file, str(error)) from error
    return config


def _rotary(file: GGUFFile, family: str, head_dim: int, context: int) -> dict[str, Any]:
    """The settings of the positions: base and scaling."""
    settings, prefix = file.settings, f"{family}.rope."
    settings.only(f"{prefix}dimension_count", head_dim)
    settings.ignore([f"{prefix}scaling.finetuned"])
    base = settings.positive(f"{prefix}freq_base", 10_000.0)
    kind = settings.get(f"{prefix}scaling.type", str, "none")
    if ROPE_FACTORS in file.tensors:
        settings.only(f"{prefix}scaling.type", "none")
        return {"rotary_base": base, "rotary_scaling": _llama3_scaling(file, base, head_dim)}
    if kind == "none" and f"{prefix}scale_linear" in settings.values:  # the older spelling
        factor = settings.positive(f"{prefix}scale_linear")
        return {"rotary_base": base, "rotary_scaling": {"type": "linear", "factor": factor}}
    if kind not in ("none", "linear", "yarn"):
        settings.refuse(f"{prefix}scaling.type")
    scaling: dict[str, Any] | None = None
    if kind != "none":
        scaling = {"type": kind, "factor": settings.positive(f"{prefix}scaling.factor")}
    if scaling and kind == "yarn":
        scaling["original_max_position_embeddings"] = settings.size(f"{prefix}scaling.original_context_length", context)
        for name in ("beta_fast", "beta_slow"):
            if f"{prefix}scaling.yarn_{name}" in settings.values:
                scaling[name] = settings.positive(f"{prefix}scaling.yarn_{name}")
        settings.only(f"{prefix}scaling.attn_factor", 1.0)
        settings.only(f"{prefix}scaling.yarn_attn_factor", 1.0)
        settings.only(f"{prefix}scaling.yarn_ext_factor", 1.0)
    else:
        # without a scaling, what these say changes nothing
        settings.ignore(f"{prefix}scaling.{name}" for name in ("factor", "original_context_length"))
    return {"rotary_base": base, "rotary_scaling": scaling}


def _llama3_scaling(file: GGUFFile, base: float, head_dim: int) -> dict[str, Any]:
    """The settings from which Llama 3.1's factors follow: files hold only what each frequency is divided by.

    Raises:
        PellucidError: when the factors do not follow from the settings that Meta published.
    """
    factors_K = torch.from_numpy(file.read(ROPE_FACTORS))
    scaling = {"type": "llama3", "factor": float(factors_K.max()), "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling["original_max_position_embeddings"] = 8192
    shape = {"vocab_size": 1, "d_model": head_dim, "n_layers": 0, "n_heads": 1, "context": 1, "rotary_base": base}
    plain_K, _scale = rotary_frequencies(decoder_config("llama", **shape))
    scaled_K, _scale = rotary_frequencies(decoder_config("llama", **shape, rotary_scaling=scaling))
    if factors_K.shape != plain_K.shape or not torch.allclose(plain_K / factors_K, scaled_K, rtol=1e-4):
        raise PellucidError(
            _("This model's {name} are not Llama 3's: such positions are not supported.").format(name=ROPE_FACTORS),
            str(file.path),
        )
    return scaling


# Tensors


def _network(file: GGUFFile, config: DecoderConfig, dtype: torch.dtype) -> Decoder:
    network = Decoder(config, seed=None)
    left = set(file.tensors) - {ROPE_FACTORS}
    parameters = {}
    for name, parameter in network.named_parameters():
        parts = _names(config.family, name)
        missing = next((part for part in parts if part not in left), None)
        if missing:
            raise PellucidError(_("The tensor {name} is missing.").format(name=missing), str(file.path))
        tensor = torch.cat([_tensor(file, config, part).to(dtype) for part in parts])
        if tensor.shape != parameter.shape:
            raise _damaged(
                file,
                _("its tensor {name} is {found}; its settings make it {expected}").format(
                    name=" + ".join(parts), found=tuple(tensor.shape), expected=tuple(parameter.shape)
                ),
            )
        parameters[name] = tensor
        left -= set(parts)
    if left:
        raise PellucidError(_("The tensor {name} has no place in this model.").format(name=min(left)), str(file.path))
    network.load_state_dict(parameters, strict=False, assign=True)
    network.tie()
    return network.requires_grad_()


NAMES = {"embedding": "token_embd", "positions": "position_embd", "norm": "output_norm", "head": "output"}
BLOCK_NAMES = {
    "attention_norm": ("attn_norm",),
    "attention.qkv": ("attn_q", "attn_k", "attn_v"),
    "attention.query_norm": ("attn_q_norm",),
    "attention.key_norm": ("attn_k_norm",),
    "attention.output": ("attn_output",),
    "feed_forward_norm": ("ffn_norm",),
    "feed_forward.gate_up": ("ffn_gate", "ffn_up"),
    "feed_forward.up": ("ffn_up",),
    "feed_forward.down": ("ffn_down",),
}
GPT2_BLOCK_NAMES = BLOCK_NAMES | {"attention.qkv": ("attn_qkv",)}


def _names(family: str, name: str) -> list[str]:
    """The tensors in the file that, stacked, are our parameter."""
    module, kind = name.rsplit(".", 1)
    if module in NAMES:
        return [f"{NAMES[module]}.{kind}"]
    _blocks, layer, module = module.split(".", 2)
    names = GPT2_BLOCK_NAMES if family == "gpt2" else BLOCK_NAMES
    return [f"blk.{layer}.{part}.{kind}" for part in names[module]]


def _tensor(file: GGUFFile, config: DecoderConfig, name: str) -> Tensor:
    tensor = torch.from_numpy(file.read(name))
    turned = re.fullmatch(r"blk\.\d+\.attn_([qk])\.(weight|bias)", name)
    if config.family != "llama" or not turned:
        return tensor
    heads = config.n_heads if turned[1] == "q" else config.n_kv_heads
    if tensor.shape[0] != heads * config.head_dim:
        return tensor  # the caller says so
    return _unpermuted(tensor, heads)


def _unpermuted(rows: Tensor, heads: int) -> Tensor:
    """Each head's rows in Hugging Face's order.

    Rotary positions turn pairs of rows. In a "llama" file a pair's rows are neighbours (Meta's order); here, as in
    Hugging Face's files, the second one stands half a head further down.
    """
    return rows.view(heads, -1, 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)


def _rows(file: GGUFFile, name: str) -> int:
    if name not in file.tensors:
        raise PellucidError(_("The tensor {name} is missing.").format(name=name), str(file.path))
    return file.tensors[name].shape[0]


def _damaged(file: GGUFFile, why: str) -> PellucidError:
    return PellucidError(
        _("{name} is damaged: {why}.").format(name=file.path.name, why=why),
        str(file.path),
        _("Copy or download it again."),
    )
