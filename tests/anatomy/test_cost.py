"""Costs against what was published of trainings, and the laws that hold between them."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid import PellucidError
from pellucid.anatomy.cost.assumptions import SPREAD, UTILISATION
from pellucid.anatomy.cost.devices import find, table
from pellucid.anatomy.cost.training import from_device_hours, implied_utilisation, training_cost

A100, H100 = find("a100-80gb"), find("h100-sxm")

# parameters (of DeepSeek-V3 those active for a token), tokens, device, device-hours, utilisation in percent by 6ND.
# Touvron et al. 2023 (LLaMA, table 15; Llama 2, table 2), Llama 3 and 3.1 model cards, DeepSeek-AI 2024, Zhang et al.
# 2024 (TinyLlama: hours for 300 B tokens), Biderman et al. 2023 (Pythia).
PUBLISHED = {
    "llama-7b": (6_738_415_616, 1.0e12, "a100-80gb", 82_432, 44),
    "llama-13b": (13_015_864_320, 1.0e12, "a100-80gb", 135_168, 51),
    "llama-33b": (32_528_943_616, 1.4e12, "a100-80gb", 530_432, 46),
    "llama-65b": (65_285_660_672, 1.4e12, "a100-80gb", 1_022_362, 48),
    "llama-2-7b": (6_738_415_616, 2e12, "a100-80gb", 184_320, 39),
    "llama-2-13b": (13_015_864_320, 2e12, "a100-80gb", 368_640, 38),
    "llama-2-70b": (68_976_648_192, 2e12, "a100-80gb", 1_720_320, 43),
    "llama-3-8b": (8_030_261_248, 15e12, "h100-sxm", 1.3e6, 16),
    "llama-3-70b": (70_553_706_496, 15e12, "h100-sxm", 6.4e6, 28),
    "llama-3.1-405b": (405_853_388_800, 15.6e12, "h100-sxm", 30.84e6, 35),
    "deepseek-v3": (37e9, 14.8e12, "h800", 2.664e6, 35),
    "tinyllama": (1_100_048_384, 300e9, "a100-40gb", 3_456, 51),
    "pythia-1b": (1_011_781_632, 300e9, "a100-40gb", 4_830, 34),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_trainings_forth_and_back(name):
    parameters, tokens, device, hours, percent = PUBLISHED[name]
    flops = 6 * parameters * tokens
    assert round(100 * implied_utilisation(flops, hours, find(device))) == percent
    foretold = training_cost(flops, find(device), utilisation=percent / 100).device_hours
    assert foretold == pytest.approx(hours, rel=0.03)


def test_the_utilisation_that_is_assumed_is_their_median():
    shares = [
        implied_utilisation(6 * parameters * tokens, hours, find(device))
        for parameters, tokens, device, hours, _percent in PUBLISHED.values()
    ]
    assert statistics.median(shares) == pytest.approx(UTILISATION, abs=0.005)
    assert (round(min(shares), 2), round(max(shares), 2)) == SPREAD
    line = training_cost(1e20, A100).reasons["utilisation"]
    assert "39.0%" in line
    assert "assumed" in line
    assert "16% to 51%" in line
    assert "as given" in training_cost(1e20, A100, utilisation=0.5).reasons["utilisation"]


def test_llama_2_70b():
    cost = from_device_hours(1_720_320, 6000, 1.16, device=A100)
    assert cost.days == pytest.approx(11.95, abs=0.005)
    assert cost.money == pytest.approx(2e6, rel=0.003)
    assert from_device_hours(1_720_320, 6000, 2).money == 3_440_640
    assert cost.reasons["hours"].endswith("1,720,320 / 6,000 = 286.7 (11.95 days)")
    assert cost.reasons["money"].endswith("1,720,320 × 1.16 $ = 1,995,571 $")
    assert cost.explain() == list(cost.reasons.values())


def test_deepseek_v3_money():
    assert from_device_hours(2_788_000, 2048, 2).money == 5_576_000


@pytest.mark.parametrize(
    ("hours", "megawatt_hours"), [(82_432, 36), (135_168, 59), (530_432, 233), (1_022_362, 449)]
)  # Touvron et al. 2023, table 15: 400 W, PUE 1.1
def test_energy_of_llama(hours, megawatt_hours):
    assert int(from_device_hours(hours, device=A100).energy_kwh / 1000) == megawatt_hours


def test_gpt_3_on_any_device():
    flops = 6 * 174_604_259_328 * 300e9
    assert flops == pytest.approx(3.14e23, rel=0.002)  # Brown et al. 2020, table D.1
    for device in table().values():
        cost = training_cost(flops, device, devices=1024)
        assert cost.hours == cost.device_hours / 1024
        assert (cost.money is None) == (device.price is None)


def test_every_number_says_what_it_rests_on():
    cost = training_cost(8.277e23, A100, 6000, utilisation=0.43, source="6 x 68,976,648,192 x 2e12")
    assert "3.12e+14" in cost.reasons["peak"]
    assert "NVIDIA A100 datasheet" in cost.reasons["peak"]
    assert "lambda.ai" in cost.reasons["price"]
    assert A100.price_date in cost.reasons["price"]
    assert cost.reasons["device_hours"].endswith("(6 x 68,976,648,192 x 2e12)")
    assert "400 W" in cost.reasons["power"]
    assert "× 1.1" in cost.reasons["energy_kwh"]
    rumoured = from_device_hours(25_000 * 95 * 24, 25_000, 1, source="rumour")
    assert "rumour" in rumoured.reasons["device_hours"]


def test_what_is_not_known_is_not_computed():
    cost = training_cost(1e20, find("h800"))
    assert cost.money is None
    assert "none is known" in cost.reasons["price"]
    assert "money" not in cost.reasons
    bare = from_device_hours(100)
    assert bare.money is None
    assert bare.energy_kwh is None
    assert "no energy" in bare.reasons["power"]


flops = st.floats(1e6, 1e30)
shares = st.floats(1e-3, 1)
names = st.sampled_from(sorted(table()))


@given(names, flops, shares, st.integers(1, 100_000), st.floats(0.01, 100))
def test_costs_are_proportional(name, flops, share, devices, price):
    device = find(name)
    one = training_cost(flops, device, utilisation=share, price=price, power=100)
    many = training_cost(3 * flops, device, devices, utilisation=share, price=2 * price, power=300, pue=1.65)
    assert many.device_hours == pytest.approx(3 * one.device_hours)
    assert many.hours * devices == pytest.approx(3 * one.hours)
    assert many.money == pytest.approx(6 * one.money)
    assert many.energy_kwh == pytest.approx(13.5 * one.energy_kwh)
    assert implied_utilisation(flops, one.device_hours, device) == pytest.approx(share)


@pytest.mark.parametrize(
    ("where", "wrong"),
    [
        ("flops", {"flops": 0}),
        ("flops", {"flops": float("nan")}),
        ("flops", {"flops": float("inf")}),
        ("devices", {"devices": 0}),
        ("devices", {"devices": -1}),
        ("utilisation", {"utilisation": 1.01}),
        ("utilisation", {"utilisation": 0}),
        ("utilisation", {"utilisation": float("nan")}),
        ("price", {"price": -1}),
        ("power", {"power": float("inf")}),
        ("pue", {"pue": 0.9}),
        ("precision", {"precision": "fp4"}),
    ],
)
def test_impossible_numbers_are_refused(where, wrong):
    with pytest.raises(PellucidError) as caught:
        training_cost(**{"flops": 1e20, "device": A100} | wrong)
    assert caught.value.where == where
    assert caught.value.fix


@pytest.mark.parametrize("hours", [0, -1, float("nan")])
def test_impossible_hours_are_refused(hours):
    with pytest.raises(PellucidError, match="device_hours"):
        from_device_hours(hours)
    with pytest.raises(PellucidError, match="device_hours"):
        implied_utilisation(1e20, hours, H100)
