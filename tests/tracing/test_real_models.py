"""Real weights, asked why: a language model, and a BERT through `transformers`."""

import json

import pytest
import torch

import pellucid as pl
from conftest import CACHE

pytestmark = pytest.mark.slow
MINILM = CACHE / "minilm"


@pytest.fixture(scope="module")
def smollm():
    if not (CACHE / "smollm2-135m.gguf").exists():
        pytest.skip("run `python tests/fetch.py` first, as `make test-all` does")
    return pl.open(CACHE / "smollm2-135m.gguf")


def test_why_paris(smollm):
    trace = smollm.trace("The capital of France is")
    assert trace.candidates(1)[0].shown == "␣Paris"
    flow = trace.flow(next_token=" Paris", rather_than=" the")
    assert flow.residue == pytest.approx(0, abs=1e-5 * sum(abs(x) for x in flow.tokens.tolist()))
    assert trace.tokens[flow.tokens.argmax()] == "␣France"
    assert len(flow.layers) == 30
    for layer in flow.layers:
        parts = sum(group.amount for group in layer.groups) + layer.past + layer.constant + layer.later
        assert parts == pytest.approx(flow.value, abs=2e-4)


def test_a_logit_opens_down_to_an_embedding_row(smollm):
    """Always the largest term: through 30 layers, and every sum on the way is checked by the answer itself."""
    answer = smollm.trace("The capital of France is").why('logit(" Paris")')
    for _depth in range(300):
        assert answer.kind in ("sum", "leaf"), answer
        if answer.kind == "leaf":
            break
        answer = answer.terms[0].why()
    assert answer.address.startswith("embedding.weight[")


def test_minilm_through_transformers():
    if not MINILM.exists():
        pytest.skip("run `python tests/fetch.py` first, as `make test-all` does")
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(MINILM)
    model = transformers.BertModel.from_pretrained(MINILM).eval()
    assert json.loads((MINILM / "config.json").read_text())["num_hidden_layers"] == 6
    inputs = tokenizer("A cat sits on the mat.", return_tensors="pt")
    trace = pl.trace(model, **inputs)
    with torch.no_grad():
        assert torch.equal(trace.value("encoder"), model(**inputs).last_hidden_state)
    for dimension in (0, 100, 383):
        address = f"encoder[0,2,{dimension}]"
        answer = trace.why(address)
        assert answer.kind == "sum"
        assert abs(answer.residue) <= 1e-6 * (answer.cancellation + 1) * abs(answer.value)
        flow = trace.flow(address)
        contributions = flow.tokens.sum().item() + sum(flow.constants.values()) + sum(flow.stopped.values())
        assert contributions == pytest.approx(flow.value, abs=2e-5)
        assert len(flow.layers) == 6
        for layer in flow.layers:
            parts = sum(group.amount for group in layer.groups) + layer.past + layer.constant + layer.later
            assert parts == pytest.approx(flow.value, abs=5e-5)
            assert any(group.heads is not None and group.heads.shape == (12, 9) for group in layer.groups)
