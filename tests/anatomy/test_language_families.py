"""Networks of language by their configuration: against transformers on the meta device, and the published integers."""

import contextlib
import dataclasses
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from hub import check, counted_by_torch, modern, renamed, same
from pellucid.anatomy import catalogue, compute, counts, families
from pellucid.anatomy.families.defaults import DEFAULTS
from pellucid.anatomy.tree import Attention, Node, walk
from pellucid.checkpoints.decoder import foreign_config
from pellucid.errors import PellucidError
from pellucid.networks.decoder_config import FAMILIES, DecoderConfig, decoder_config

PUBLISHED = {  # each computed by the class of transformers, or by hand where there is none
    "transformer-base": 63_082_496,
    "gpt1": 116_534_784,
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-xl": 1_557_611_200,
    "gpt-neox-20b": 20_554_567_680,
    "gpt-j-6b": 6_050_882_784,
    "shakespeare-char": 10_745_088,
    "nano-gpt": 85_728,
    "gpt3-small": 125_226_240,
    "gpt3-large": 760_300_032,
    "gpt3-2.7b": 2_651_553_280,
    "gpt3-6.7b": 6_658_404_352,
    "gpt3": 174_604_259_328,
    "bert-base": 109_482_240,
    "bert-base-chinese": 102_267_648,
    "roberta-large": 355_359_744,
    "distilbert": 66_362_880,
    "albert-base": 11_683_584,
    "t5-small": 60_506_624,
    "t5-base": 222_903_552,
    "t5-large": 737_668_096,
    "t5-3b": 2_851_598_336,
    "t5-11b": 11_307_321_344,
    "pythia-160m": 162_322_944,
    "pythia-1.4b": 1_414_647_808,
    "pythia-6.9b": 6_857_302_016,
    "pythia-12b": 11_846_072_320,
    "opt-6.7b": 6_658_473_984,
    "opt-175b": 174_604_468_224,
    "bloom-560m": 559_214_592,
    "llama-7b": 6_738_415_616,
    "llama-13b": 13_015_864_320,
    "llama-2-7b": 6_738_415_616,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3.1-405b": 405_853_388_800,
    "llama-3.2-3b": 3_212_749_824,
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
    "smollm2-1.7b": 1_711_376_384,
    "stories15m": 15_191_712,
    "stories42m": 41_689_600,
    "stories110m": 109_529_856,
    "yi-6b": 6_061_035_520,
    "yi-34b": 34_388_917_248,
    "mistral-nemo": 12_247_782_400,
    "mixtral-8x7b": 46_702_792_704,
    "qwen3-30b-a3b": 30_532_122_624,
    "deepseek-v2-lite": 15_706_484_224,
    "deepseek-v2": 235_741_434_880,
    "deepseek-v3": 671_026_404_352,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-72b": 72_706_203_648,
    "qwen3-0.6b": 596_049_920,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "gemma-2b": 2_506_172_416,
    "gemma-7b": 8_537_680_896,
    "gemma-2-2b": 2_614_341_888,
    "gemma-2-9b": 9_241_705_984,
    "gemma-2-27b": 27_227_128_320,
    "gemma-3-1b": 999_885_952,
    "falcon-7b": 6_921_720_704,
    "olmo-1b": 1_176_764_416,
    "mamba-130m": 129_135_360,
    "whisper-tiny": 37_760_640,
    "clip-vit-b-32": 151_277_313,
}
ACTIVE = {
    "mixtral-8x7b": 12_879_925_248,
    "qwen3-30b-a3b": 3_353_032_704,
    "deepseek-v2-lite": 2_661_150_208,
    "deepseek-v2": 21_375_800_320,
    "deepseek-v3": 37_552_282_624,
}
KEPT = {  # bytes of keys and values a token at 16 bits
    "gpt2": 36_864,
    "gpt2-xl": 307_200,
    "gpt3": 4_718_592,
    "llama-2-7b": 524_288,
    "llama-2-70b": 327_680,
    "llama-3-8b": 131_072,
    "llama-3.1-405b": 516_096,
    "mistral-7b": 131_072,
    "mixtral-8x7b": 131_072,
    "qwen2.5-0.5b": 12_288,
    "qwen3-8b": 147_456,
    "gemma-2b": 18_432,
    "falcon-7b": 8_192,
    "deepseek-v3": 70_272,
}
MODULES = ("gpt:", "llama:", "mixtures:", "mamba:", "masked:", "sequences:", "pictures_and_text:")
NOT_IN_TRANSFORMERS = ("transformer", "nanogpt", "mingpt", "minicpm", "palm")
LANGUAGE = [
    e.name for e in catalogue.entries() if e.config and families.READERS[e.config["model_type"]].startswith(MODULES)
]
QUICK = ["bloom-560m", "gpt2", "gpt-j-6b", "opt-350m", "llama-3.2-1b", "gemma-3-4b", "olmo-2-1b", "qwen3-0.6b"]
QUICK += ["albert-base", "bert-base", "t5-small", "opus-mt-en-zh", "whisper-turbo", "clip-vit-b-16", "mamba-130m"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_integer_that_was_published_or_computed_elsewhere(name: str) -> None:
    assert counts.parameters(tree(name)).total == PUBLISHED[name]


@pytest.mark.parametrize("name", ACTIVE)
def test_what_a_token_meets_of_a_mixture(name: str) -> None:
    assert counts.parameters(tree(name)).active == ACTIVE[name]


@pytest.mark.parametrize("name", KEPT)
def test_what_the_cache_keeps_of_a_token(name: str) -> None:
    assert sum(v.times * v.leaf.kept for v in walk(tree(name)) if isinstance(v.leaf, Attention)) * 2 == KEPT[name]


def test_windows_are_those_of_each_layer() -> None:
    windows = {name: [] for name in ("gemma-2-2b", "gemma-3-1b", "mistral-7b", "llama-2-7b")}
    for name, found in windows.items():
        found += [(v.leaf.window, v.times) for v in walk(tree(name)) if isinstance(v.leaf, Attention)]
    assert windows == {
        "gemma-2-2b": [(4096, 13), (None, 13)],
        "gemma-3-1b": [(512, 22), (None, 4)],
        "mistral-7b": [(4096, 32)],
        "llama-2-7b": [(None, 32)],
    }


def test_buffers_and_fixed_tables_stand_apart() -> None:
    assert counts.parameters(tree("deepseek-v3")).buffers == 58 * 256
    whisper = counts.parameters(tree("whisper-tiny"))
    assert (whisper.trainable, whisper.fixed) == (37_184_640, 1500 * 384)


def test_neurons_are_those_of_the_textbook() -> None:
    neurons = counts.neurons(tree("gpt2"))
    assert (neurons.total - neurons.by_kind["head"], neurons.by_kind["head"]) == (82_944, 50_257)


@pytest.mark.parametrize("name", QUICK)
def test_the_class_of_transformers(name: str) -> None:
    check(catalogue.find(name).config)


@pytest.mark.slow
@pytest.mark.parametrize("name", LANGUAGE)
def test_every_row_against_its_class_in_transformers(name: str) -> None:
    config = catalogue.find(name).config
    if config["model_type"] not in NOT_IN_TRANSFORMERS:
        check(config)


@pytest.mark.parametrize(
    "name", ["gpt2", "pythia-70m", "opt-350m", "gemma-3-1b", "starcoder2-3b", "bert-base", "albert-base"]
)
def test_the_work_of_reading_is_torchs_own_count(name: str) -> None:
    found = compute.forward(tree(name), token=16).flops
    assert found == counted_by_torch(catalogue.find(name).config, input_ids=(1, 16))


@pytest.mark.parametrize("name", ["t5-small", "opus-mt-en-de", "bart-base"])
def test_the_work_of_reading_and_writing_is_torchs_own_count(name: str) -> None:
    found = compute.forward(tree(name), source=16, token=9).flops
    assert found == counted_by_torch(catalogue.find(name).config, input_ids=(1, 16), decoder_input_ids=(1, 9))


def test_the_work_of_listening_and_looking_is_torchs_own_count() -> None:
    heard = counted_by_torch(
        catalogue.find("whisper-tiny").config, input_features=(1, 80, 3000), decoder_input_ids=(1, 9)
    )
    assert compute.forward(tree("whisper-tiny"), token=9).flops == heard
    seen = counted_by_torch(catalogue.find("clip").config, input_ids=(1, 77), pixel_values=(1, 3, 224, 224))
    assert compute.forward(tree("clip"), token=77).flops == seen - 2 * 512  # text by picture: the answer, not a layer


@pytest.mark.parametrize("name", LANGUAGE)
def test_what_was_published_is_the_count_rounded_or_a_note_says_why_not(name: str) -> None:
    entry = catalogue.find(name)
    counted = counts.parameters(tree(name))
    if entry.published_total not in (None, counted.total):
        assert entry.note, (counted.total, entry.published_total)
    for published, n in zip(
        re.findall(r"(\d[\d.,]*(?<=\d))([KMBT]?)", entry.published or ""), (counted.total, counted.active), strict=False
    ):
        digits = published[0].replace(",", "")
        unit = {"": 1, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}[published[1]]
        last = unit * 10.0 ** -len(digits.partition(".")[2])
        assert abs(n - float(digits) * unit) <= last / 2 or entry.note, (n, published)


# Drawn configurations: every kind of network at sizes and with switches that no published model has


BOOL = st.booleans()
HEAD_DIM = st.integers(1, 5).map(lambda n: 2 * n)
ROUTED = {"num_local_experts": st.integers(3, 5), "num_experts_per_tok": st.integers(1, 3)}
EXPERTS = {"num_experts_per_tok": st.integers(1, 3), "moe_intermediate_size": st.integers(1, 9)}
SPARSE = {"decoder_sparse_step": st.integers(1, 3), "mlp_only_layers": st.sampled_from([[], [0], [1, 2]])}
LATENT = {
    "kv_lora_rank": st.integers(1, 9),
    "q_lora_rank": st.none() | st.integers(1, 9),
    "qk_nope_head_dim": st.integers(1, 9),
    "qk_rope_head_dim": HEAD_DIM,
    "v_head_dim": st.integers(1, 9),
    "n_routed_experts": st.integers(3, 6),
    "n_shared_experts": st.integers(1, 2),
    "first_k_dense_replace": st.integers(0, 8),
    "attention_bias": BOOL,
    "n_group": st.just(1),
    "topk_group": st.just(1),
}
OPENAI = {"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"}
OPENAI |= {"max_position_embeddings": "n_positions"} | same("vocab_size", "tie_word_embeddings")
CLASSIC = same("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")
CLASSIC |= same("tie_word_embeddings")
BERT = same("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
BERT |= same("max_position_embeddings", "pad_token_id")
DRAWN: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "albert": renamed(BERT, embedding_size=st.integers(1, 9)),
    "bert": renamed(BERT, type_vocab_size=st.integers(1, 3)),
    "bloom": renamed(
        {"num_hidden_layers": "n_layer", "num_attention_heads": "n_head"} | same("vocab_size", "hidden_size")
    ),
    "deepseek_v2": modern(**EXPERTS, **LATENT),
    "deepseek_v3": modern(**EXPERTS, **LATENT),
    "distilbert": renamed(
        {"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"}
        | {"intermediate_size": "hidden_dim"}
        | same("vocab_size", "max_position_embeddings", "pad_token_id")
    ),
    "electra": renamed(BERT, embedding_size=st.integers(1, 9)),
    "cohere": modern(attention_bias=BOOL, use_qk_norm=BOOL),
    "falcon": renamed(
        CLASSIC | {"num_key_value_heads": "num_kv_heads", "intermediate_size": "ffn_hidden_size"},
        alibi=BOOL,
        new_decoder_architecture=BOOL,
        multi_query=BOOL,
        parallel_attn=BOOL,
        bias=BOOL,
    ),
    "gemma": modern(head_dim=HEAD_DIM, attention_bias=BOOL),
    "gemma2": modern(head_dim=HEAD_DIM, attention_bias=BOOL),
    "gemma3_text": modern(head_dim=HEAD_DIM, attention_bias=BOOL),
    "glm4": modern(head_dim=HEAD_DIM, attention_bias=BOOL),
    "gpt2": renamed(OPENAI, n_inner=st.none() | st.integers(1, 40)),
    "gpt_bigcode": renamed(OPENAI, n_inner=st.none() | st.integers(1, 40), multi_query=BOOL),
    "gpt_neox": renamed(CLASSIC | same("intermediate_size"), use_parallel_residual=BOOL, attention_bias=BOOL),
    "gpt_oss": modern(**ROUTED, head_dim=HEAD_DIM, attention_bias=BOOL),
    "gptj": renamed(OPENAI, n_inner=st.none() | st.integers(1, 40), rotary_dim=st.just(2)),
    "llama": modern(head_dim=st.none() | HEAD_DIM, attention_bias=BOOL, mlp_bias=BOOL),
    "llama4_text": modern(
        **ROUTED,
        head_dim=HEAD_DIM,
        intermediate_size_mlp=st.integers(1, 9),
        interleave_moe_layer_step=st.integers(1, 3),
        moe_layers=st.none() | st.just([0]),
        attention_bias=BOOL,
    ),
    "mamba": renamed(
        same("vocab_size", "hidden_size", "num_hidden_layers", "tie_word_embeddings"),
        state_size=st.integers(1, 5),
        expand=st.integers(1, 3),
        conv_kernel=st.integers(1, 4),
        use_bias=BOOL,
        use_conv_bias=BOOL,
        time_step_rank=st.just("auto") | st.integers(1, 5),
    ),
    "ministral": modern(head_dim=HEAD_DIM),
    "mistral": modern(head_dim=st.none() | HEAD_DIM),
    "mixtral": modern(**ROUTED),
    "mpnet": renamed(BERT, relative_attention_num_buckets=st.integers(2, 9)),
    "mpt": renamed(
        {"hidden_size": "d_model", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"}
        | same("vocab_size")
    ),
    "nanochat": modern(attention_bias=BOOL),
    "olmo": modern(attention_bias=BOOL),
    "olmo2": modern(attention_bias=BOOL),
    "olmo3": modern(attention_bias=BOOL),
    "olmoe": modern(num_experts=st.integers(3, 5), num_experts_per_tok=st.integers(1, 3), attention_bias=BOOL),
    "openai-gpt": renamed(OPENAI),
    "opt": renamed(
        CLASSIC | {"intermediate_size": "ffn_dim"} | same("pad_token_id"),
        do_layer_norm_before=BOOL,
        enable_bias=BOOL,
        layer_norm_elementwise_affine=BOOL,
        word_embed_proj_dim=st.none() | st.integers(1, 9),
    ),
    "phi": modern(qk_layernorm=BOOL),
    "phi3": modern(),
    "qwen2": modern(),
    "qwen2_moe": modern(
        **EXPERTS,
        **SPARSE,
        num_experts=st.integers(3, 5),
        qkv_bias=BOOL,
        shared_expert_intermediate_size=st.integers(1, 9),
    ),
    "qwen3": modern(head_dim=HEAD_DIM, attention_bias=BOOL),
    "qwen3_moe": modern(**EXPERTS, **SPARSE, num_experts=st.integers(3, 5), head_dim=HEAD_DIM, attention_bias=BOOL),
    "roberta": renamed(BERT, type_vocab_size=st.integers(1, 3)),
    "stablelm": modern(use_qkv_bias=BOOL, qk_layernorm=BOOL, use_parallel_residual=BOOL),
    "starcoder2": modern(use_bias=BOOL),
    "t5": renamed(
        {"hidden_size": "d_model", "num_hidden_layers": "num_layers", "num_attention_heads": "num_heads"}
        | {"intermediate_size": "d_ff"}
        | same("vocab_size"),
        d_kv=st.integers(1, 9),
        num_decoder_layers=st.none() | st.integers(1, 3),
        feed_forward_proj=st.sampled_from(["relu", "gated-gelu"]),
    ),
}


@settings(max_examples=6, deadline=None)
@pytest.mark.parametrize("kind", DRAWN)
@given(data=st.data())
def test_drawn_configurations_against_transformers(kind: str, data: st.DataObject) -> None:
    check({"model_type": kind} | data.draw(DRAWN[kind]))


# Our own folders, and what they leave out


@pytest.mark.parametrize("family", FAMILIES)
@given(st.data())
@settings(max_examples=10, deadline=None)
def test_our_own_folders_give_our_own_tree(family: str, data: st.DataObject) -> None:
    config = drawn_decoder(family, data.draw)
    content = foreign_config(config) | {"pellucid": {"dropout": config.dropout}}
    assert families.describe(content) == families.decoder(config)


def drawn_decoder(family: str, draw: Callable) -> DecoderConfig:
    heads, kv_heads = draw(st.sampled_from([(1, 1), (2, 1), (4, 2)]))
    shape = {"vocab_size": draw(st.integers(2, 50)), "d_model": 8 * heads, "n_layers": draw(st.integers(1, 4))}
    shape |= {"n_heads": heads, "context": draw(st.integers(2, 40)), "dropout": draw(st.sampled_from([0.0, 0.1]))}
    if family in ("llama", "mistral", "qwen2", "qwen3"):
        shape |= {"n_kv_heads": kv_heads, "tied": draw(st.booleans())}
    if family == "mistral":
        shape["sliding_windows"] = draw(st.sampled_from([None, (5,) * shape["n_layers"]]))
    return decoder_config(family, **shape)


def test_what_is_left_out_is_as_in_transformers() -> None:
    for kind in ("gpt2", "llama", "mistral", "qwen3", "bert", "gpt_neo", "whisper", "clip"):
        check({"model_type": kind})


@pytest.mark.parametrize("kind", sorted(set(DEFAULTS) & set(CONFIG_MAPPING)))
def test_each_default_is_that_of_the_class_in_transformers(kind: str) -> None:
    theirs = {field.name: field.default for field in dataclasses.fields(CONFIG_MAPPING[kind])}
    for name, value in DEFAULTS[kind].items():
        their = theirs.get(name, value)
        their = list(their) if isinstance(their, tuple) else their
        # what they work out after reading stands in ours; a factory makes their lists
        assert their in (value, None, dataclasses.MISSING), name


def test_the_bare_model_has_no_head() -> None:
    check(catalogue.find("opt-350m").config | {"architectures": ["OPTModel"]}, "AutoModel")
    llama = catalogue.find("stories15m").config | {"tie_word_embeddings": False}
    bare = counts.parameters(families.describe(llama | {"architectures": ["LlamaModel"]}))
    assert bare.total == counts.parameters(families.describe(llama)).total - 32000 * 288


@pytest.mark.parametrize("head", ["MaskedLM", "SequenceClassification", "TokenClassification", "QuestionAnswering"])
@pytest.mark.parametrize(
    "name", ["bert-tiny", "roberta-base", "distilbert", "albert-base", "electra-small", "mpnet-base"]
)
def test_heads_on_an_encoder(name: str, head: str) -> None:
    check(catalogue.find(name).config | {"architectures": [f"BertFor{head}"]}, f"AutoModelFor{head}")


def test_heads_of_other_kinds() -> None:
    check(
        catalogue.find("electra-small").config | {"architectures": ["ElectraForPreTraining"]}, "AutoModelForPreTraining"
    )
    for name in ("stories15m", "opt-350m", "gpt2"):
        config = catalogue.find(name).config | {"architectures": ["GPT2ForSequenceClassification"], "num_labels": 5}
        check(config, "AutoModelForSequenceClassification")
    check(catalogue.find("t5-small").config | {"architectures": ["T5EncoderModel"]}, "T5EncoderModel")


@pytest.mark.parametrize(
    ("base", "change", "field"),
    [
        ("gpt2", {"n_head": 7}, "n_head"),
        ("llama-3-8b", {"num_key_value_heads": 5}, "num_key_value_heads"),
        ("llama-3-8b", {"hidden_size": "wide"}, "hidden_size"),
        ("llama-3-8b", {"num_hidden_layers": 0}, "num_hidden_layers"),
        ("llama-3-8b", {"vocab_size": True}, "vocab_size"),
        ("llama-3-8b", {"tie_word_embeddings": 1}, "tie_word_embeddings"),
        ("llama-3-8b", {"architectures": ["LlamaForQuestionAnswering"]}, "architectures"),
        ("llama-3-8b", {"architectures": "LlamaForCausalLM"}, "architectures"),
        ("mixtral-8x7b", {"num_experts_per_tok": 9}, "num_experts_per_tok"),
        ("gemma-2-2b", {"layer_types": ["full_attention"]}, "layer_types"),
        ("gemma-2-2b", {"layer_types": 26}, "layer_types"),
        ("gpt-neo-125m", {"attention_types": [[["global"], 3]]}, "attention_types"),
        ("gpt-neo-125m", {"attention_types": "global"}, "attention_types"),
        ("bert-base", {"num_attention_heads": 5}, "num_attention_heads"),
        ("albert-base", {"num_hidden_groups": 5}, "num_hidden_groups"),
        ("albert-base", {"inner_group_num": 2}, "inner_group_num"),
        ("whisper-tiny", {"decoder_attention_heads": 5}, "decoder_attention_heads"),
        ("clip-vit-b-32", {"text_config": "small"}, "text_config"),
        ("deepseek-v2", {"num_experts_per_tok": None}, "num_experts_per_tok"),
    ],
)
def test_a_field_that_cannot_be_is_named_with_its_file(base: str, change: dict[str, Any], field: str) -> None:
    with pytest.raises(PellucidError) as error:
        families.describe(catalogue.find(base).config | change, "there/config.json")
    assert field in error.value.what
    assert error.value.where == "there/config.json"
    assert error.value.fix


JUNK = [None, "x", -1, 0, 1.5, [], {}, True, [[1]], ["a"], {"a": 1}, float("nan"), 10**30]


@pytest.mark.parametrize("name", {catalogue.find(name).config["model_type"]: name for name in LANGUAGE}.values())
def test_whatever_stands_in_a_field_is_read_or_refused(name: str) -> None:
    config = catalogue.find(name).config
    names = {*config, *DEFAULTS.get(config["model_type"], {}), "architectures", "layer_types", "pellucid"} - {
        "model_type"
    }
    for field in sorted(names):
        for junk in JUNK:
            with contextlib.suppress(PellucidError):
                counts.parameters(families.describe(config | {field: junk}))


def test_a_type_that_is_not_known_is_answered_by_the_nearest() -> None:
    with pytest.raises(PellucidError, match="qwen3"):
        families.describe({"model_type": "qwen33"})
    with pytest.raises(PellucidError, match="model_type"):
        families.describe({})


@pytest.mark.parametrize("page", ["anatomy.md", "anatomy.zh.md"])
def test_the_page_names_every_type_that_others_have(page: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / page).read_text(encoding="utf-8")
    assert [kind for kind in families.READERS if kind in CONFIG_MAPPING and f"`{kind}`" not in text] == []


def test_reading_needs_no_torch() -> None:
    code = """
import sys
from pellucid.anatomy import catalogue, compute, counts, families
for name in ("gpt3", "deepseek-v3", "bert-base", "whisper-tiny", "clip"):
    counts.parameters(families.describe(catalogue.find(name).config))
assert "torch" not in sys.modules and "numpy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def tree(name: str) -> Node:
    return families.describe(catalogue.find(name).config)
