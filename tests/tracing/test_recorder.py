"""Recording changes nothing, misses nothing silently, and ends cleanly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import pellucid as pl
from pellucid.tracing.recorder import UNDECLARED
from tracing.witness import Witness
from tracing.zoo import ZOO, Case, make

OPAQUE = {"recurrent", "nn.Transformer", "nn.TransformerEncoder"}  # run in a visible form


def tensors(x: Any) -> Iterator[Tensor]:
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, dict):
        yield from tensors(list(x.values()))
    elif isinstance(x, (list, tuple)):
        for y in x:
            yield from tensors(y)


def state(case: Case) -> list[Tensor]:
    return [x.detach().clone() for x in (*case.net.parameters(), *case.net.buffers())]


@pytest.mark.parametrize("name", ZOO)
def test_results_and_state_are_the_same_to_the_last_bit(name: str) -> None:
    plain, recorded = make(name), make(name)
    torch.manual_seed(5)
    with torch.no_grad():
        expected = list(tensors(plain()))
    drawn = torch.get_rng_state()
    torch.manual_seed(5)
    with torch.no_grad(), pl.record(recorded.net) as trace:
        seen = list(tensors(recorded()))
    assert torch.equal(drawn, torch.get_rng_state())
    exact = 0.0 if name not in OPAQUE else 1e-5
    assert len(seen) == len(expected)
    for a, b in zip([*seen, *state(recorded)], [*expected, *state(plain)], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=exact, equal_nan=True)
    assert bool(trace.tape.switched) == (name in OPAQUE)


@pytest.mark.parametrize("name", sorted(OPAQUE))
def test_a_visible_form_is_said_with_the_difference_it_makes(name: str) -> None:
    case = make(name)
    trace = pl.trace(case.net, *case.args)
    assert trace.notes
    assert all("visible form" in note for note in trace.notes)
    assert max(trace.tape.switched.values()) < 1e-5
    names = {call.name for call in trace.tape.calls}
    assert not names & {"mkldnn_rnn_layer", "_transformer_encoder_layer_fwd", "_native_multi_head_attention"}


def test_the_difference_is_measured_with_the_numbers_that_dropout_drew() -> None:
    net = nn.LSTM(5, 6, num_layers=3, dropout=0.5)
    torch.manual_seed(0)
    trace = pl.trace(net, torch.randn(4, 2, 5))
    assert 0 <= trace.tape.switched[""] < 1e-5


def test_asking_changes_no_weight_no_buffer_and_no_generator() -> None:
    for name in ("sequence", "resnet, training", "strange", "recurrent"):
        case = make(name)
        with torch.no_grad(), pl.record(case.net) as trace:
            case()
        before, drawn = state(case), torch.get_rng_state()
        addresses = [a for a in trace.addresses.all() if "empty" not in a]
        for address in [f"{a}[{','.join('0' * len(trace.find(a).place.shape))}]" for a in addresses]:
            if trace.find(address).place.dtype.is_floating_point:
                trace.why(address)
                trace.flow(address)
        assert torch.equal(drawn, torch.get_rng_state())
        assert all(map(torch.equal, before, state(case)))


def test_writing_is_the_same_and_its_tokens_reach_the_prompt() -> None:
    case = make("qwen3, ours, writing")
    trace = pl.trace(case.net, *case.args)
    last = trace.tape.scopes[0].outputs[0]
    flow = trace.flow(f":out[0,0,{int(trace.value(':out').argmax())}]")
    assert last.shape == (1, 1, 50)
    assert flow.tokens is not None
    assert flow.tokens.shape == (26,)  # seven of the prompt, nineteen written
    assert (flow.tokens[:7] != 0).all()


def test_sampling_with_transformers_is_the_same_under_record() -> None:
    case = make("gpt2")
    written = []
    for record in (False, True):
        torch.manual_seed(3)
        with pl.record(case.net) if record else nullcontext() as trace:
            written.append(case.net.generate(*case.args, max_new_tokens=20, min_new_tokens=20, do_sample=True))
    assert torch.equal(*written)
    assert trace is not None
    flow = trace.flow("lm_head[0,0,7]")
    assert flow.tokens is not None
    assert flow.tokens.shape == (26,)
    assert (flow.tokens[:7] != 0).all()
    assert {len(layer.groups) for layer in flow.layers} == {2}


def test_complex_numbers_are_no_sum_and_said_to_be_so() -> None:
    class Turn(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.view_as_real(torch.view_as_complex(x) * torch.tensor(1j)).sum()

    trace = pl.trace(Turn(), torch.ones(3, 2))
    answer = trace.why(":out[]")
    assert answer.kind == "sum"
    assert answer.terms[0].why().kind == "unexplained"


@pytest.mark.parametrize("name", [name for name in ZOO if "writing" not in name])
def test_no_operation_writes_without_saying_so(name: str) -> None:
    """In training mode, with a backward pass; what is known to do so is listed in the recorder."""
    case = make(name)
    case.net.train()
    with pl.record(case.net) as trace, Witness(trace.tape) as witness:
        out = [x for x in tensors(case()) if x.requires_grad]
        if out:
            sum(x.float().sum() for x in out).backward()  # type: ignore[union-attr]
    guilty = {seen.op._schema.name for seen in witness.all if seen.undeclared()}
    assert guilty <= set(UNDECLARED)
    if name == "resnet":
        assert guilty == {"aten::native_batch_norm"}  # the test can see one


def test_a_budget_is_kept_and_says_what_would_fit() -> None:
    case = make("gpt2, ours")
    with pytest.raises(pl.PellucidError, match=r"(?s)0 MB.*budget="):
        pl.trace(case.net, *case.args, budget=2_000)
    assert pl.trace(case.net, *case.args, budget=10_000_000).tape.kept_bytes < 10_000_000
    assert_clean(case.net)


class Failing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.weak = nn.Linear(3, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.weak(self.inner(x))


def assert_clean(net: nn.Module) -> None:
    for module in net.modules():
        assert not module._forward_pre_hooks
        assert not module._forward_hooks
        assert not module._forward_hooks_always_called
    assert not torch.utils._python_dispatch._get_current_dispatch_mode_stack()
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.mkldnn.enabled


def test_a_module_that_fails_inside_passes_its_error_and_leaves_nothing_behind() -> None:
    net, x = Failing(), torch.ones(2, 3)
    with pytest.raises(RuntimeError, match="mat1 and mat2"), pl.record(net) as trace:
        net(x)
    assert_clean(net)
    assert trace.why("inner[0,0]").kind == "sum"  # up to there it is recorded
    with pl.record(net) as trace:
        with pytest.raises(RuntimeError):
            net(x)
        net.inner(x)
    assert [scope.path for scope in trace.tape.scopes] == ["", "inner", "weak", "inner"]
    assert trace.tape.scopes[3].parent is None
    assert trace.why("inner[1,2]").kind == "sum"


def test_a_failing_lstm_is_left_as_it_was() -> None:
    net = nn.LSTM(3, 4)
    with pytest.raises((RuntimeError, ValueError)):
        pl.trace(net, torch.ones(2, 5))
    assert_clean(net)


def test_weights_changed_after_the_recording_are_noticed() -> None:
    net = nn.Linear(3, 2)
    trace = pl.trace(net, torch.ones(1, 3))
    with torch.no_grad():
        net.weight.mul_(2)
    with pytest.raises(pl.PellucidError, match=r"weight was changed after the recording"):
        trace.why(":out[0,0]")


def test_data_swapped_between_calls_keeps_each_calls_values() -> None:
    net, x = nn.Linear(2, 1, bias=False), torch.tensor([[1.0, 10.0]])
    with torch.no_grad(), pl.record(net) as trace:
        net.weight.data = torch.tensor([[1.0, 2.0]])
        net(x)
        net.weight.data = torch.tensor([[3.0, 4.0]])
        net(x)
    assert [trace.why(f"#{n}:out[0,0]").value for n in (0, 1)] == [21.0, 43.0]
    for n in (0, 1):
        answer = trace.why(f"#{n}:out[0,0]")
        assert answer.total == answer.value
    assert trace.why("#1:out[0,0]").terms[0].factor == "weight[0,1]"
    net.weight.data = torch.zeros(1, 2)
    assert trace.why("#1:out[0,0]").value == 43.0


def test_a_compiled_module_runs_as_it_is_written_and_is_seen() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2))
    compiled = torch.compile(net, backend="eager")
    assert isinstance(compiled, nn.Module)
    trace = pl.trace(compiled, torch.ones(1, 3))
    assert [call.name for call in trace.tape.calls] == ["addmm", "gelu", "addmm"]
    assert trace.why(":out[0,0]").kind == "sum"


def test_a_scripted_module_is_a_leaf_with_a_name() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scripted = torch.jit.script(nn.Linear(3, 3))
            self.head = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.scripted(x))

    trace = pl.trace(Mixed(), torch.ones(1, 3))
    answer = trace.why("head[0,0]")
    assert answer.kind == "sum"
    assert answer.terms[0].why().kind in ("sum", "leaf")


def test_an_int8_module_is_a_leaf_with_the_reason() -> None:
    net = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), {nn.Linear})
    trace = pl.trace(net, torch.ones(1, 3))
    answer = trace.why("0[0,0]")
    assert answer.kind in ("unexplained", "leaf")
    assert "linear_dynamic" in answer.operation or "does not see" in answer.operation
    assert answer.value == trace.value("0")[0, 0].item()


def test_what_went_through_numpy_is_a_leaf_with_the_reason() -> None:
    class Away(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.from_numpy((x * 2).numpy() + 1)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.away, self.head = Away(), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.away(x))

    trace = pl.trace(Outer(), torch.ones(1, 3))
    leaf = trace.why("head[0,0]").terms[0].why()
    assert (leaf.kind, leaf.operation) == ("leaf", "made where the tape does not see it")
    assert leaf.address.startswith("away:out")


def test_inference_mode_is_taken_apart() -> None:
    case = make("gpt2, ours")
    with torch.inference_mode(), pl.record(case.net) as trace:
        case()
    assert not {"linear", "layer_norm", "scaled_dot_product_attention"} & {call.name for call in trace.tape.calls}
    answer = trace.why("head[0,6,3]")
    assert answer.kind == "sum"
    assert abs(answer.residue) <= 1e-6 * answer.terms.contributions.abs().sum()


def test_two_recordings_can_be_one_inside_the_other() -> None:
    net, x = nn.Linear(2, 2), torch.ones(1, 2)
    with torch.no_grad(), pl.record(net) as outer:
        net(x)
        with pl.record(net) as inner:
            net(x)
    assert len(inner.tape.calls) == 1
    assert outer.why("#0:out[0,1]").kind == inner.why(":out[0,1]").kind == "sum"
