"""Decoders in Hugging Face's files: its configurations and tensor names, in and out.

What a foreign `config.json` asks for and this decoder cannot do is refused by name: a model is opened right, or not
at all.
"""

import re
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pellucid.checkpoints.fields import ACTIVATIONS, Supported, foreign_activation
from pellucid.checkpoints.files import TENSORS, read_json, read_tensors, write_json, write_tensors
from pellucid.checkpoints.foreign import Sources, gather, scatter
from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.networks.decoder import FAMILIES, Decoder, DecoderConfig, decoder_config

MODEL_TYPES = {
    "gpt1": "openai-gpt",
    "gpt2": "gpt2",
    "llama": "llama",
    "mistral": "mistral",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "sinusoidal": "pellucid",  # Hugging Face has no such family: only Pellucid opens it
}
ARCHITECTURES = {
    "gpt1": "OpenAIGPTLMHeadModel",
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "sinusoidal": "Decoder",
}


def open_decoder(folder: str | Path, dtype: torch.dtype = torch.float32) -> Decoder:
    """The decoder saved in `folder`, by Pellucid or by `transformers`.

    Args:
        folder: Holds `config.json` and `model.safetensors` (or its shards).
        dtype: Of the parameters, whatever the file's.

    Raises:
        PellucidError: when a file is missing or damaged, when the configuration asks for what this decoder does not
            do, or when tensors are missing, left over or of the wrong shape.
    """
    folder = Path(folder)
    config = read_decoder_config(folder)
    network = Decoder(config, seed=None)
    tensors = _with_prefix(config, read_tensors(folder, dtype))
    parameters = {}
    for name, shape in _shapes(network).items():
        parameters[name] = gather(folder, tensors, _sources(config, name), shape).to(dtype)
    _refuse_leftovers(folder, config, tensors, parameters["embedding.weight"])
    network.load_state_dict(parameters, strict=False, assign=True)
    network.tie()
    return network.requires_grad_()


def save_decoder(
    network: Decoder,
    folder: str | Path,
    extra: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
    tokens: tuple[int | None, int | None] = (None, None),
) -> None:
    """Write `config.json` and `model.safetensors` into `folder`, each whole or not at all.

    `transformers` opens every family but "sinusoidal", whose `model_type` is "pellucid".

    Args:
        network: What to save.
        folder: Made when there is none.
        extra: Goes under the key "pellucid" of `config.json`.
        dtype: Of the parameters in the file.
        tokens: The ids of the tokens that begin and end a document.

    Raises:
        PellucidError: when Hugging Face's family has no place for a setting, or the disk refuses.
    """
    folder = Path(folder)
    content = foreign_config(network.config, tokens, dtype) | {
        # no family of Hugging Face's has attention dropout switched on: it is never applied here
        "pellucid": {"dropout": network.config.dropout, **(extra or {})}
    }
    tensors: dict[str, Tensor] = {}
    for name, parameter in _parameters(network).items():
        tensors |= scatter(parameter.detach().to(dtype), _sources(network.config, name))
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / TENSORS, tensors, {"format": "pt"})
    write_json(folder / "config.json", content)


def read_decoder_config(folder: str | Path) -> DecoderConfig:
    """The configuration in `folder`, without its weights.

    Raises:
        PellucidError: when it asks for what this decoder does not do.
    """
    path = Path(folder) / "config.json"
    return decoder_config_from(read_json(path), str(path))


# Configurations


def decoder_config_from(content: dict[str, Any], where: str = "config.json") -> DecoderConfig:
    """The settings that Hugging Face's `config.json` means, with its defaults for what it leaves out.

    Raises:
        PellucidError: when it asks for what this decoder does not do.
    """
    given = Supported(content, where, tuple(MODEL_TYPES.values()))
    if content.get("model_type") == "pellucid":
        return _from_own(given)
    if content.get("model_type") not in MODEL_TYPES.values():
        given.refuse("model_type")
    family = next(name for name, kind in MODEL_TYPES.items() if kind == content["model_type"])
    architecture = (content.get("architectures") or [ARCHITECTURES[family]])[0]
    if not re.fullmatch(r"\w+(LMHeadModel|ForCausalLM|Model)", architecture) or "DoubleHeads" in architecture:
        given.refuse("architectures")
    for name in ("quantization_config", "is_encoder_decoder", "add_cross_attention", "adapters"):
        given.only(name, None, False)
    config = _from_gpt(family, given) if family in ("gpt1", "gpt2") else _from_llama(family, given)
    dropout = (content.get("pellucid") or {}).get("dropout", config.dropout)
    try:
        Decoder(config := replace(config, dropout=dropout), seed=None)
    except (ValueError, TypeError, RuntimeError) as error:
        raise PellucidError(_("{name} is damaged: {why}.").format(name="config.json", why=error), where) from error
    return config


def foreign_config(
    config: DecoderConfig, tokens: tuple[int | None, int | None] = (None, None), dtype: torch.dtype = torch.float32
) -> dict[str, Any]:
    """Hugging Face's `config.json` of `config`.

    Raises:
        PellucidError: when the family has no place for one of the settings.
    """
    content: dict[str, Any] = {
        "model_type": MODEL_TYPES[config.family],
        "architectures": [ARCHITECTURES[config.family]],
        "dtype": str(dtype).removeprefix("torch."),
        "torch_dtype": str(dtype).removeprefix("torch."),  # transformers before 4.56
        "vocab_size": config.vocab_size,
        "bos_token_id": tokens[0],
        "eos_token_id": tokens[1],
        "tie_word_embeddings": config.tied,
    }
    if config.family == "sinusoidal":
        return content | {"decoder": asdict(config)}
    content |= _to_gpt(config) if config.family in ("gpt1", "gpt2") else _to_llama(config)
    again = replace(decoder_config_from(content), dropout=config.dropout)
    odd = {"d_model"} if config.family == "llama" and config.d_model % config.n_heads else set()  # it wants multiples
    for field in fields(DecoderConfig):
        if field.name in odd or getattr(again, field.name) != getattr(config, field.name):
            raise PellucidError(
                _("Hugging Face's {family} has no place for {name} = {value}.").format(
                    family=content["model_type"], name=field.name, value=getattr(config, field.name)
                ),
                "",
                _("Choose another family."),
            )
    return content


GPT1_ACTIVATIONS = {"gelu": "gelu_tanh", "relu": "relu", "silu": "silu", "swish": "silu"}  # its "gelu" is tanh's


def _from_gpt(family: str, given: Supported) -> DecoderConfig:
    given.only("scale_attn_weights", True)
    given.only("scale_attn_by_inverse_layer_idx", False)
    d_model = given.size("n_embd", "hidden_size")
    field, activations = ("afn", GPT1_ACTIVATIONS) if family == "gpt1" else ("activation_function", ACTIVATIONS)
    activation = given.get(field, "gelu" if family == "gpt1" else "gelu_new")
    if activation not in activations:
        given.refuse(field)
    n_heads = given.size("n_head", "num_attention_heads")
    if d_model % n_heads:
        given.refuse("n_head")
    dropouts = {given.get("embd_pdrop", 0.1), given.get("resid_pdrop", 0.1)}
    return decoder_config(
        family,
        vocab_size=given.size("vocab_size"),
        d_model=d_model,
        n_layers=given.size("n_layer", "num_hidden_layers"),
        n_heads=n_heads,
        d_ff=given.size("n_inner", default=4 * d_model) if family == "gpt2" else 4 * d_model,
        context=given.size("n_positions", "max_position_embeddings"),
        norm_eps=given.get("layer_norm_epsilon", 1e-5),
        activation=activations[activation],
        tied=given.get("tie_word_embeddings", True),
        dropout=dropouts.pop() if len(dropouts) == 1 else 0.0,
    )


def _to_gpt(config: DecoderConfig) -> dict[str, Any]:
    content = {
        "n_positions": config.context,
        "n_embd": config.d_model,
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        "layer_norm_epsilon": config.norm_eps,
        "embd_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "attn_pdrop": 0.0,
    }
    if config.family == "gpt1":
        return content | {"afn": "gelu" if config.activation == "gelu_tanh" else config.activation}
    return content | {"n_inner": config.d_ff, "activation_function": foreign_activation(config.activation)}


def _from_llama(family: str, given: Supported) -> DecoderConfig:
    if given.get("hidden_act", "silu") not in ACTIVATIONS:
        given.refuse("hidden_act")
    d_model, n_heads = given.size("hidden_size"), given.size("num_attention_heads")
    n_layers, context = given.size("num_hidden_layers"), given.size("max_position_embeddings")
    biased = given.get("attention_bias", False) if family in ("llama", "qwen3") else False
    # missing it has the family's default, null it is the number of heads
    n_kv_heads = n_heads if "num_key_value_heads" in given.content else KV_HEADS.get(family, n_heads)
    base, scaling = _from_rotary(given, context)
    return decoder_config(
        family,
        vocab_size=given.size("vocab_size"),
        d_model=d_model,
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=given.size("num_key_value_heads", default=n_kv_heads),
        head_dim=given.size("head_dim", default=128 if family == "qwen3" else d_model // n_heads),
        d_ff=given.size("intermediate_size"),
        context=context,
        norm_eps=given.get("rms_norm_eps", 1e-6),
        rotary_base=base,
        rotary_scaling=scaling,
        activation=ACTIVATIONS[given.get("hidden_act", "silu")],
        qkv_bias=biased or family == "qwen2",
        output_bias=biased,
        ff_bias=given.get("mlp_bias", False) if family == "llama" else False,
        tied=given.get("tie_word_embeddings", False),
        sliding_windows=_from_windows(family, given, n_layers),
    )


KV_HEADS = {"mistral": 8, "qwen2": 32, "qwen3": 32}


def _to_llama(config: DecoderConfig) -> dict[str, Any]:
    scaling = {"rope_type": config.rotary_scaling["type"], **config.rotary_scaling} if config.rotary_scaling else None
    if scaling:
        del scaling["type"]
    content = {
        "max_position_embeddings": config.context,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": foreign_activation(config.activation),
        "rms_norm_eps": config.norm_eps,
        "attention_dropout": 0.0,
        # both spellings: rope_theta and rope_scaling up to transformers 4.x, rope_parameters from 5.0
        "rope_theta": config.rotary_base,
        "rope_scaling": scaling,
        "rope_parameters": {"rope_theta": config.rotary_base, **(scaling or {"rope_type": "default"})},
    }
    if config.family == "llama":
        content |= {"mlp_bias": config.ff_bias}
    if config.family in ("llama", "qwen3"):
        content |= {"attention_bias": config.qkv_bias}
    windows = config.sliding_windows or (None,) * config.n_layers
    width = next((window for window in windows if window), None)
    if config.family == "mistral":
        content |= {"sliding_window": width}
    if config.family in ("qwen2", "qwen3"):
        content |= {
            "use_sliding_window": width is not None,
            "sliding_window": width,
            "max_window_layers": next((n for n, window in enumerate(windows) if window), config.n_layers),
            "layer_types": ["sliding_attention" if window else "full_attention" for window in windows],
        }
    return content


def _from_windows(family: str, given: Supported, n_layers: int) -> tuple[int | None, ...] | None:
    """Each layer's sliding window; None when no layer has one."""
    types = given.content.get("layer_types")
    if types is not None and (
        len(types) != n_layers
        or not set(types) <= {"full_attention", "sliding_attention"}
        or (family in ("llama", "mistral") and "sliding_attention" in types)
    ):
        given.refuse("layer_types")
    if family == "mistral" and given.content.get("sliding_window", 4096) is not None:
        return (given.size("sliding_window", default=4096),) * n_layers
    if family not in ("qwen2", "qwen3") or not given.get("use_sliding_window", False):
        return None
    if given.content.get("sliding_window", 4096) is None:
        return None
    width, first = given.size("sliding_window", default=4096), given.get("max_window_layers", 28)
    types = types or ["sliding_attention" if n >= first else "full_attention" for n in range(n_layers)]
    windows = tuple(width if kind == "sliding_attention" else None for kind in types)
    return windows if any(windows) else None


def _from_rotary(given: Supported, context: int) -> tuple[float, dict[str, Any] | None]:
    """The base and the scaling, from rope_theta and rope_scaling (transformers 4.x) or rope_parameters (5.x)."""
    new, old = dict(given.get("rope_parameters", {})), dict(given.get("rope_scaling", {}))
    name = "rope_scaling" if old else "rope_parameters"
    scaling = old or new
    for settings in (new, old):
        settings.setdefault("rope_type", settings.pop("type", "default"))
        settings.pop("type", None)
        settings.setdefault("rope_theta", given.get("rope_theta", 10_000.0))
        if "original_max_position_embeddings" in given.content and settings["rope_type"] in ("llama3", "yarn"):
            settings["original_max_position_embeddings"] = given.content["original_max_position_embeddings"]
    if given.content.get("rope_parameters") and given.content.get("rope_scaling") and new != old:
        given.refuse("rope_scaling")  # they contradict each other
    if scaling.pop("partial_rotary_factor", given.get("partial_rotary_factor", 1.0)) != 1.0:
        given.refuse("partial_rotary_factor")
    kind, base = scaling.pop("rope_type"), scaling.pop("rope_theta")
    if kind not in SCALINGS or not isinstance(base, (int, float)):
        given.refuse(name)
    if kind in ("llama3", "yarn"):
        scaling.setdefault("original_max_position_embeddings", context)
    needed, possible = SCALINGS[kind]
    scaling = {key: value for key, value in scaling.items() if value is not None}
    if not needed <= set(scaling) <= needed | possible or not all(
        isinstance(v, (int, float)) for v in scaling.values()
    ):
        given.refuse(name)
    return float(base), {"type": kind, **scaling} if kind != "default" else None


SCALINGS: dict[str, tuple[set[str], set[str]]] = {  # the settings that each needs, and those that it may have
    "default": (set(), set()),
    "linear": ({"factor"}, set()),
    "llama3": ({"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}, set()),
    "yarn": (
        {"factor", "original_max_position_embeddings"},
        {"attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"},
    ),
}


def _from_own(given: Supported) -> DecoderConfig:
    try:
        config = DecoderConfig(**given.get("decoder", {}))
    except TypeError as error:
        raise PellucidError(
            _("{name} is damaged: {why}.").format(name="config.json", why=error), given.where
        ) from error
    if config.family not in FAMILIES:
        given.refuse("decoder")
    windows = config.sliding_windows
    return replace(config, sliding_windows=tuple(windows) if windows is not None else None)


# Tensors


def _sources(config: DecoderConfig, name: str) -> Sources:
    if config.family == "sinusoidal":
        return Sources((name,))
    gpt = config.family in ("gpt1", "gpt2")
    if not name.startswith("blocks."):
        names = {"gpt1": GPT1_NAMES, "gpt2": GPT2_NAMES}.get(config.family, LLAMA_NAMES)
        module, kind = name.rsplit(".", 1)
        return Sources((f"{names[module]}.{kind}",))
    _blocks, layer, module, kind = re.fullmatch(r"(blocks)\.(\d+)\.(.+)\.(weight|bias)", name).groups()  # type: ignore[union-attr]
    if gpt:
        transposed = kind == "weight" and "norm" not in module
        return Sources((f"transformer.h.{layer}.{GPT_BLOCK_NAMES[module]}.{kind}",), transposed=transposed)
    rows: tuple[int, ...] | None = None
    if module == "attention.qkv":
        key_rows = config.n_kv_heads * config.head_dim
        rows = (config.n_heads * config.head_dim, key_rows, key_rows)
    elif module == "feed_forward.gate_up":
        rows = (config.d_ff, config.d_ff)
    return Sources(tuple(f"model.layers.{layer}.{part}.{kind}" for part in LLAMA_BLOCK_NAMES[module]), rows)


GPT1_NAMES = {"embedding": "transformer.tokens_embed", "positions": "transformer.positions_embed", "head": "lm_head"}
GPT2_NAMES = {
    "embedding": "transformer.wte",
    "positions": "transformer.wpe",
    "norm": "transformer.ln_f",
    "head": "lm_head",
}
GPT_BLOCK_NAMES = {
    "attention_norm": "ln_1",
    "attention.qkv": "attn.c_attn",
    "attention.output": "attn.c_proj",
    "feed_forward_norm": "ln_2",
    "feed_forward.up": "mlp.c_fc",
    "feed_forward.down": "mlp.c_proj",
}
LLAMA_NAMES = {"embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
LLAMA_BLOCK_NAMES = {
    "attention_norm": ("input_layernorm",),
    "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.query_norm": ("self_attn.q_norm",),
    "attention.key_norm": ("self_attn.k_norm",),
    "attention.output": ("self_attn.o_proj",),
    "feed_forward_norm": ("post_attention_layernorm",),
    "feed_forward.gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "feed_forward.down": ("mlp.down_proj",),
}
BUFFERS = re.compile(r".*\.(attn\.(masked_)?bias|rotary_emb\.inv_freq)")  # computed, not learned; old files keep them


def _parameters(network: Decoder) -> dict[str, Tensor]:
    """Every parameter once: a tied head is the embedding."""
    return dict(network.named_parameters())


def _shapes(network: Decoder) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in _parameters(network).items()}


def _with_prefix(config: DecoderConfig, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name the tensors of a base model, saved without its head, as those of the whole."""
    prefix = "transformer." if config.family in ("gpt1", "gpt2") else "model."
    if config.family == "sinusoidal" or any(name.startswith(prefix) for name in tensors):
        return tensors
    return {name if name.startswith("lm_head.") else prefix + name: tensor for name, tensor in tensors.items()}


def _refuse_leftovers(folder: Path, config: DecoderConfig, tensors: dict[str, Tensor], embedding: Tensor) -> None:
    """Every tensor of the file was used, or is known not to matter."""
    head = tensors.pop("lm_head.weight", None) if config.tied else None
    if head is not None and not torch.equal(head, embedding):
        raise PellucidError(
            _("config.json ties the head to the embedding, but the file has another lm_head.weight."),
            str(folder),
            _('If the head in the file is meant, set "tie_word_embeddings" to false in config.json.'),
        )
    for name in tensors:
        if not BUFFERS.fullmatch(name):
            raise PellucidError(
                _("The tensor {name} has no place in this model.").format(name=name),
                str(folder),
                _("config.json may belong to another model."),
            )
