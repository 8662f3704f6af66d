"""The self-check of a device, and a plan that must fit into memory."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pellucid import PellucidError
from pellucid.training import machine
from pellucid.training.options import TrainOptions


class Doubtful(nn.Module):
    """A network whose second answer is off by a factor, as on a faulty device."""

    def __init__(self, factor):
        super().__init__()
        self.factors = [1.0, factor]

    def forward(self, x):
        return x * self.factors.pop(0)


task = SimpleNamespace(loss=lambda network, batch: ((network(batch) ** 2).sum(), batch.numel()))


def test_a_device_that_computes_alike_passes():
    assert machine.check_device(task, Doubtful(1.00001), torch.arange(8.0), "cpu") < 1e-4


@pytest.mark.parametrize("factor", [1.01, 0.0, float("nan")])
def test_a_device_that_computes_otherwise_is_refused(factor):
    with pytest.raises(PellucidError, match="something else than the CPU") as caught:
        machine.check_device(task, Doubtful(factor), torch.arange(8.0), "cpu")
    assert "--device cpu" in caught.value.fix


def plan(batch, accumulation):
    network = {"d_model": 64, "n_layers": 2, "context": 32}
    return SimpleNamespace(
        device="cpu",
        batch=batch,
        accumulation=accumulation,
        items=32,
        network=network,
        parameters=1000,
        recompute=False,
        reasons={},
        forecast={},
    )


def test_micro_batches_shrink_until_they_fit_and_the_step_keeps_its_size(monkeypatch):
    monkeypatch.setattr(machine, "available_memory", lambda: 1000)
    monkeypatch.setattr(machine, "taken", lambda: 700)
    needs = SimpleNamespace(memory=lambda plan: 100 * plan.batch)
    fitted = plan(40, 1)
    machine.fit_memory(needs, fitted)
    assert fitted.forecast["memory_bytes"] <= 900
    assert fitted.batch * fitted.accumulation >= 40
    machine.fit_memory(SimpleNamespace(memory=lambda plan: 500), fitted)
    assert fitted.forecast["memory_bytes"] == 700  # what reading the data took is taken
    assert "fit into" in fitted.reasons["batch"]
    with pytest.raises(PellucidError, match="of memory"):
        machine.fit_memory(SimpleNamespace(memory=lambda plan: 10_000, unit="tokens"), plan(8, 1))


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PellucidError, match="no device"):
        machine.machine_of(TrainOptions(device="cuda"))
    with pytest.raises(PellucidError, match="no device"):
        machine.machine_of(TrainOptions(device="abacus"))
