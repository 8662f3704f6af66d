"""The verdict on histories whose nature is known, and what must hold for every history."""

import math
import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.data.compress import Compression
from pellucid.tasks.task import Reference
from pellucid.tasks.text import text_reference
from pellucid.training.verdict import THRESHOLDS, History, judge

STEPS = 840
# Shakespeare with 2,048 tokens: 2.72 bytes a token, unigram 6.3 nats a token
REFERENCE = text_reference(2048, 6.3, 2.72, Compression(3.089, 2.757, 2.345, 10**6, 10**6, partial=False))
DECAY = 336  # the last 60 %


def history(training, validation, upto=STEPS, evaluations=20, noise=0.02, seed=0, decay_start=DECAY) -> History:
    """Losses as functions of the step; training losses with the scatter of single batches."""
    draw = np.random.default_rng(seed)
    every = STEPS // evaluations
    return History(
        training=[(step, training(step) * (1 + noise * draw.standard_normal())) for step in range(upto)],
        validation=[(step, validation(step)) for step in range(every, upto + 1, every)],
        planned_steps=STEPS,
        decay_start=decay_start,
    )


def power(step, start=7.6, end=3.6, tau=20, exponent=0.9):
    """A fall as training shows it: from ``start`` towards ``end``, ever slower."""
    return end + (start - end) * (1 + step / tau) ** -exponent


def decayed(step, gain=0.4):
    """What the decay of the learning rate adds: down by ``gain`` at its end."""
    return -gain * max(0, step - DECAY) / (STEPS - DECAY)


def falling(step):
    """0.25 nats a token less with each doubling of the steps, and the decay's gain at the end."""
    return 5.6 - 0.25 * math.log2(1 + step) + decayed(step) + 2 * math.exp(-step / 5)


def levelled(step):
    return 3.8 + 3.8 * math.exp(-step / 30) + decayed(step, 0.1)


def rising_after(turn, loss):
    """Validation: falls like ``loss``, from step ``turn`` on it rises by 0.3 to the end."""
    return lambda step: loss(min(step, turn)) + 0.3 * max(0, step - turn) / (STEPS - turn)


@pytest.mark.parametrize(("first", "said"), [(7.62, "as it should"), (12.0, "far above"), (3.9, "with knowledge")])
def test_the_first_loss_is_compared_with_even_guessing(first, said):
    verdict = judge(REFERENCE, History([(0, first)], [], STEPS), finished=False)
    assert verdict.state == "starting"
    assert said in verdict.sentences[0]
    assert f"{first:.2f}" in verdict.sentences[0]
    assert "ln(2,048) = 7.62" in verdict.sentences[0]


def test_before_anything_is_measured():
    verdict = judge(REFERENCE, History([], [], STEPS), finished=False)
    assert verdict.state == "starting"
    assert "ln(2,048) = 7.62" in verdict.sentences[0]
    assert judge(REFERENCE, History([], [], STEPS), finished=True).state == "cannot tell"


@pytest.mark.parametrize("finished", [True, False])
def test_a_loss_at_the_level_of_token_frequencies_has_learned_nothing(finished):
    verdict = judge(
        REFERENCE, history(lambda n: power(n, end=6.35, tau=5), lambda n: power(n, end=6.35, tau=5)), finished
    )
    assert verdict.state == "learned nothing yet"
    assert "6.30" in verdict.sentences[0]
    assert "Still ahead of it: token frequencies, gzip, xz, xz given the training text." in verdict.sentences


def test_half_way_through_a_good_training():
    verdict = judge(REFERENCE, history(falling, falling, upto=300), finished=False)
    assert verdict.state == "normal so far"


def test_a_good_training_that_ends_too_early_is_still_falling_and_says_what_more_steps_may_give():
    verdict = judge(REFERENCE, history(falling, falling), finished=True)
    assert verdict.state == "still falling"
    bits = 0.25 / math.log(2) / 2.72
    assert verdict.evidence["fall_per_doubling"] == pytest.approx(0.25, abs=0.02)
    assert f"{bits / 2:.2f} bits per byte to {bits:.2f} bits per byte" in verdict.sentences[1]
    assert "guess" in verdict.sentences[1]


def test_the_last_fall_is_the_decay_s_and_no_reason_to_go_on():
    """Level for 300 steps, then 0.4 nats down with the learning rate: a fit over it all would promise that again."""
    run = history(lambda n: levelled(n) + decayed(n), lambda n: levelled(n) + decayed(n))
    assert run.validation[7][1] - run.validation[-1][1] > 0.4
    assert judge(REFERENCE, run, finished=True).state == "flat"


def test_without_a_decay_the_last_doublings_count():
    def slow(n):
        return 5.6 - 0.25 * math.log2(1 + n) + 2 * math.exp(-n / 5)

    verdict = judge(REFERENCE, history(slow, slow, decay_start=None), finished=True)
    assert verdict.state == "still falling"
    assert verdict.evidence["fall_per_doubling"] == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("upto", [STEPS, 640])
@pytest.mark.parametrize("noise", [0.0, 0.02, 0.05])
@pytest.mark.parametrize("seed", range(3))
def test_memorising_names_the_best_step(upto, noise, seed):
    def training(n):
        return power(n, end=0.3, tau=80)

    run = history(training, rising_after(420, lambda n: power(n, end=3.5)), upto, noise=noise, seed=seed)
    verdict = judge(REFERENCE, run, finished=upto == STEPS)
    assert verdict.state == "memorising"
    assert verdict.evidence["best_step"] == 420
    assert any("Stop at step 420" in said for said in verdict.sentences)
    assert any("known by heart" in said for said in verdict.sentences)


def test_memorising_a_few_lines_with_few_evaluations():
    """A text of 30 lines: unseen lines are never better predicted than by frequencies, the seen ones perfectly."""
    training = [(n, power(n, end=0.01, tau=10, exponent=2)) for n in range(100)]
    validation = [(10, 6.6), (30, 6.4), (50, 6.9), (70, 7.5), (99, 8.2)]
    verdict = judge(REFERENCE, History(training, validation, 100, 40), finished=True)
    assert verdict.state == "memorising"
    assert verdict.evidence["best_step"] == 30


def test_one_worse_evaluation_is_not_yet_memorising():
    run = history(lambda n: power(n, end=0.3, tau=80), lambda n: power(n, end=3.5), upto=462)
    *before, (last, loss) = run.validation
    slightly = History(run.training, [*before, (last, loss + 0.03)], STEPS, DECAY)
    plainly = History(run.training, [*before, (last, loss + 0.5)], STEPS, DECAY)
    assert judge(REFERENCE, slightly, finished=False).state == "normal so far"
    assert judge(REFERENCE, plainly, finished=False).state == "memorising"


@pytest.mark.parametrize("seed", range(20))
def test_a_noisy_level_is_neither_memorising_nor_diverging(seed):
    """Validation stands and scatters by 1 %, so its best lies somewhere in the middle; training falls slowly."""
    scatter = np.random.default_rng(seed).normal(0, 0.04, STEPS + 1)
    run = history(lambda n: power(n) - 0.0005 * n, lambda n: 3.8 + scatter[n] + 3 * math.exp(-n / 20), seed=seed)
    assert judge(REFERENCE, run, finished=True).state in ("flat", "still falling", "cannot tell")
    assert judge(REFERENCE, run, finished=False).state == "normal so far"


def test_flat_with_a_small_gap_asks_for_a_larger_network():
    verdict = judge(REFERENCE, history(levelled, levelled), finished=True)
    assert verdict.state == "flat"
    assert "larger network" in verdict.sentences[1]


def test_flat_with_a_large_gap_asks_for_text():
    verdict = judge(REFERENCE, history(lambda n: power(n, end=1.0), levelled), finished=True)
    assert verdict.state == "flat"
    assert "add data" in verdict.sentences[1]


def test_a_decay_that_brings_nothing_outweighs_the_slope_before_it():
    def stuck(n):
        return falling(min(n, DECAY))

    verdict = judge(REFERENCE, history(lambda n: power(n, end=1.0), stuck), finished=True)
    assert verdict.state == "flat"


def test_too_few_evaluations_cannot_tell():
    run = history(falling, falling, evaluations=2)
    verdict = judge(REFERENCE, run, finished=True)
    assert verdict.state == "cannot tell"
    assert "0 evaluations were made, and 3 are needed" in verdict.sentences[0]


@pytest.mark.parametrize("finished", [True, False])
def test_a_loss_that_climbs_back_diverges(finished):
    def training(n):
        return power(min(n, 300)) + max(0, n - 300) * 0.01

    verdict = judge(REFERENCE, history(training, training, upto=500), finished)
    assert verdict.state == "diverging"
    assert "lower learning rate" in verdict.sentences[0]


def test_a_loss_that_climbs_from_the_start_diverges():
    verdict = judge(REFERENCE, history(lambda n: 7.6 + 0.02 * n, lambda n: 7.6 + 0.02 * n, upto=200), finished=False)
    assert verdict.state == "diverging"


def test_a_spike_of_a_few_steps_is_forgiven():
    def training(n):
        return falling(n) + (5 if 290 <= n < 296 else 0)

    assert judge(REFERENCE, history(training, falling, upto=300), finished=False).state == "normal so far"


def test_training_losses_near_zero_may_scatter():
    """Twice nearly nothing is nearly nothing: a network that has learned all does not diverge."""
    run = history(lambda n: power(n, end=0.002, tau=5, exponent=3), falling, noise=0.5)
    assert judge(REFERENCE, run, finished=True).state != "diverging"


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_diverges(loss):
    run = history(falling, falling, upto=300)
    verdict = judge(REFERENCE, History([*run.training, (300, loss)], run.validation, STEPS, DECAY), finished=False)
    assert verdict.state == "diverging"
    assert "not a finite number" in verdict.sentences[0]


def test_bits_per_byte_stand_beside_the_compressors():
    """1.938 bits per byte at 2.72 bytes a token are 3.654 nats a token: the published run on Shakespeare."""
    nats = 1.938 * 2.72 * math.log(2)
    run = history(lambda n: power(n, end=nats - 0.2), lambda n: nats + 2 * (STEPS - n) / STEPS)
    verdict = judge(REFERENCE, run, finished=True)
    assert verdict.evidence["bits_per_byte"] == pytest.approx(1.938)
    assert any(
        "1.94 bits per byte" in s and "gzip 3.09 bits per byte, xz 2.76" in s and "training text 2.3" in s
        for s in verdict.sentences
    )
    assert any("better than all of these" in said for said in verdict.sentences)


@pytest.mark.parametrize(
    ("bpb", "ahead"),
    [
        (2.5, "Still ahead of it: xz given the training text."),
        (2.9, "Still ahead of it: xz, xz given the training text."),
    ],
)
def test_what_is_still_ahead_is_named(bpb, ahead):
    nats = bpb * 2.72 * math.log(2)
    assert ahead in judge(REFERENCE, history(falling, lambda n: nats + 1 - n / STEPS), finished=True).sentences


def test_a_part_of_a_long_text_is_said():
    part = text_reference(2048, 6.3, 2.72, Compression(3.1, 2.8, None, 10**6, 10**6, partial=True))
    verdict = judge(part, history(falling, falling), finished=True)
    assert "The text is long: gzip and xz were given only a part of it." in verdict.sentences
    assert not any("given the training" in said for said in verdict.sentences)


losses = st.one_of(st.floats(0, 20), st.floats(0, 1e9), st.sampled_from([math.nan, math.inf]))
points = st.lists(st.tuples(st.integers(0, 3000), losses), max_size=60)
texts = st.builds(
    text_reference,
    st.integers(1, 300_000),
    st.floats(0, 13),
    st.floats(0.1, 20),
    st.builds(
        Compression,
        st.floats(0, 9),
        st.floats(0, 9),
        st.none() | st.floats(-1, 9),
        st.just(10**6),
        st.just(10**6),
        st.booleans(),
    ),
)
others = st.builds(
    Reference,
    unit=st.just("squared error a row"),
    simple=st.floats(0, 1e6),
    simple_said=st.just("the mean"),
    figure=st.just("error"),
    show=st.just(lambda value: f"an error of {value:.3g}"),
    decisive=st.booleans(),
)
references = texts | others
histories = st.builds(History, points, points, st.integers(1, 3000), st.none() | st.integers(0, 3000))
clean = st.lists(
    st.tuples(st.integers(1, 3000), st.floats(0.01, 20)), min_size=1, max_size=60, unique_by=lambda p: p[0]
)


def rows(simple=0.5):
    """Rows whose target has a variance of 1, as scaled numbers have."""
    return Reference("squared error a row", simple, "the mean", "error", lambda e: f"{e:.3g} kg", decisive=True)


def test_losses_of_small_batches_that_scatter_do_not_diverge():
    """Eight rows a batch: the median of sixty steps moves by a tenth without any meaning."""
    states = [judge(rows(), history(lambda n: 1.0, lambda n: 1.0, noise=0.35, seed=s), True).state for s in range(20)]
    assert "diverging" not in states
    rising = history(lambda n: 1.0 + n / STEPS, lambda n: 1.0 + n / STEPS, noise=0.35)
    assert judge(rows(), rising, finished=True).state == "diverging"


def test_rows_that_are_foretold_exactly_are_learned():
    run = history(lambda n: 0.5 * math.exp(-n / 50), lambda n: 0.5 * math.exp(-n / 50), noise=0.3)
    verdict = judge(rows(), run, finished=True)
    assert verdict.state == "learned"
    assert "knowing only the mean costs 0.5" in verdict.sentences[0]
    assert judge(REFERENCE, run, finished=True).state != "learned"


def test_rows_that_are_foretold_no_better_than_by_their_mean_have_taught_nothing():
    verdict = judge(rows(), history(lambda n: 0.5, lambda n: 0.502, noise=0.01), finished=True)
    assert verdict.state == "learned nothing yet"
    assert "knowing only the mean" in verdict.sentences[0]


@given(references, histories, st.booleans())
def test_every_history_gets_a_verdict(reference, history, finished):
    verdict = judge(reference, history, finished)
    assert verdict.sentences
    assert all(said and "{" not in said for said in verdict.sentences)
    assert all(math.isfinite(number) for number in verdict.evidence.values())
    if finished:
        assert verdict.state not in ("starting", "normal so far")
    else:
        assert verdict.state not in ("still falling", "flat", "cannot tell")


@given(references, clean, clean, st.integers(1, 3000), st.booleans())
def test_never_memorising_while_unseen_text_is_at_its_best(reference, training, validation, planned, finished):
    last = max(validation)[0]
    best = min(loss for _step, loss in validation)
    validation = [*validation, (last + 1, best)]
    assert judge(reference, History(training, validation, planned), finished).state != "memorising"


@given(references, clean, clean, st.integers(1, 3000), st.booleans())
def test_never_diverging_while_the_training_loss_is_at_its_lowest(reference, training, validation, planned, finished):
    falls = sorted(training, key=lambda point: -point[1])
    training = [(step, loss) for (step, _), (_, loss) in zip(sorted(training), falls, strict=True)]
    assert judge(reference, History(training, validation, planned), finished).state != "diverging"


@given(references, histories, st.booleans(), st.randoms(use_true_random=False))
def test_the_order_of_the_points_does_not_matter(reference, history, finished, random):
    training = dict(history.training)
    validation = dict(history.validation)
    orders = []
    for _again in range(2):
        shuffled = [list(training.items()), list(validation.items())]
        for points in shuffled:
            random.shuffle(points)
        orders.append(judge(reference, History(*shuffled, history.planned_steps, history.decay_start), finished))
    assert orders[0] == orders[1]


def test_every_threshold_has_a_reason_and_a_use():
    source = Path(judge.__code__.co_filename).read_text("utf-8")
    for name, threshold in THRESHOLDS.items():
        assert threshold.value > 0
        assert len(threshold.reason.split()) >= 6
        assert f'_threshold("{name}")' in source


def test_every_sentence_is_plain_text():
    for upto in (1, 300, STEPS):
        for said in judge(REFERENCE, history(falling, falling, upto=upto), finished=upto == STEPS).sentences:
            assert not set(said) & set("\n\t")
            assert said[-1] in string.punctuation
