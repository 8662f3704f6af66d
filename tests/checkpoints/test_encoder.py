"""Encoders in files: the numbers of `transformers` both ways, and every unsupported setting refused by name."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForPreTraining,
    BertForTokenClassification,
    BertModel,
)

from pellucid.checkpoints.encoder import open_classifier, open_encoder, read_labels, save_encoder
from pellucid.data.framed import FramedTokenizer
from pellucid.data.tokenizer import Tokenizer
from pellucid.errors import PellucidError
from pellucid.networks.encoder import Classifier, Encoder, EncoderConfig, mean_over_tokens

CACHE = Path(__file__).parents[2] / "cache"
SMALL = EncoderConfig(vocab_size=29, d_model=16, n_layers=2, n_heads=4, d_ff=20, context=12)
many = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def noisy(network: torch.nn.Module) -> Any:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.empty_like(parameter).normal_(0, 0.2, generator=generator))
    return network.eval()


@st.composite
def configs(draw: st.DrawFn, classes: int = 0) -> EncoderConfig:
    n_heads, vocab_size = draw(st.integers(1, 4)), draw(st.integers(3, 40))
    return EncoderConfig(
        vocab_size=vocab_size,
        d_model=n_heads * draw(st.integers(1, 6)),
        n_layers=draw(st.integers(1, 3)),
        n_heads=n_heads,
        d_ff=draw(st.integers(1, 40)),
        context=draw(st.integers(2, 24)),
        type_vocab_size=draw(st.integers(1, 3)),
        activation=draw(st.sampled_from(["gelu", "gelu_tanh", "relu", "silu"])),
        norm_eps=draw(st.sampled_from([1e-12, 1e-5, 1e-3])),
        dropout=draw(st.sampled_from([0.0, 0.1])),
        pad_id=draw(st.integers(0, vocab_size - 1)),
        classes=classes,
    )


def inputs(config: EncoderConfig) -> dict[str, torch.Tensor]:
    """A batch with padding, both kinds of tokens where there are."""
    generator = torch.Generator().manual_seed(1)
    ids_BT = torch.randint(config.vocab_size, (3, config.context), generator=generator)
    lengths_B1 = torch.randint(1, config.context + 1, (3, 1), generator=generator)
    mask_BT = torch.arange(config.context) < lengths_B1
    types_BT = torch.randint(config.type_vocab_size, ids_BT.shape, generator=generator)
    return {
        "input_ids": ids_BT.masked_fill(~mask_BT, config.pad_id),
        "attention_mask": mask_BT.long(),
        "token_type_ids": types_BT,
    }


@torch.no_grad()
def hidden_difference(network: Encoder, foreign: Any) -> float:
    """Largest over all layers, where there is no padding."""
    given = inputs(network.config)
    theirs = foreign.eval()(**given, output_hidden_states=True).hidden_states
    ours = network.eval().hidden_states(*given.values())
    kept = given["attention_mask"].bool()
    return max((a - b)[kept].abs().max().item() for a, b in zip(ours, theirs, strict=True))


@torch.no_grad()
def logit_difference(network: Classifier, foreign: Any) -> float:
    given = inputs(network.config)
    return (network.eval()(*given.values()) - foreign.eval()(**given).logits).abs().max().item()


# Both directions


@many
@given(config=configs())
def test_encoders_are_transformers_bert_both_ways(config: EncoderConfig) -> None:
    network = noisy(Encoder(config))
    with tempfile.TemporaryDirectory() as folder:
        save_encoder(network, folder)
        foreign, report = AutoModel.from_pretrained(folder, output_loading_info=True)
        assert set(report["missing_keys"]) == {"pooler.dense.weight", "pooler.dense.bias"}
        assert not report["unexpected_keys"]
        assert hidden_difference(network, foreign) < 1e-4
        again = open_encoder(folder)
        assert again.config == config
        assert all(torch.equal(a, b) for a, b in zip(again.parameters(), network.parameters(), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        foreign.save_pretrained(folder)
        assert hidden_difference(open_encoder(folder), foreign) < 1e-4


@many
@given(data=st.data(), classes=st.integers(1, 4))
def test_classifiers_are_transformers_bert_both_ways(data: st.DataObject, classes: int) -> None:
    config = data.draw(configs(classes))
    network = noisy(Classifier(config))
    labels = [f"kind {n}" for n in range(classes)]
    with tempfile.TemporaryDirectory() as folder:
        save_encoder(network, folder, labels, {"task": "labels"})
        foreign, report = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
        assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert logit_difference(network, foreign) < 1e-4
        assert list(foreign.config.id2label.values()) == read_labels(folder) == labels
        again = open_classifier(folder)
        assert again.config == config
        assert all(torch.equal(a, b) for a, b in zip(again.parameters(), network.parameters(), strict=True))
        assert hidden_difference(open_encoder(folder), foreign) < 1e-4  # its encoder alone
    with tempfile.TemporaryDirectory() as folder:
        foreign.save_pretrained(folder)
        assert logit_difference(open_classifier(folder), foreign) < 1e-4
        assert read_labels(folder) == labels


def test_what_transformers_leaves_out_has_its_defaults(tmp_path: Path) -> None:
    sizes = {"vocab_size": 29, "hidden_size": 24, "num_hidden_layers": 1}
    foreign = noisy(BertModel(BertConfig(**sizes)))
    foreign.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", **sizes}))
    assert hidden_difference(open_encoder(tmp_path), foreign) < 1e-4


@pytest.mark.parametrize("kind", [BertForPreTraining, BertForTokenClassification])
def test_of_other_heads_the_encoder_alone_is_opened(kind: Any, tmp_path: Path) -> None:
    foreign = noisy(kind(BertConfig(vocab_size=29, hidden_size=24, num_hidden_layers=1)))
    foreign.save_pretrained(tmp_path)
    assert hidden_difference(open_encoder(tmp_path), foreign.bert) < 1e-4
    with pytest.raises(PellucidError, match="only an encoder"):
        open_classifier(tmp_path)


def test_the_first_names_of_norms_half_precision_and_buffers(tmp_path: Path) -> None:
    network = noisy(Encoder(SMALL))
    save_encoder(network, tmp_path, dtype=torch.bfloat16)
    tensors = load_file(tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    save_encoder(network, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    old = {
        "bert."
        + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in tensors.items()
    }
    save_file(old | {"bert.embeddings.position_ids": torch.arange(12)[None]}, tmp_path / "model.safetensors")
    given = inputs(SMALL)
    assert torch.equal(open_encoder(tmp_path)(*given.values()), network(*given.values()))


def test_a_classifier_of_the_mean_comes_back_and_transformers_opens_its_encoder(tmp_path: Path) -> None:
    network = noisy(Classifier(replace(SMALL, classes=2, pooling="mean")))
    save_encoder(network, tmp_path, ["no", "yes"], {"task": "labels"})
    given = inputs(SMALL)
    again = open_classifier(tmp_path)
    assert again.config == network.config
    assert torch.equal(again(*given.values()), network(*given.values()))
    assert read_labels(tmp_path) == ["no", "yes"]
    foreign = AutoModel.from_pretrained(tmp_path)
    assert hidden_difference(network.encoder, foreign) < 1e-4
    # transformers has no such classifier: it must not find a head that it would put on the first token
    _, report = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert {"classifier.weight", "classifier.bias"} <= set(report["missing_keys"])


def test_an_opened_classifier_trains(tmp_path: Path) -> None:
    save_encoder(noisy(Classifier(replace(SMALL, classes=2))), tmp_path)
    network = open_classifier(tmp_path).train()
    network(*inputs(SMALL).values()).logsumexp(1).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


# What is refused


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_type", "roberta"),
        ("model_type", None),
        ("architectures", ["RobertaModel"]),
        ("architectures", ["BertForMultipleChoice"]),
        ("is_decoder", True),
        ("position_embedding_type", "relative_key"),
        ("problem_type", "multi_label_classification"),
        ("hidden_act", "mish"),
        ("hidden_size", "wide"),
        ("num_hidden_layers", 0),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(field: str, value: Any, tmp_path: Path) -> None:
    save_encoder(Encoder(SMALL), tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | {field: value}))
    with pytest.raises(PellucidError, match=field) as refused:
        open_encoder(tmp_path)
    assert str(tmp_path) in refused.value.where


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    save_encoder(Encoder(SMALL), tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    for changes, message in (
        ({"hidden_size": 20}, "config.json makes it"),
        ({"num_hidden_layers": 1}, "no place"),
        ({"num_hidden_layers": 3}, "missing"),
        ({"num_attention_heads": 3}, "heads"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(content | changes))
        with pytest.raises(PellucidError, match=message):
            open_encoder(tmp_path)
    with pytest.raises(ValueError, match="1 labels for 2"):
        save_encoder(Classifier(replace(SMALL, classes=2)), tmp_path / "new", ["one"])
    assert not (tmp_path / "new").exists()


def test_our_tokenizer_beside_it_is_opened_by_transformers(tmp_path: Path) -> None:
    tokenizer = Tokenizer.byte_level()
    save_encoder(Encoder(replace(SMALL, vocab_size=tokenizer.vocab_size, pad_id=tokenizer.end_id)), tmp_path)
    tokenizer.save(tmp_path, "bert")
    text = "The cat sat, 猫坐在垫子上!"
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(text, add_special_tokens=False).input_ids == tokenizer.encode(text)
    assert theirs.pad_token_id == tokenizer.end_id


@pytest.mark.slow
def test_minilm_knows_what_is_alike() -> None:
    if not (CACHE / "minilm").is_dir():
        pytest.skip("run `python tests/fetch.py` first, as `make test-all` does")
    tokenizer, network = FramedTokenizer.open(CACHE / "minilm"), open_encoder(CACHE / "minilm").eval()

    def meaning(text: str) -> torch.Tensor:
        with torch.no_grad():
            return mean_over_tokens(network(torch.tensor([tokenizer.encode(text)])))[0]

    cat, kitten, stocks = map(
        meaning,
        ("A cat sits on the mat.", "The kitten is resting on a rug.", "Stock prices fell sharply today."),
    )
    assert torch.cosine_similarity(cat, kitten, dim=0) >= 0.6
    assert torch.cosine_similarity(cat, stocks, dim=0) <= 0.15
    foreign = AutoModel.from_pretrained(CACHE / "minilm")
    assert hidden_difference(network, foreign) < 1e-4
