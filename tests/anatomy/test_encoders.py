"""The trees of encoder and translator against the live networks and published totals."""

import subprocess
import sys
from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pellucid.anatomy import compute, counts, families
from pellucid.anatomy.tree import Node
from pellucid.networks.encoder import Classifier, Encoder, EncoderConfig
from pellucid.networks.translator import Translator, TranslatorConfig

BERT_BASE = EncoderConfig(30522, 768, 12, 12, 3072, 512)
OPUS = TranslatorConfig(58101, 512, 6, 6, 8, 2048, 512, pad_id=58100, start_id=58100, end_id=0, activation="silu")


@st.composite
def sizes(draw: st.DrawFn) -> dict[str, int]:
    heads = draw(st.integers(1, 4))
    return {
        "vocab_size": draw(st.integers(1, 60)),
        "d_model": heads * draw(st.integers(1, 8)),
        "n_heads": heads,
        "d_ff": draw(st.integers(1, 40)),
        "context": draw(st.integers(1, 40)),
    }


def live_paths(network: nn.Module) -> dict[str, int]:
    paths: defaultdict[str, int] = defaultdict(int)
    for name, parameter in network.named_parameters():
        module = name.rsplit(".", 1)[0]
        paths[".".join("*" if part.isdigit() else part for part in module.split("."))] += parameter.numel()
    return dict(paths)


@settings(max_examples=40, deadline=None)
@given(
    sizes=sizes(),
    n_layers=st.integers(1, 3),
    types=st.integers(1, 3),
    classes=st.integers(0, 4),
    pooling=st.sampled_from(["first", "mean"]),
)
def test_encoder_and_classifier_equal_the_live_network(
    sizes: dict[str, int], n_layers: int, types: int, classes: int, pooling: str
) -> None:
    config = EncoderConfig(**sizes, n_layers=n_layers, type_vocab_size=types, classes=classes, pooling=pooling)
    network = Classifier(config, seed=None) if classes else Encoder(config, seed=None)
    check(network, families.encoder(config))


@settings(max_examples=40, deadline=None)
@given(sizes=sizes(), layers=st.tuples(st.integers(1, 3), st.integers(1, 3)))
def test_translator_equals_the_live_network(sizes: dict[str, int], layers: tuple[int, int]) -> None:
    config = TranslatorConfig(
        **sizes, encoder_layers=layers[0], decoder_layers=layers[1], pad_id=0, start_id=0, end_id=0
    )
    check(Translator(config, seed=None), families.translator(config))


def check(network: nn.Module, tree: Node) -> None:
    counted = counts.parameters(tree)
    assert counted.total == sum(parameter.numel() for parameter in network.parameters())
    assert counted.by_path == live_paths(network)
    assert sum(counted.by_kind.values()) == counted.total
    inside = sum(p.numel() for name, p in network.named_parameters() if "blocks." in name and p.ndim == 2)
    assert counts.matrices(tree) == inside


def test_published_totals() -> None:
    # counted with transformers on the meta device: BertForSequenceClassification, and BertModel, which has a pooler
    assert counts.parameters(families.encoder(replace(BERT_BASE, classes=2))).total == 109_483_778
    assert counts.parameters(families.encoder(BERT_BASE)).total == 109_482_240 - 768 * 769
    # MarianMTModel of opus-mt-en-de's sizes: its sinusoids are no parameters here, the bias of its logits is one
    assert counts.parameters(families.translator(OPUS)).total == 73_886_208 + 58_101


def test_tables_that_are_only_looked_up_do_not_multiply() -> None:
    tree = families.translator(OPUS)
    assert counts.multiplied(tree) == counts.parameters(tree).total  # the one table is the head's, too
    encoder = families.encoder(BERT_BASE)
    assert counts.multiplied(encoder) == counts.parameters(encoder).total - (30522 + 512 + 2) * 768
    half = next(part.node for part in tree.parts if part.name == "encoder")
    assert compute.training_flops(half, 64).attention == 6 * 12 * 512 * 64


@pytest.mark.parametrize("kind", ["encoder", "translator"])
def test_counting_imports_neither_torch_nor_numpy(kind: str) -> None:
    config = BERT_BASE if kind == "encoder" else OPUS
    code = (
        "import sys; from types import SimpleNamespace; from pellucid.anatomy import counts, families;"
        f"assert counts.parameters(families.{kind}(SimpleNamespace(**{vars(config)!r}))).total > 0;"
        "assert not {'torch', 'numpy'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
