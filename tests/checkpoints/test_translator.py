"""Translators in files: the numbers of `transformers` both ways, and every unsupported setting refused by name."""

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
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, MarianConfig, MarianMTModel

from pellucid.checkpoints.translator import open_translator, save_translator
from pellucid.data.tokenizer import Tokenizer
from pellucid.errors import PellucidError
from pellucid.generation.translate import translate
from pellucid.networks.translator import Translator, TranslatorConfig

SMALL = TranslatorConfig(
    vocab_size=29,
    d_model=16,
    encoder_layers=2,
    decoder_layers=1,
    n_heads=4,
    d_ff=20,
    context=12,
    pad_id=0,
    start_id=0,
    end_id=1,
)
many = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def noisy(network: torch.nn.Module) -> Any:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:  # transformers' positions are parameters that do not
                parameter.add_(torch.empty_like(parameter).normal_(0, 0.2, generator=generator))
    return network.eval()


@st.composite
def configs(draw: st.DrawFn) -> TranslatorConfig:
    n_heads, vocab_size = draw(st.integers(1, 4)), draw(st.integers(3, 40))
    ids = st.integers(0, vocab_size - 1)
    return TranslatorConfig(
        vocab_size=vocab_size,
        d_model=n_heads * draw(st.integers(1, 6)),
        encoder_layers=draw(st.integers(1, 3)),
        decoder_layers=draw(st.integers(1, 3)),
        n_heads=n_heads,
        d_ff=draw(st.integers(1, 40)),
        context=draw(st.integers(2, 24)),
        pad_id=draw(ids),
        start_id=draw(ids),
        end_id=draw(ids),
        activation=draw(st.sampled_from(["relu", "gelu", "gelu_tanh", "silu"])),
        dropout=draw(st.sampled_from([0.0, 0.1])),
    )


def inputs(config: TranslatorConfig) -> dict[str, torch.Tensor]:
    """Three sentences with padding, and targets."""
    generator = torch.Generator().manual_seed(1)
    source_BS, target_BT = (
        torch.randint(config.vocab_size, (3, length), generator=generator)
        for length in (config.context, config.context - 1)
    )
    mask_BS = torch.arange(config.context) < torch.randint(1, config.context + 1, (3, 1), generator=generator)
    return {"source_BS": source_BS, "target_BT": target_BT, "source_mask_BS": mask_BS}


@torch.no_grad()
def difference(network: Translator, foreign: Any) -> float:
    given = inputs(network.config)
    ours = network.eval()(**given)
    theirs = foreign.eval()(
        input_ids=given["source_BS"],
        decoder_input_ids=given["target_BT"],
        attention_mask=given["source_mask_BS"].long(),
    )
    return (ours - theirs.logits).abs().max().item()


@many
@given(config=configs())
def test_translators_are_transformers_marian_both_ways(config: TranslatorConfig) -> None:
    network = noisy(Translator(config))
    with tempfile.TemporaryDirectory() as folder:
        save_translator(network, folder, {"task": "pairs"})
        foreign, report = AutoModelForSeq2SeqLM.from_pretrained(folder, output_loading_info=True)
        assert isinstance(foreign, MarianMTModel)
        assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert difference(network, foreign) < 1e-4
        again = open_translator(folder)
        assert again.config == config
        assert all(torch.equal(a, b) for a, b in zip(again.parameters(), network.parameters(), strict=True))
        assert again.head.weight is again.encoder.embedding.weight is again.decoder.embedding.weight
    with tempfile.TemporaryDirectory() as folder:
        foreign.save_pretrained(folder)
        assert difference(open_translator(folder), foreign) < 1e-4


def test_what_it_writes_greedily_is_what_transformers_writes(tmp_path: Path) -> None:
    for seed in range(5):
        network = Translator(replace(SMALL, context=24), seed)
        with torch.no_grad():
            network.head.weight[SMALL.end_id] *= 3  # so that some sentences end by themselves
        save_translator(network.eval(), tmp_path)
        foreign = MarianMTModel.from_pretrained(tmp_path)
        given = inputs(SMALL)
        source_BS, mask_BS = given["source_BS"], given["source_mask_BS"]
        written = foreign.generate(
            source_BS, attention_mask=mask_BS.long(), max_new_tokens=15, num_beams=1, do_sample=False
        )
        for ours, theirs in zip(translate(network, source_BS, mask_BS, max_tokens=15), written.tolist(), strict=True):
            wanted = theirs[1:]
            wanted = wanted[: wanted.index(SMALL.end_id)] if SMALL.end_id in wanted else wanted
            assert list(ours.ids) == wanted


def test_old_files_keep_positions_and_copies_of_the_table(tmp_path: Path) -> None:
    network = noisy(Translator(SMALL))
    save_translator(network, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    table = tensors["model.shared.weight"]
    positions = "model.encoder.embed_positions.weight"
    copies = ("model.encoder.embed_tokens.weight", "lm_head.weight")
    old = tensors | {name: table.clone() for name in copies} | {positions: network.encoder.embedding.sinusoids.clone()}
    save_file(old, tmp_path / "model.safetensors")
    given = inputs(SMALL)
    assert torch.equal(open_translator(tmp_path)(**given), network(**given))
    save_file(old | {"lm_head.weight": table + 1}, tmp_path / "model.safetensors")
    with pytest.raises(PellucidError, match="only one table"):
        open_translator(tmp_path)
    save_file(old | {positions: torch.ones(12, 16)}, tmp_path / "model.safetensors")
    with pytest.raises(PellucidError, match="no sinusoids"):
        open_translator(tmp_path)


def test_what_transformers_makes_by_default_is_refused_only_for_its_unscaled_embedding(tmp_path: Path) -> None:
    sizes = {"vocab_size": 29, "d_model": 16, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    sizes |= {"encoder_layers": 1, "decoder_layers": 1, "forced_eos_token_id": 1}
    foreign = noisy(MarianMTModel(MarianConfig(**sizes, scale_embedding=True)))
    foreign.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "marian", "scale_embedding": True, **sizes}))
    assert difference(open_translator(tmp_path), foreign) < 1e-4
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "marian", **sizes}))
    with pytest.raises(PellucidError, match="scale_embedding"):
        open_translator(tmp_path)


def test_an_opened_translator_trains_and_stays_tied(tmp_path: Path) -> None:
    save_translator(noisy(Translator(SMALL)), tmp_path)
    network = open_translator(tmp_path).train()
    network(**inputs(SMALL)).logsumexp(-1).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert network.head.weight is network.encoder.embedding.weight


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_type", "bart"),
        ("architectures", ["MarianForCausalLM"]),
        ("scale_embedding", False),
        ("normalize_before", True),
        ("share_encoder_decoder_embeddings", False),
        ("decoder_vocab_size", 30),
        ("decoder_ffn_dim", 21),
        ("decoder_attention_heads", 2),
        ("activation_function", "mish"),
        ("d_model", None),
        ("d_model", "wide"),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(field: str, value: Any, tmp_path: Path) -> None:
    save_translator(Translator(SMALL), tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | {field: value}))
    with pytest.raises(PellucidError, match="config.json makes it" if value is None else field):
        open_translator(tmp_path)


def test_a_setting_without_a_place_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(PellucidError, match="norm_eps"):
        save_translator(Translator(replace(SMALL, norm_eps=1e-3)), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_our_tokenizer_beside_it_is_opened_by_transformers(tmp_path: Path) -> None:
    tokenizer = Tokenizer.byte_level()
    end = tokenizer.end_id
    save_translator(Translator(replace(SMALL, vocab_size=257, pad_id=end, start_id=end, end_id=end)), tmp_path)
    tokenizer.save(tmp_path, "marian")
    text = "In the beginning, 起初。"
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(text, add_special_tokens=False).input_ids == tokenizer.encode(text)
    assert theirs.pad_token_id == end
