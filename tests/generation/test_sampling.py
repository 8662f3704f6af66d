"""Sampling against NumPy in float64 and the logits processors of transformers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from pellucid.errors import PellucidError
from pellucid.generation.sampling import Sampling, draw, sampled_distribution

SETTINGS = st.fixed_dictionaries(
    {
        "repetition_penalty": st.sampled_from([1.0, 1.3, 0.7]),
        "temperature": st.sampled_from([0.3, 0.8, 1.0, 2.5]),
        "top_k": st.sampled_from([None, 0, 1, 5, 40, 10_000]),
        "top_p": st.sampled_from([None, 0.05, 0.5, 0.95, 1.0]),
        "min_p": st.sampled_from([None, 0.0, 0.02, 0.3, 1.0]),
    }
)


@settings(max_examples=150, deadline=None)
@given(SETTINGS, st.integers(2, 700), st.integers(0, 1000))
def test_the_distribution_is_the_one_that_transformers_samples_from(chosen, size, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, generator=generator) * 4
    text = torch.randint(0, size, (7,), generator=generator).tolist()
    ours = sampled_distribution(logits, Sampling(**chosen), text)

    steps = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(chosen["repetition_penalty"])])
    steps.append(TemperatureLogitsWarper(chosen["temperature"]))
    if chosen["top_k"]:
        steps.append(TopKLogitsWarper(chosen["top_k"]))
    if chosen["top_p"]:
        steps.append(TopPLogitsWarper(chosen["top_p"]))
    if chosen["min_p"]:
        steps.append(MinPLogitsWarper(chosen["min_p"]))
    theirs = steps(torch.tensor([text]), logits[None].clone()).softmax(-1)[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_the_distribution_by_hand_in_float64():
    logits = np.array([2.0, 1.0, 0.5, -1.0, -3.0])
    penalised = logits.copy()
    penalised[0] /= 1.5  # in the text, positive: divided
    penalised[3] *= 1.5  # in the text, negative: multiplied
    weights = np.exp(penalised / 0.5)
    weights[4] = 0  # top-k of 4
    shares = weights / weights.sum()
    order = np.argsort(-shares)
    before = np.cumsum(shares[order]) - shares[order]
    weights[order[before >= 0.95]] = 0  # top-p
    weights[weights < 0.2 * weights.max()] = 0  # min-p
    sampling = Sampling(repetition_penalty=1.5, temperature=0.5, top_k=4, top_p=0.95, min_p=0.2)
    ours = sampled_distribution(torch.tensor(logits), sampling, [0, 3, 3])
    np.testing.assert_allclose(ours.numpy(), weights / weights.sum(), rtol=1e-6)


def test_the_nucleus_of_a_large_flat_vocabulary_is_found_without_sorting_all():
    logits = torch.zeros(60_000)
    logits[123] = 1e-3
    kept = sampled_distribution(logits, Sampling(temperature=1.0, top_p=0.5)).count_nonzero().item()
    assert abs(kept - 30_000) <= 1


def test_greedy_and_temperature_0_take_the_most_probable_token():
    logits = torch.tensor([0.0, 3.0, 2.9])
    for sampling in (Sampling(greedy=True), Sampling(temperature=0.0)):
        assert sampled_distribution(logits, sampling).tolist() == [0.0, 1.0, 0.0]
    assert sampled_distribution(logits, Sampling(greedy=True, repetition_penalty=9.0), [1]).argmax() == 2


def test_tiny_temperatures_do_not_overflow():
    drawn = sampled_distribution(torch.tensor([1e4, -1e4, 9e3]), Sampling(temperature=1e-6))
    assert drawn.tolist() == [1.0, 0.0, 0.0]


def test_draws_follow_the_distribution():
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2, 0.0])
    generator = torch.Generator().manual_seed(0)
    counts = np.bincount([draw(probabilities, generator) for _ in range(4000)], minlength=6)
    assert counts[[0, 2, 5]].sum() == 0
    expected = np.array([0.5, 0.3, 0.2]) * 4000
    assert ((counts[[1, 3, 4]] - expected) ** 2 / expected).sum() < 13.8  # chi-squared, 2 degrees: p = 0.001


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"min_p": 1.5},
        {"repetition_penalty": 0.0},
        {"seed": -1},
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(wrong):
    with pytest.raises(PellucidError) as refusal:
        Sampling(**wrong)
    assert refusal.value.where == "--" + next(iter(wrong)).replace("_", "-")
