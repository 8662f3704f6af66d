"""Time, money and energy of a training; each number comes with its formula, filled in.

device-hours = FLOPs / (peak x utilisation x 3600 s)        hours = device-hours / devices
money = device-hours x price an hour                        energy = device-hours x power x PUE
"""

from dataclasses import dataclass, replace

from pellucid.anatomy.arguments import positive
from pellucid.anatomy.cost.assumptions import PUE, figure, powered, priced, reached
from pellucid.anatomy.cost.devices import Device
from pellucid.language import _


@dataclass(frozen=True)
class Cost:
    device_hours: float
    hours: float  # on the clock, all devices at work
    money: float | None  # $; None where no price is known
    energy_kwh: float | None  # None where no power is known
    reasons: dict[str, str]  # for each number, and what it rests on: the formula with its numbers

    @property
    def days(self) -> float:
        return self.hours / 24

    def explain(self) -> list[str]:
        return list(self.reasons.values())


def training_cost(
    flops: float,
    device: Device,
    devices: int = 1,
    *,
    utilisation: float | None = None,
    precision: str | None = None,
    price: float | None = None,
    power: float | None = None,
    pue: float = PUE,
    source: str = "",
) -> Cost:
    """What `flops` floating-point operations cost.

    Args:
        flops: Of the whole training, recomputation left out; utilisation is then "model FLOPs utilisation", MFU.
        device: From `devices.find`.
        devices: How many of them.
        utilisation: The share of the peak that is reached, above 0 and at most 1; `UTILISATION` when left out.
        precision: The number format of products; the device's fastest for trainings when left out.
        price: $ a device and hour; the device's own when left out.
        power: Watts a device; the most that it takes when left out.
        pue: Power usage effectiveness: the data centre's energy by that of its computers, 1 or above.
        source: Where `flops` comes from, printed beside it: say "rumour" of a rumour.

    Raises:
        PellucidError: when a number is not possible, or no peak is known of the device in that precision.
    """
    speed, reasons = reached(device, utilisation, precision)
    device_hours = positive(flops, "flops") / (speed * 3600)
    line = _("device-hours = FLOPs / (peak × utilisation × 3600) = {flops:.4g} / ({speed:.4g} × 3600) = {hours}")
    line = line.format(flops=flops, speed=speed, hours=figure(device_hours)) + (f" ({source})" if source else "")
    cost = from_device_hours(device_hours, devices, price, device=device, power=power, pue=pue)
    return replace(cost, reasons=reasons | cost.reasons | {"device_hours": line})


def from_device_hours(
    device_hours: float,
    devices: int = 1,
    price: float | None = None,
    *,
    device: Device | None = None,
    power: float | None = None,
    pue: float = PUE,
    source: str = "",
) -> Cost:
    """What a number of device-hours comes to, a published one for example; arguments as those of `training_cost`."""
    hours = positive(device_hours, "device_hours") / positive(devices, "devices", least=1)
    source = source or _("as given")
    reasons = {
        "device_hours": _("device-hours = {hours} ({source})").format(hours=figure(device_hours), source=source),
        "hours": _("hours = device-hours / devices = {all} / {devices:,} = {hours} ({days} days)").format(
            all=figure(device_hours), devices=devices, hours=figure(hours), days=figure(hours / 24)
        ),
    }
    price, reasons["price"] = priced(device, price)
    money = None if price is None else device_hours * price
    if money is not None:
        line = _("money = device-hours × price = {hours} × {price:g} $ = {money} $")
        reasons["money"] = line.format(hours=figure(device_hours), price=price, money=figure(money))
    power, reasons["power"] = powered(device, power)
    energy = None if power is None else device_hours * power * positive(pue, "pue", least=1) / 1000
    if energy is not None:
        line = _("energy = device-hours × power × PUE = {hours} × {power:g} W × {pue:g} = {energy} kWh")
        reasons["energy_kwh"] = line.format(hours=figure(device_hours), power=power, pue=pue, energy=figure(energy))
    return Cost(device_hours, hours, money, energy, reasons)


def implied_utilisation(flops: float, device_hours: float, device: Device, precision: str | None = None) -> float:
    """The share of the peak that a training has reached; above 1, one of the numbers is wrong."""
    peak = device.rate(precision)[1]
    return positive(flops, "flops") / (positive(device_hours, "device_hours") * 3600 * peak)
