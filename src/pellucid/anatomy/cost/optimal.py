"""How large a model, on how many tokens, is best for so much compute; and how much compute a budget buys."""

import math
from dataclasses import dataclass

from pellucid.anatomy.arguments import positive
from pellucid.anatomy.cost.assumptions import figure, priced, reached
from pellucid.anatomy.cost.devices import Device
from pellucid.errors import PellucidError
from pellucid.language import _


@dataclass(frozen=True)
class Law:
    """Loss in nats a token of N parameters trained on D tokens: L = E + A / N^alpha + B / D^beta.

    Source: Hoffmann et al. 2022, section 3.3 ("approach 3"), equations 2 and 4.
    """

    e: float
    a: float
    b: float
    alpha: float
    beta: float

    def loss(self, parameters: float, tokens: float) -> float:
        return self.e + self.a / parameters**self.alpha + self.b / tokens**self.beta

    def best_size(self, flops: float) -> float:
        """The N of least loss where 6ND = flops."""
        both = self.alpha + self.beta
        return (self.alpha * self.a / (self.beta * self.b)) ** (1 / both) * (flops / 6) ** (self.beta / both)


# Hoffmann et al. print rounded exponents, and rounding alone moves the optimum; these are their unrounded ones, as
# Besiroglu et al. found them. Those also find that the fit had stopped early: theirs agrees with approaches 1 and 2.
HOFFMANN = Law(1.6934, 406.4, 410.7, 0.3392, 0.2849)
BESIROGLU = Law(1.8172, 482.01, 2085.43, 0.3478, 0.3658)
FITTED = (6e18, 3e21)  # FLOPs of the trainings behind these laws (Hoffmann et al. 2022, figure 3)


@dataclass(frozen=True)
class Optimum:
    """The best model for some compute, by one source. Losses are all by Besiroglu et al., to be comparable."""

    source: str
    parameters: float
    tokens: float
    loss: float  # nats a token of Hoffmann et al.'s text


def compute_optimal(flops: float) -> list[Optimum]:
    """Parameters N and tokens D of least loss with 6ND = flops, by three sources: they differ, so all are told.

    Raises:
        PellucidError: when flops is not a number above 0.
    """
    sizes = {  # by the rule of 20 tokens, D = 20N, so flops = 120 N^2
        _("Hoffmann et al. 2022: 20 tokens a parameter"): math.sqrt(positive(flops, "flops") / 120),
        _("Besiroglu et al. 2024: approach 3 of Hoffmann et al., fitted anew"): BESIROGLU.best_size(flops),
        _("Hoffmann et al. 2022: approach 3, as published"): HOFFMANN.best_size(flops),
    }
    return [Optimum(source, n, flops / 6 / n, BESIROGLU.loss(n, flops / 6 / n)) for source, n in sizes.items()]


@dataclass(frozen=True)
class Budget:
    flops: float
    device_hours: float
    optima: list[Optimum]
    reasons: dict[str, str]  # the formulas with their numbers, and what to know of them

    def explain(self) -> list[str]:
        return list(self.reasons.values())


def what_fits(
    device: Device,
    *,
    money: float | None = None,
    hours: float | None = None,
    devices: int = 1,
    utilisation: float | None = None,
    precision: str | None = None,
    price: float | None = None,
) -> Budget:
    """The FLOPs for `money` ($), or for `hours` on the clock of so many devices, and the best model for them.

    The inverse of `cost.training_cost`, where the other arguments are explained.

    Raises:
        PellucidError: when not just one of money and hours is given, or no price is known for the money.
    """
    speed, reasons = reached(device, utilisation, precision)
    if (money is None) == (hours is None):
        raise PellucidError(_("A budget is money or hours."), "money, hours", _("Give one of them, and not both."))
    if money is not None:
        price, reasons["price"] = priced(device, price)
        if price is None:
            raise PellucidError(
                _("No price is known for {device}.").format(device=device.title), "price", _("Give a price an hour.")
            )
        device_hours = positive(money, "money") / price
        line = _("device-hours = money / price = {money} $ / {price:g} $ = {all}")
    else:
        assert hours is not None
        device_hours = positive(hours, "hours") * positive(devices, "devices", least=1)
        line = _("device-hours = hours × devices = {hours} × {devices:,} = {all}")
    amounts = {"money": figure(money or 0), "hours": figure(hours or 0), "all": figure(device_hours)}
    reasons["device_hours"] = line.format(price=price, devices=devices, **amounts)
    flops = device_hours * 3600 * speed
    line = _("FLOPs = device-hours × 3600 × peak × utilisation = {hours} × 3600 × {speed:.4g} = {flops:.4g}")
    reasons["flops"] = line.format(hours=figure(device_hours), speed=speed, flops=flops)
    optima = compute_optimal(flops)
    for number, best in enumerate(optima, 1):
        reasons[f"optimum {number}"] = _("{n:.3g} parameters, {d:.3g} tokens, loss {loss:.2f} ({source})").format(
            n=best.parameters, d=best.tokens, loss=best.loss, source=best.source
        )
    return Budget(flops, device_hours, optima, reasons | {"caveat": caveat(flops)})


def caveat(flops: float) -> str:
    """What to know of a loss foretold for so much compute."""
    words = _("The loss is in nats a token of the text and tokenizer of Hoffmann et al.; other text has another loss.")
    if FITTED[0] <= flops <= FITTED[1]:
        return words
    line = _("The laws rest on trainings of {least:.0e} to {most:.0e} FLOPs; {flops:.1e} lies outside.")
    return f"{words} {line.format(least=FITTED[0], most=FITTED[1], flops=flops)}"
