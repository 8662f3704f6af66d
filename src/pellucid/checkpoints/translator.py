"""Translators in Hugging Face's files: MarianMTModel, which is the Transformer of 2017, in and out."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pellucid.checkpoints.fields import ACTIVATIONS, Supported, foreign_activation
from pellucid.checkpoints.files import TENSORS, read_json, read_tensors, write_json, write_tensors
from pellucid.checkpoints.foreign import Sources, fill, scatter
from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.networks.translator import Translator, TranslatorConfig

NORM_EPS = 1e-5  # Marian's, which its configuration does not name


def open_translator(folder: str | Path, dtype: torch.dtype = torch.float32) -> Translator:
    """The translator saved in `folder`, by Pellucid or by `transformers` (MarianMTModel).

    Args:
        folder: Holds `config.json` and `model.safetensors` (or its shards).
        dtype: Of the parameters, whatever the file's.

    Raises:
        PellucidError: when a file is missing or damaged, when the configuration asks for what this translator does
            not do, or when tensors are missing, left over or of the wrong shape.
    """
    folder = Path(folder)
    config = read_translator_config(folder)
    network = Translator(config, seed=None)
    tensors = _tied(folder, read_tensors(folder, dtype))
    _refuse_other_positions(folder, tensors, network.encoder.embedding.sinusoids)
    tensors[BIAS] = tensors[BIAS].flatten() if BIAS in tensors else torch.zeros(config.vocab_size, dtype=dtype)
    fill(network, folder, tensors, partial(_sources, config), POSITIONS, dtype)
    network.tie()
    return network


def save_translator(
    network: Translator, folder: str | Path, own: dict[str, Any] | None = None, dtype: torch.dtype = torch.float32
) -> None:
    """Write `config.json` and `model.safetensors` into `folder`, each whole or not at all.

    Args:
        network: What to save.
        folder: Made when there is none.
        own: Goes under the key "pellucid" of `config.json`.
        dtype: Of the parameters in the file.

    Raises:
        PellucidError: when Hugging Face's Marian has no place for a setting, or the disk refuses.
    """
    folder = Path(folder)
    content = foreign_translator_config(network.config, dtype) | {"pellucid": own or {}}
    tensors: dict[str, Tensor] = {}
    for name, parameter in network.named_parameters():
        tensors |= scatter(parameter.detach().to(dtype), _sources(network.config, name))
    tensors[BIAS] = tensors[BIAS][None]
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / TENSORS, tensors)
    write_json(folder / "config.json", content)


def read_translator_config(folder: str | Path) -> TranslatorConfig:
    """The configuration in `folder`, without its weights.

    Raises:
        PellucidError: when it asks for what this translator does not do.
    """
    path = Path(folder) / "config.json"
    return translator_config_from(read_json(path), str(path))


# Configurations


def translator_config_from(content: dict[str, Any], where: str = "config.json") -> TranslatorConfig:
    """The settings that Hugging Face's `config.json` means, with its defaults for what it leaves out.

    Raises:
        PellucidError: when it asks for what this translator does not do.
    """
    given = Supported(content, where, ("marian",))
    if content.get("model_type") != "marian":
        given.refuse("model_type")
    if (content.get("architectures") or ["MarianMTModel"])[0] != "MarianMTModel":
        given.refuse("architectures")
    for name in ("quantization_config", "is_decoder", "adapters", "normalize_before", "normalize_embedding"):
        given.only(name, None, False)
    given.only("add_final_layer_norm", None, False)
    given.only("is_encoder_decoder", True)
    given.only("share_encoder_decoder_embeddings", True)
    given.only("tie_word_embeddings", True)
    if not given.get("scale_embedding", False):
        given.refuse("scale_embedding")
    if given.get("activation_function", "gelu") not in ACTIVATIONS:
        given.refuse("activation_function")
    vocab_size, n_heads = given.size("vocab_size", default=58101), given.size("encoder_attention_heads", default=16)
    d_ff = given.size("encoder_ffn_dim", default=4096)
    for name, default, wanted in (
        ("decoder_vocab_size", vocab_size, vocab_size),
        ("decoder_attention_heads", 16, n_heads),
        ("decoder_ffn_dim", 4096, d_ff),
    ):
        if given.get(name, default) != wanted:
            given.refuse(name)
    end_id = given.get("eos_token_id", 0)
    config = TranslatorConfig(
        vocab_size=vocab_size,
        d_model=given.size("d_model", default=1024),
        encoder_layers=given.size("encoder_layers", default=12),
        decoder_layers=given.size("decoder_layers", default=12),
        n_heads=n_heads,
        d_ff=d_ff,
        context=given.size("max_position_embeddings", default=1024),
        pad_id=given.get("pad_token_id", 58100),
        start_id=given.get("decoder_start_token_id", 58100),
        end_id=end_id[0] if isinstance(end_id, list) else end_id,
        activation=ACTIVATIONS[given.get("activation_function", "gelu")],
        norm_eps=NORM_EPS,
        dropout=given.get("dropout", 0.1),
    )
    try:
        Translator(config, seed=None)
    except (ValueError, TypeError, RuntimeError) as error:
        raise PellucidError(_("{name} is damaged: {why}.").format(name="config.json", why=error), where) from error
    return config


def foreign_translator_config(config: TranslatorConfig, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Hugging Face's `config.json` of `config`.

    Raises:
        PellucidError: when Marian has no place for one of the settings.
    """
    if config.norm_eps != NORM_EPS:
        raise PellucidError(
            _("Hugging Face's {family} has no place for {name} = {value}.").format(
                family="marian", name="norm_eps", value=config.norm_eps
            ),
            "",
            _("It is always {value}.").format(value=NORM_EPS),
        )
    both = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (("attention_heads", config.n_heads), ("ffn_dim", config.d_ff), ("layerdrop", 0.0))
    }
    return {
        "model_type": "marian",
        "architectures": ["MarianMTModel"],
        "dtype": str(dtype).removeprefix("torch."),
        "torch_dtype": str(dtype).removeprefix("torch."),  # transformers before 4.56
        "vocab_size": config.vocab_size,
        "decoder_vocab_size": config.vocab_size,
        "d_model": config.d_model,
        "encoder_layers": config.encoder_layers,
        "decoder_layers": config.decoder_layers,
        **both,
        "max_position_embeddings": config.context,
        "activation_function": foreign_activation(config.activation),
        "dropout": config.dropout,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "scale_embedding": True,
        "share_encoder_decoder_embeddings": True,
        "tie_word_embeddings": True,
        "is_encoder_decoder": True,
        "pad_token_id": config.pad_id,
        "eos_token_id": config.end_id,
        "decoder_start_token_id": config.start_id,
        "forced_eos_token_id": None,
    }


# Tensors

EMBEDDING, BIAS = "model.shared.weight", "final_logits_bias"
TIED = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
POSITIONS = r"model\.(encoder|decoder)\.embed_positions\.weight"  # computed, not learned; old files keep them
BLOCK_NAMES = {
    "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.output": ("self_attn.out_proj",),
    "attention_norm": ("self_attn_layer_norm",),
    "cross_attention.query": ("encoder_attn.q_proj",),
    "cross_attention.key_value": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "cross_attention.output": ("encoder_attn.out_proj",),
    "cross_attention_norm": ("encoder_attn_layer_norm",),
    "feed_forward.up": ("fc1",),
    "feed_forward.down": ("fc2",),
    "feed_forward_norm": ("final_layer_norm",),
}


def _sources(config: TranslatorConfig, name: str) -> Sources:
    """Where the parameter of our name is found."""
    if name in ("encoder.embedding.weight", "head.bias"):
        return Sources((EMBEDDING if name == "encoder.embedding.weight" else BIAS,))
    found = re.fullmatch(r"(encoder|decoder)\.blocks\.(\d+)\.(.+)\.(weight|bias)", name)
    assert found is not None, "every other parameter is in a block"
    side, layer, part, kind = found.groups()
    names = tuple(f"model.{side}.layers.{layer}.{theirs}.{kind}" for theirs in BLOCK_NAMES[part])
    return Sources(names, rows=(config.d_model,) * len(names) if len(names) > 1 else None)


def _tied(folder: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The one table that the embeddings and the head share, under one name."""
    found = [tensors.pop(name) for name in (EMBEDDING, *TIED) if name in tensors]
    if any(table.shape != found[0].shape or not torch.equal(table, found[0]) for table in found[1:]):
        raise PellucidError(
            _("The embeddings and the head of this model differ; only one table for all is supported."), str(folder)
        )
    return tensors | ({EMBEDDING: found[0]} if found else {})


def _refuse_other_positions(folder: Path, tensors: dict[str, Tensor], sinusoids_TD: Tensor) -> None:
    for name, found_TD in tensors.items():
        if not re.fullmatch(POSITIONS, name):
            continue
        # such files may be in half precision
        if found_TD.shape != sinusoids_TD.shape or not torch.allclose(
            found_TD.float(), sinusoids_TD, rtol=0, atol=0.01
        ):
            raise PellucidError(_("The positions in {name} are no sinusoids.").format(name=name), str(folder))
