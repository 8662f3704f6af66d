"""Formulas with a network's own numbers, and two networks side by side."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.anatomy import compute, counts
from pellucid.anatomy.explain import QUANTITIES, explain
from pellucid.anatomy.families.decoder import DecoderShape, Experts, decoder_tree
from pellucid.errors import PellucidError

GPT3 = decoder_tree(
    DecoderShape(
        50257,
        12288,
        96,
        96,
        96,
        128,
        49152,
        2048,
        norm="layer",
        positions="learned",
        activation="gelu_tanh",
        gated=False,
        qkv_bias=True,
        output_bias=True,
        ff_bias=True,
    )
)
MIXED = decoder_tree(
    DecoderShape(100, 16, 5, 4, 2, 4, 24, 32, experts=Experts(6, 2, 8, layers=(False, True, True, False, True)))
)


def test_a_feed_forward_layer_of_gpt3():
    formula = explain(GPT3, "feed-forward")
    assert str(formula).startswith("12288 × 49152 + 49152 + 49152 × 12288 + 12288 = 1,208,020,992")
    (group,) = formula.groups
    assert (group.times, group.each, formula.total) == (96, 1_208_020_992, 96 * 1_208_020_992)


def test_a_fused_matrix_shows_its_parts():
    assert str(explain(GPT3, "blocks.3.attention.qkv").groups[0].terms[0]) == "12288 × (12288 + 12288 + 12288)"


@pytest.mark.parametrize("tree", [GPT3, MIXED], ids=["gpt3", "mixture"])
def test_the_whole_is_the_sum_of_its_formulas(tree):
    totals = {
        "parameters": counts.parameters(tree).total,
        "neurons": counts.neurons(tree).total,
        "multiply-adds": compute.forward(tree, token=7).total,
    }
    for quantity in QUANTITIES:
        formula = explain(tree, "", quantity, token=7)
        assert formula.total == sum(group.total for group in formula.groups) == totals[quantity]
        assert eval(str(formula.groups[0]).split(" = ")[0].replace("×", "*")) == formula.groups[0].each


@given(st.sampled_from(["embedding", "attention", "feed-forward", "norm"]))
def test_kinds_are_those_of_the_counts(kind):
    assert explain(MIXED, kind).total == counts.parameters(MIXED).by_kind[kind]


def test_a_number_chooses_one_layer():
    dense, mixture = explain(MIXED, "blocks.3.feed_forward"), explain(MIXED, "blocks.4.feed_forward")
    assert {term.path for group in dense.groups for term in group.terms} == {
        "blocks[0:4:3].*.feed_forward.gate_up",
        "blocks[0:4:3].*.feed_forward.down",
    }
    assert [group.times for group in mixture.groups] == [1, 6]  # a router, six experts
    assert explain(MIXED, "blocks.4.feed_forward.experts.5").total * 6 == mixture.groups[1].total
    for quantity in ("parameters", "neurons", "multiply-adds"):
        each = [explain(MIXED, f"blocks.{n}", quantity, token=7).total for n in range(5)]
        both = [explain(MIXED, name, quantity, token=7).total for name in ("blocks[0:4:3]", "blocks[1:3,4:5]")]
        assert sum(each) == sum(both)


def test_there_are_only_so_many():
    for part in ("blocks.5", "blocks.4.feed_forward.experts.6"):
        with pytest.raises(PellucidError, match="no part"):
            explain(MIXED, part)


@pytest.mark.parametrize("part", ["feedforward", "blocks.7.attention", "atention", "blocks.0.router", "nothing"])
def test_a_part_that_is_not_there(part):
    with pytest.raises(PellucidError) as error:
        explain(MIXED, part)
    assert part in error.value.what
    assert error.value.fix


def test_a_quantity_that_is_not_there():
    with pytest.raises(PellucidError, match="neuron"):
        explain(MIXED, "", "neuron")
