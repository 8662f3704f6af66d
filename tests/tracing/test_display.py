"""Answers and flows for readers: in the terminal, and as plain data that keeps its schema."""

import json
import types
import typing
from dataclasses import replace
from typing import Any, Literal, get_args, get_origin, get_type_hints, is_typeddict

import pytest
import torch
from rich.cells import cell_len
from torch import nn

import pellucid as pl
from pellucid.language_model import LanguageModel
from pellucid.tracing import display, plain
from pellucid.tracing.asking import TokenByToken
from pellucid.tracing.layers import Layer
from tracing.zoo import byte_model

PROMPT = "春眠不覺曉，處處聞啼鳥。 The capital of France is"


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return byte_model("gpt2", 2, 128)


@pytest.fixture(scope="module")
def answer(model: LanguageModel):
    return model.why(PROMPT, next_token="a", rather_than="b")


def test_it_fits_eighty_columns_of_any_script(answer):
    text = str(answer)
    assert text.startswith("why a rather than b")
    assert max(map(cell_len, text.splitlines())) <= 80
    narrow = display.as_text(answer, width=60)
    assert max(map(cell_len, narrow.splitlines())) <= 60


def test_what_is_seen_first_adds_up(answer):
    """Flow before terms; layers beside what goes past them; constants; the equation."""
    text = str(answer)
    order = [
        "what each token contributes",
        "the layers",
        "past this layer",
        "the heads",
        "\nconstants",
        "Σ =",
        "single terms",
    ]
    places = [text.index(heading) for heading in order]
    assert places == sorted(places)
    flow = answer.context.flow()
    for layer in flow.layers:
        parts = sum(part.amount for part in layer.groups)
        assert parts + layer.past + layer.constant + layer.later + layer.residue == pytest.approx(
            answer.value, abs=1e-5
        )
    assert "cancellation" in text
    assert "convention: values" in text


def test_each_row_of_a_layer_is_the_number_of_the_flow(answer):
    flow = answer.context.flow()
    kinds = display.columns(flow)
    assert kinds == ["attention", "feed-forward"]
    first = next(line for line in str(answer).splitlines() if line.strip().startswith("0 "))
    for kind in kinds:
        assert display.signed(display.of_kind(flow.layers[0], kind, kinds)) in first


def test_layers_are_called_by_what_tells_them_apart(answer):
    def names(*paths: str) -> list[str]:
        layers = tuple(Layer(path, (), 0.0, 0.0, 0.0, 0.0) for path in paths)
        return list(display.layer_names(replace(answer.context.flow(), layers=layers)).values())

    assert names("model.layers.0", "model.layers.1") == ["0", "1"]
    assert names("encoder.block.0.layer.1", "decoder.block.0.layer.2") == ["encoder.1", "decoder.2"]
    assert names("h.3") == ["3"]
    assert names("stem.0", "body.stage.1") == ["stem.0", "body.stage.1"]
    assert names() == []


@pytest.mark.parametrize(("amount", "shown"), [
    (1.0, "    │████"), (-1.0, "████│    "), (0.5, "    │██  "), (-0.5, "  ██│    "), (-1e-9, "   ▕│    "),
    (0.0, "    │    "), (float("nan"), "    │    "),
])  # fmt: skip
def test_bars_have_a_side(amount, shown):
    assert display.bar(amount, 1.0).plain == shown or (amount != amount and len(display.bar(amount, 1.0).plain) == 9)


def test_colours_do_not_touch_what_is_written(answer):
    coloured = display.coloured([("一", 1.0), ("二", -1.0), ("三", 0.0)])
    assert coloured.plain.startswith("一二三")
    styles = [str(span.style) for span in coloured.spans[:3]]
    assert styles == [display.FOR[2], display.AGAINST[2], "dim"]


def test_terms_open_one_by_one(answer):
    path = plain.steps("2.1")
    data = plain.answer_dict(answer, 3, path)
    by_hand = answer.terms[1].why().terms[0].why()
    inner = data["terms"][1]["opened"]["terms"][0]["opened"]
    assert inner == plain.answer_dict(by_hand, 3)
    beyond = plain.answer_dict(answer, 3, plain.steps("9"))
    assert [term["number"] for term in beyond["terms"]] == [1, 2, 3, 9]
    listed = sum(term["contribution"] for term in beyond["terms"]) + beyond["other_terms"]["contribution"]
    assert listed == pytest.approx(answer.terms.contributions.sum().item(), abs=1e-12)
    assert beyond["other_terms"]["count"] == len(answer.terms) - 4


@pytest.mark.parametrize("path", ["", "0", "1.", "a", "1.0", "1..2", "-1", "1c2", "²"])
def test_a_path_that_is_none_is_refused(path):
    with pytest.raises(pl.PellucidError, match="no path"):
        plain.steps(path)


def test_a_term_that_does_not_exist_is_refused(answer):
    with pytest.raises(pl.PellucidError, match="no term 99999"):
        plain.answer_dict(answer, 3, plain.steps("99999"))
    leaf = pl.trace(nn.Linear(2, 1), torch.ones(2)).why(":out[0]")
    with pytest.raises(pl.PellucidError, match="no term 1"):
        display.rendered(leaf, 8, plain.steps("1.1.1"))


# ---- plain data


def test_the_data_keep_their_schema(model, answer):
    perceptron = pl.trace(nn.Sequential(nn.Linear(3, 2), nn.Softmax(-1)), torch.ones(3))
    probability = perceptron.why(":out[0]")
    for shown in (answer, answer.terms[0].why(), probability):
        hold(shown.to_dict(), plain.AnswerDict)
    hold(answer.context.flow().to_dict(), plain.FlowDict)
    hold(perceptron.flow("0[1]").to_dict(), plain.FlowDict)
    several = model.why("x", next_token="abc")
    hold(several.to_dict(), plain.SpelledDict)
    hold(plain.report(answer, PROMPT, 4, plain.steps("1.1")), plain.ReportDict)
    with pytest.raises(AssertionError, match="contribution"):
        hold(answer.to_dict() | {"other_terms": {"count": 1}}, plain.AnswerDict)  # the check itself can fail


def test_sums_of_the_data_are_the_value(answer):
    data = answer.to_dict(5)
    parts = [*data["terms"], *data["constants"], data["other_terms"]]
    assert sum(part["contribution"] for part in parts) + data["residue"] == pytest.approx(data["value"], abs=1e-12)
    flow = answer.context.flow().to_dict()
    named = [*flow["tokens"], *flow["inputs"], *flow["constants"], *flow["stopped"]]
    assert sum(part["contribution"] for part in named) + flow["residue"] == pytest.approx(flow["value"], abs=1e-6)


def test_numbers_that_json_does_not_know_are_null():
    trace = pl.trace(nn.Linear(1, 1), torch.tensor([float("inf")]))
    text = json.dumps(trace.why(":out[0]").to_dict(), allow_nan=False)
    assert '"value": null' in text


def hold(data: Any, kind: Any, where: str = "") -> None:
    """Whether plain data are what a TypedDict says, to the last key."""
    if is_typeddict(kind):
        hints = get_type_hints(kind)
        assert isinstance(data, dict), where
        assert data.keys() == hints.keys(), f"{where}: {sorted(data.keys() ^ hints.keys())}"
        for name, inner in hints.items():
            hold(data[name], inner, f"{where}.{name}")
    elif get_origin(kind) is list:
        assert isinstance(data, list), where
        for n, item in enumerate(data):
            hold(item, get_args(kind)[0], f"{where}[{n}]")
    elif get_origin(kind) in (types.UnionType, typing.Union):
        choices = [choice for choice in get_args(kind) if choice is not type(None)]
        if data is not None:
            hold(data, choices[0], where)
        else:
            assert type(None) in get_args(kind), where
    elif get_origin(kind) is Literal:
        assert data in get_args(kind), where
    else:
        assert isinstance(data, (float, int) if kind is float else kind), f"{where}: {data!r} is no {kind}"


# ---- what is asked by strings


def test_a_string_of_several_tokens_is_asked_token_by_token(model):
    several = model.why("春", next_token="abc", rather_than="abd")
    assert isinstance(several, TokenByToken)
    assert [answer.context.asked[0].shown for answer in several.answers] == ["a", "b", "c"]
    assert several.answers[2].context.asked[1].shown == "d"  # compared where they begin to differ
    expected = 1.0
    for n in range(3):
        trace = model.trace("春" + "abc"[:n])
        expected *= trace.candidate(trace.token("abc"[n])).probability
        alone = trace.why(next_token="abc"[n], rather_than="d" if n == 2 else None)
        assert several.answers[n].value == pytest.approx(alone.value, abs=1e-5)
    assert several.probability == pytest.approx(expected, rel=1e-5)
    assert "3 tokens" in str(several)
    assert "product" in str(several)


def test_a_probability_is_no_sum_and_the_exact_question_is_offered(model):
    answer = model.why("x", next_token="a", about="probability")
    assert (answer.kind, len(answer.terms)) == ("not a sum", 0)
    trace = model.trace("x")
    assert answer.value == trace.candidate(trace.token("a")).probability
    assert "not a sum" in str(answer)
    assert "log-probability" in str(answer)
    exact = model.why("x", next_token="a", about="log-probability")
    assert exact.total == pytest.approx(torch.tensor(answer.value).log().item(), abs=1e-5)


@pytest.mark.parametrize(("asked", "message"), [
    ({"prompt": ""}, "empty"), ({"next_token": 99_999}, "no token 99999"), ({"next_token": -1}, "no token -1"),
    ({"next_token": ""}, "cannot spell"), ({"next_token": "a", "rather_than": "a"}, "same"),
    ({"convention": "whim"}, "whim"), ({"prompt": "x" * 129}, "129 tokens"), ({"about": "blocks.7"}, "nothing at this"),
    ({"next_token": "ab", "rather_than": "ab"}, "same"),
])  # fmt: skip
def test_what_cannot_be_asked_is_said(model, asked, message):
    with pytest.raises(pl.PellucidError, match=message):
        model.why(**{"prompt": "x"} | asked)


def test_other_questions(model):
    assert model.why("abc", about="loss").value == pytest.approx(-sum_of_log_probabilities(model, "abc") / 2, abs=1e-5)
    number = model.why("abc", about="blocks.0.attention[0,-1,3]")
    assert number.value == model.trace("abc").value("blocks.0.attention")[0, -1, 3].item()
    assert model.why("abc", next_token="q", about="logit").value == model.trace("abc").why(
        model.trace("abc").logit("q")
    ).value  # fmt: skip


def sum_of_log_probabilities(model: LanguageModel, text: str) -> float:
    ids = torch.tensor([model.tokenizer.encode(text)])
    log_p = model.network(ids).log_softmax(-1)[0]
    return sum(log_p[n, id].item() for n, id in enumerate(ids[0, 1:]))


def test_modules_of_others_are_shown_as_well():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    answer = pl.trace(net, torch.ones(3)).why(":out[0]")
    assert "inputs" in str(answer)
    assert display.signed(answer.context.flow().inputs[":in.0"].sum().item()) in str(answer)
    assert max(map(cell_len, str(answer).splitlines())) <= 80
    assert repr(answer).startswith("<:out[0] = ")
    assert "layers" in repr(answer.context.flow())


def test_a_decision_names_both_sides():
    class Above(nn.Module):
        def forward(self, x):
            return (x.sum() > 8).float()

    text = str(pl.trace(Above(), torch.tensor([8.0, 4.0])).why(":out[]"))
    assert "12 | 8" in text
    assert "margin is 4" in text
