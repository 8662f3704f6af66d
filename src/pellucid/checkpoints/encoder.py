"""Encoders and classifiers in Hugging Face's files: BertModel and BertForSequenceClassification, in and out.

Of a folder with another head (masked words, tokens, answers) the encoder alone is opened.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
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
from pellucid.networks.encoder import Classifier, Encoder, EncoderConfig

CLASSIFIER = "BertForSequenceClassification"


def open_encoder(folder: str | Path, dtype: torch.dtype = torch.float32) -> Encoder:
    """The encoder saved in `folder`, by Pellucid or by `transformers`, without the head that may stand on it.

    Args:
        folder: Holds `config.json` and `model.safetensors` (or its shards).
        dtype: Of the parameters, whatever the file's.

    Raises:
        PellucidError: when a file is missing or damaged, when the configuration asks for what this encoder does not
            do, or when tensors are missing, left over or of the wrong shape.
    """
    folder = Path(folder)
    network = Encoder(replace(read_encoder_config(folder), classes=0, pooling="first"), seed=None)
    fill(
        network, folder, _tensors(folder, dtype), partial(_sources, network.config), rf"{BUFFERS}|({HEADS})\..*", dtype
    )
    return network


def open_classifier(folder: str | Path, dtype: torch.dtype = torch.float32) -> Classifier:
    """The classifier of texts saved in `folder`, by Pellucid or by `transformers`.

    Args:
        folder: As for `open_encoder`.
        dtype: As for `open_encoder`.

    Raises:
        PellucidError: as `open_encoder`, and when the folder holds an encoder only.
    """
    folder = Path(folder)
    config = read_encoder_config(folder)
    if not config.classes:
        raise PellucidError(
            _("There is no classifier of texts here, only an encoder."),
            str(folder),
            _("Train one on texts with a label each."),
        )
    network = Classifier(config, seed=None)
    fill(network, folder, _tensors(folder, dtype), partial(_sources, network.config), BUFFERS, dtype)
    return network


def save_encoder(
    network: Encoder | Classifier,
    folder: str | Path,
    labels: Sequence[str] = (),
    own: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write `config.json` and `model.safetensors` into `folder`, each whole or not at all.

    `transformers` opens an encoder as BertModel (which puts a random pooler on top: there is none here) and a
    classifier of the first token as BertForSequenceClassification. It has no class for one of the mean over all
    tokens: that is a BertModel with the head beside it, which only Pellucid reads.

    Args:
        network: What to save.
        folder: Made when there is none.
        labels: The names of the classes, in order.
        own: Goes under the key "pellucid" of `config.json`.
        dtype: Of the parameters in the file.

    Raises:
        PellucidError: when the disk refuses.
    """
    folder = Path(folder)
    content = foreign_encoder_config(network.config, labels, dtype)
    content["pellucid"] |= own or {}
    prefix = "bert." if content["architectures"] == [CLASSIFIER] else ""
    tensors: dict[str, Tensor] = {}
    for name, parameter in network.named_parameters():
        for theirs, tensor in scatter(parameter.detach().to(dtype), _sources(network.config, name)).items():
            if theirs.startswith("classifier."):
                tensors[theirs if prefix else f"mean_{theirs}"] = tensor
            else:
                tensors[prefix + theirs] = tensor
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / TENSORS, tensors)
    write_json(folder / "config.json", content)


def read_encoder_config(folder: str | Path) -> EncoderConfig:
    """The configuration in `folder`, without its weights.

    Raises:
        PellucidError: when it asks for what this encoder does not do.
    """
    path = Path(folder) / "config.json"
    return encoder_config_from(read_json(path), str(path))


def read_labels(folder: str | Path) -> list[str]:
    """The names of a classifier's classes, in order; as `transformers` calls them where the file does not.

    Raises:
        PellucidError: as `read_encoder_config`.
    """
    path = Path(folder) / "config.json"
    content = read_json(path)
    names = content.get("id2label") or {}
    return [names.get(str(n), f"LABEL_{n}") for n in range(encoder_config_from(content, str(path)).classes)]


# Configurations


def encoder_config_from(content: dict[str, Any], where: str = "config.json") -> EncoderConfig:
    """The settings that Hugging Face's `config.json` means, with its defaults for what it leaves out.

    Raises:
        PellucidError: when it asks for what this encoder does not do.
    """
    given = Supported(content, where, ("bert",))
    if content.get("model_type") != "bert":
        given.refuse("model_type")
    architecture = (content.get("architectures") or ["BertModel"])[0]
    if not re.fullmatch(r"Bert(Model|For(?!MultipleChoice)\w+)", architecture):
        given.refuse("architectures")
    for name in ("quantization_config", "is_decoder", "is_encoder_decoder", "add_cross_attention", "adapters"):
        given.only(name, None, False)
    given.only("position_embedding_type", "absolute")
    given.only("problem_type", None, "single_label_classification")
    if given.get("hidden_act", "gelu") not in ACTIVATIONS:
        given.refuse("hidden_act")
    own = given.get("pellucid", {})
    classes = 0
    if architecture == CLASSIFIER or own.get("pooling") == "mean":
        classes = len(given.get("id2label", {})) or given.size("num_labels", default=2)
    config = EncoderConfig(
        vocab_size=given.size("vocab_size", default=30522),
        d_model=given.size("hidden_size", default=768),
        n_layers=given.size("num_hidden_layers", default=12),
        n_heads=given.size("num_attention_heads", default=12),
        d_ff=given.size("intermediate_size", default=3072),
        context=given.size("max_position_embeddings", default=512),
        type_vocab_size=given.size("type_vocab_size", default=2),
        activation=ACTIVATIONS[given.get("hidden_act", "gelu")],
        norm_eps=given.get("layer_norm_eps", 1e-12),
        dropout=given.get("hidden_dropout_prob", 0.1),
        pad_id=given.get("pad_token_id", 0),
        classes=classes,
        pooling=own.get("pooling", "first"),
    )
    try:
        Classifier(config, seed=None) if classes else Encoder(config, seed=None)
    except (ValueError, TypeError, RuntimeError) as error:
        raise PellucidError(_("{name} is damaged: {why}.").format(name="config.json", why=error), where) from error
    return config


def foreign_encoder_config(
    config: EncoderConfig, labels: Sequence[str] = (), dtype: torch.dtype = torch.float32
) -> dict[str, Any]:
    """Hugging Face's `config.json` of `config`.

    Raises:
        ValueError: when there are labels, but not one for each class.
    """
    names = list(labels) or [f"LABEL_{n}" for n in range(config.classes)]
    if len(names) != config.classes:
        raise ValueError(f"{len(names)} labels for {config.classes} classes")
    content: dict[str, Any] = {
        "model_type": "bert",
        "architectures": [CLASSIFIER if config.classes and config.pooling == "first" else "BertModel"],
        "dtype": str(dtype).removeprefix("torch."),
        "torch_dtype": str(dtype).removeprefix("torch."),  # transformers before 4.56
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "intermediate_size": config.d_ff,
        "max_position_embeddings": config.context,
        "type_vocab_size": config.type_vocab_size,
        "hidden_act": foreign_activation(config.activation),
        "layer_norm_eps": config.norm_eps,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": config.pad_id,
        "position_embedding_type": "absolute",
        "pellucid": {"pooling": config.pooling},
    }
    if config.classes:
        content["id2label"] = {str(n): name for n, name in enumerate(names)}
        content["label2id"] = {name: n for n, name in enumerate(names)}
    return content


# Tensors

NAMES = {
    "embedding": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "types": "embeddings.token_type_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
    "pooler": "pooler.dense",
    "head": "classifier",
}
BLOCK_NAMES = {
    "attention.qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention.output": ("attention.output.dense",),
    "attention_norm": ("attention.output.LayerNorm",),
    "feed_forward.up": ("intermediate.dense",),
    "feed_forward.down": ("output.dense",),
    "feed_forward_norm": ("output.LayerNorm",),
}
BUFFERS = r"embeddings\.(position_ids|token_type_ids)|cls\..*"  # no parameters, or what pre-training needed
HEADS = "pooler|classifier|qa_outputs"


def _sources(config: EncoderConfig, name: str) -> Sources:
    """Where the parameter of our name is found, in a file without the prefix of the whole."""
    module, kind = name.removeprefix("encoder.").rsplit(".", 1)
    in_block = re.fullmatch(r"blocks\.(\d+)\.(.+)", module)
    if in_block is None:
        return Sources((f"{NAMES[module]}.{kind}",))
    layer, part = in_block.groups()
    names = tuple(f"encoder.layer.{layer}.{theirs}.{kind}" for theirs in BLOCK_NAMES[part])
    return Sources(names, rows=(config.d_model,) * 3 if len(names) == 3 else None)


def _tensors(folder: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """The file's tensors, by the names that a BertModel of today has for them."""
    renamed = {}
    for name, tensor in read_tensors(folder, dtype).items():
        name = name.removeprefix("bert.").removeprefix("mean_")
        # the first files of BERT were TensorFlow's
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        renamed[name] = tensor
    return renamed
