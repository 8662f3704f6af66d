"""The table of hardware is complete and plausible, and this machine is measured."""

import datetime
import os
import subprocess
import sys
from dataclasses import FrozenInstanceError

import pytest

from pellucid import PellucidError
from pellucid.anatomy.cost import devices

FORMATS = {"fp32", "tf32", "fp16", "bf16", "fp8", "int8"}


@pytest.mark.parametrize("device", devices.table().values(), ids=list(devices.table()))
def test_every_device_says_what_is_needed_and_where_it_is_from(device):
    assert device.title
    assert device.source
    assert set(device.peak) <= FORMATS
    assert all(1e12 < peak < 1e16 for peak in device.peak.values())
    assert 1e11 < device.bandwidth < 1e13
    assert isinstance(device.memory, int)
    assert 10e9 < device.memory < 300e9
    assert 50 < device.power <= 1200
    if device.price is None:
        assert not device.price_date
        assert not device.price_source
    else:
        assert 0.1 < device.price < 10
        assert device.price_source
        assert datetime.date(2024, 1, 1) < datetime.date.fromisoformat(device.price_date) < datetime.date.today()


@pytest.mark.parametrize("device", devices.table().values(), ids=list(devices.table()))
def test_peaks_are_dense(device):
    """On tensor cores half the bits are twice the rate: a figure "with sparsity" among dense ones would stand out."""
    ratios = {("int8", "bf16"): (1, 4), ("fp8", "bf16"): (2, 2), ("bf16", "fp16"): (1, 1), ("bf16", "tf32"): (2, 2.05)}
    for (fast, slow), (least, most) in ratios.items():
        if fast in device.peak and slow in device.peak:
            assert 0.97 * least <= device.peak[fast] / device.peak[slow] <= 1.03 * most


def test_known_figures():
    assert len(devices.table()) >= 14
    assert devices.find("a100-80gb").peak["bf16"] == 312e12
    assert devices.find("h100-sxm").peak["bf16"] == pytest.approx(1979e12 / 2, rel=1e-3)  # printed with sparsity
    assert devices.find("tpu-v4").memory == 32 * 2**30
    assert devices.find("h800").price is None


def test_names_are_found_as_people_type_them():
    assert devices.find(" A100 80GB") is devices.find("a100_80gb")
    with pytest.raises(PellucidError, match="'h100'") as caught:
        devices.find("h100")
    assert "h100-sxm" in caught.value.fix
    assert "h100-pcie" in caught.value.fix
    with pytest.raises(PellucidError) as caught:
        devices.find("abacus!")
    assert "a100-80gb" in caught.value.fix
    assert "this-machine" in caught.value.fix


def test_the_fastest_format_of_trainings_is_chosen():
    assert devices.find("v100-16gb").rate() == ("fp16", 125e12)
    assert devices.find("h100-sxm").rate() == ("bf16", 989.4e12)
    assert devices.find("h100-sxm").rate("fp8") == ("fp8", 1978.9e12)
    with pytest.raises(PellucidError, match="No peak is known of NVIDIA V100") as caught:
        devices.find("v100-16gb").rate("bf16")
    assert "fp32, fp16" in caught.value.fix


def test_this_machine_is_measured():
    here = devices.find("this-machine")
    assert set(here.peak) == {"fp32", "bf16"}
    assert all(1e8 < peak < 1e16 for peak in here.peak.values())
    assert 1e8 < here.bandwidth < 1e13
    assert here.power is None
    assert here.price is None
    with pytest.raises(FrozenInstanceError):
        here.memory = 1


def test_the_cpu_has_the_memory_that_is_left(monkeypatch):
    assert 0 < devices.available_memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    monkeypatch.setattr(devices, "available_memory", lambda: 12_345)
    assert devices.this_machine("cpu").memory == 12_345
    assert not devices.this_machine("cpu").has_cuda
    monkeypatch.setattr(devices, "available_memory", lambda: None)
    with pytest.raises(PellucidError, match="does not tell"):
        devices.this_machine("cpu")


def test_costs_are_computed_without_torch():
    code = (
        "import sys; from pellucid.anatomy.cost import devices, generating, optimal, training; "
        "training.training_cost(1e20, devices.find('l4')); sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
