"""How fast a device can generate, at most, and what a million tokens cost, at least."""

from dataclasses import dataclass

from pellucid.anatomy.arguments import positive
from pellucid.anatomy.cost.assumptions import figure, priced
from pellucid.anatomy.cost.devices import Device
from pellucid.errors import PellucidError
from pellucid.language import _


@dataclass(frozen=True)
class Generating:
    tokens_per_second: float  # of the whole batch, at most
    bound: str  # "bandwidth" or "compute": what holds it back
    money: float | None  # $ a million tokens, at least; None where no price is known
    reasons: dict[str, str]  # the formulas with their numbers

    def explain(self) -> list[str]:
        return list(self.reasons.values())


def generating_cost(
    weights: float,
    cache: float,
    flops: float,
    device: Device,
    batch: int = 1,
    devices: int = 1,
    *,
    precision: str | None = None,
    price: float | None = None,
) -> Generating:
    """The bounds of generating one token for each sequence of a batch, with time for nothing but reading or computing.

    A step reads the weights once and each sequence's keys and values, and computes each sequence's token; reading and
    computing overlap, so the slower of the two counts. Devices share both without loss. Real servers reach less.

    Args:
        weights: Bytes of weights that a step reads: for a mixture of experts those of the experts that the batch meets.
        cache: Bytes of keys and values of one sequence, at the length at hand.
        flops: Floating-point operations of one generated token.
        device: From `devices.find`.
        batch: Sequences at once.
        devices: How many of them.
        precision: The number format of products; the device's fastest for trainings when left out.
        price: $ a device and hour; the device's own when left out.

    Raises:
        PellucidError: when a number is not possible, or no peak is known of the device in that precision.

    Source: Pope et al. 2022 (Efficiently Scaling Transformer Inference), section 2.
    """
    if not 0 <= cache < float("inf"):
        raise PellucidError(_("{value} is not possible for {name}.").format(value=cache, name="cache"), "cache")
    name, peak = device.rate(precision)
    together = positive(devices, "devices", least=1)
    read = positive(weights, "weights") + positive(batch, "batch", least=1) * cache
    reading = read / (together * device.bandwidth)
    computing = batch * positive(flops, "flops") / (together * peak)
    speed = batch / max(reading, computing)
    line = _("reading: (weights + batch × cache) / (devices × bandwidth) = {bytes:.4g} / {rate:.4g} = {ms} ms a step")
    reasons = {"reading": line.format(bytes=read, rate=together * device.bandwidth, ms=figure(1000 * reading))}
    line = _("computing: batch × FLOPs / (devices × peak, {precision}) = {flops:.4g} / {rate:.4g} = {ms} ms a step")
    reasons["computing"] = line.format(
        precision=name, flops=batch * flops, rate=together * peak, ms=figure(1000 * computing)
    )
    line = _("tokens a second <= batch / the longer time = {batch:,} / {ms} ms = {speed}")
    longer = figure(1000 * max(reading, computing))
    reasons["tokens_per_second"] = line.format(batch=batch, ms=longer, speed=figure(speed))
    price, reasons["price"] = priced(device, price)
    money = None if price is None else 1e6 / speed / 3600 * together * price
    if money is not None:
        line = _("a million tokens ≥ 1,000,000 / {speed} / 3600 × {devices:,} × {price:g} $ = {money} $")
        reasons["money"] = line.format(speed=figure(speed), devices=devices, price=price, money=figure(money))
    return Generating(speed, "bandwidth" if reading >= computing else "compute", money, reasons)
