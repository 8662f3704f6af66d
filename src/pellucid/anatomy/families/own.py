"""Networks that Pellucid trained, from their `config.json` alone; part names are those of the modules."""

from __future__ import annotations

from dataclasses import fields as fields_of
from math import ceil, prod
from typing import Any, TypeVar

from pellucid.anatomy.families import encoders, ours
from pellucid.anatomy.families.fields import Fields
from pellucid.anatomy.families.flow import Flow
from pellucid.anatomy.tree import Buffer, Input, Part, Sequence
from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.networks.convnet_config import ConvNetConfig
from pellucid.networks.dense_config import DenseConfig
from pellucid.networks.detector_config import DetectorConfig
from pellucid.networks.efficientnet_config import EfficientNetConfig, Stage
from pellucid.networks.encoder_config import EncoderConfig
from pellucid.networks.translator_config import TranslatorConfig

Config = TypeVar("Config")


def dense(fields: Fields) -> Sequence:
    """A network for tables, or drawn by hand, with what scales its inputs and outputs."""
    config = _config(DenseConfig, fields)
    return _scaled(fields, (config.inputs,), ours.dense(config))


def convnet(fields: Fields) -> Sequence:
    """A network for pictures."""
    config = _config(ConvNetConfig, fields)
    return _scaled(fields, (config.channels, config.height, config.width), ours.convnet(config))


def detector(fields: Fields) -> Sequence:
    """A detector, for the pictures that its folder names."""
    config, side = _config(DetectorConfig, fields), fields.under("pellucid", {}).size("picture_size", 128)
    fields.sizes("channels")
    for name in ("n_classes", "d_head"):
        fields.size(name, getattr(config, name))
    if config.grid not in range(len(config.channels)):
        fields.refuse("grid", _("Give the number of a stage: 0 to {n}.").format(n=len(config.channels) - 1))
    if side % config.multiple:
        fields.refuse("channels", _("Pictures of {side} pixels cannot be halved so often.").format(side=side))
    return ours.detector(config, side, side)


def encoder(fields: Fields) -> Sequence:
    """An encoder, and the classifier of texts on top of it, in the fields of Hugging Face's BERT."""
    fields.share("hidden_size", "num_attention_heads")
    pooling = fields.under("pellucid", {}).name("pooling", "first", "mean", default="first")
    named = fields.architecture("BertModel")
    classes = len(fields.under("id2label", {}).content) or fields.count("num_labels")
    config = EncoderConfig(
        vocab_size=fields.size("vocab_size"),
        d_model=fields.size("hidden_size"),
        n_layers=fields.size("num_hidden_layers"),
        n_heads=fields.size("num_attention_heads"),
        d_ff=fields.size("intermediate_size"),
        context=fields.size("max_position_embeddings"),
        type_vocab_size=fields.size("type_vocab_size", 2),
        activation=fields.activation("hidden_act"),
        dropout=fields.rate("hidden_dropout_prob"),
        classes=classes if named.endswith("ForSequenceClassification") or pooling == "mean" else 0,
        pooling=pooling,
    )
    return encoders.encoder(config)


def translator(fields: Fields) -> Sequence:
    """A translator in the fields of Hugging Face's Marian. Unlike there, the bias of its logits is trained."""
    fields.share("d_model", "encoder_attention_heads")
    config = TranslatorConfig(
        vocab_size=fields.size("vocab_size"),
        d_model=fields.size("d_model"),
        encoder_layers=fields.size("encoder_layers"),
        decoder_layers=fields.size("decoder_layers"),
        n_heads=fields.size("encoder_attention_heads"),
        d_ff=fields.size("encoder_ffn_dim"),
        context=fields.size("max_position_embeddings"),
        pad_id=0,
        start_id=0,
        end_id=0,
        activation=fields.activation("activation_function"),
        dropout=fields.rate("dropout"),
    )
    return encoders.translator(config)


def efficientnet_lite(fields: Fields) -> Sequence:
    """EfficientNet-lite0 (Tan and Le 2019, table 1)."""
    config = EfficientNetConfig(image_size=fields.size("image_size", 224))
    names = fields.content.get("labels")
    flow = Flow(3, config.image_size, config.image_size, fields.where)
    flow.input()
    _same(flow, "conv_stem", "bn0", config.stem, 3, stride=2)
    flow.activation("relu6", "relu6")
    blocks = [(stage, n) for stage in config.stages for n in range(stage.repeat)]
    for index, (stage, n) in enumerate(blocks):
        _inverted_residual(flow, f"blocks.{index}", stage, stage.stride if n == 0 else 1)
    _same(flow, "conv_head", "bn1", config.head, 1)
    flow.activation("relu6_head", "relu6")
    flow.pool_to("mean", 1)
    flow.dropout("dropout", config.dropout)
    flow.dense("fc", len(names) if isinstance(names, list) and names else config.classes, "head")
    return flow.tree


def _inverted_residual(flow: Flow, name: str, stage: Stage, stride: int) -> None:
    def write(inner: Flow) -> None:
        wide = inner.channels * stage.expand
        if stage.expand > 1:
            _same(inner, "expand_conv", "bn0", wide, 1)
            inner.activation("expand_relu6", "relu6")
        _same(inner, "depthwise_conv", "bn1", wide, stage.kernel, stride, groups=wide)
        inner.activation("relu6", "relu6")
        _same(inner, "project_conv", "bn2", stage.channels, 1)

    flow.group(name, write)


def _same(flow: Flow, name: str, norm: str, channels: int, size: int, stride: int = 1, groups: int = 1) -> None:
    """A convolution that leaves ceil(size / stride) pixels, whatever it needs of zeros around the picture; its norm."""
    height, width = (ceil(side / stride) for side in (flow.height, flow.width))
    flow.convolution(name, channels, size, stride, groups=groups, bias=False)
    assert (flow.height, flow.width) == (height, width), "windows are odd, so half a window around is the same"
    flow.batch_norm(norm)


def _config(kind: type[Config], fields: Fields) -> Config:
    """The settings in a file as the dataclass of their network.

    Raises:
        PellucidError: when one is missing, is none of its own, or makes no sense: with the file that says so.
    """
    known = {field.name for field in fields_of(kind)}  # type: ignore[arg-type]
    given = {name: value for name, value in fields.content.items() if name in known}
    try:
        return kind(**given)
    except PellucidError as error:  # which names an option: here it is the file that is wrong
        raise PellucidError(error.what, fields.where, error.fix) from error
    except (TypeError, ValueError, AttributeError) as error:  # a setting is missing, or of a type that nobody foresaw
        raise PellucidError(
            _("{name} is damaged: {why}.").format(name="config.json", why=error),
            fields.where,
            _("Copy or download it again."),
        ) from error


def _scaled(fields: Fields, shape: tuple[int, ...], tree: Sequence) -> Sequence:
    """With the shifts and scales around the network, which are saved and never trained."""
    scaling: dict[str, Any] = fields.under("scaling", {}).content
    around = {name: Part(name, Buffer((2 * prod(sizes),))) for name, sizes in scaling.items()}
    before, after = ([around[name]] if name in around else [] for name in ("inputs", "outputs"))
    return Sequence((Part("input", Input(shape)), *before, *tree.parts, *after))
