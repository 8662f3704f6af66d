"""What costs rest on where nothing was given, said aloud."""

from pellucid.anatomy.arguments import positive
from pellucid.anatomy.cost.devices import Device
from pellucid.language import _

UTILISATION = 0.39  # the median of thirteen published trainings, all of them in `tests/anatomy/test_cost.py`
SPREAD = (0.16, 0.51)  # their least and most
PUE = 1.1  # energy of a data centre by that of its computers (Touvron et al. 2023, LLaMA, table 15)


def reached(device: Device, utilisation: float | None, precision: str | None) -> tuple[float, dict[str, str]]:
    """Operations a second that a training reaches, peak x utilisation, and where both come from."""
    name, peak = device.rate(precision)
    line = _("peak = {peak:.4g} FLOP/s: {device}, {precision}, dense ({source})")
    reasons = {"peak": line.format(peak=peak, device=device.title, precision=name, source=device.source)}
    if utilisation is None:
        utilisation = UTILISATION
        line = _(
            "utilisation = {share:.1%}, assumed: the median of published trainings, which reach {low:.0%} to {high:.0%}"
        )
    else:
        positive(utilisation, "utilisation", most=1)
        line = _("utilisation = {share:.1%}, as given")
    reasons["utilisation"] = line.format(share=utilisation, low=SPREAD[0], high=SPREAD[1])
    return peak * utilisation, reasons


def priced(device: Device | None, price: float | None) -> tuple[float | None, str]:
    """The price an hour, given or the device's, and where it comes from."""
    if price is not None:
        return positive(price, "price"), _("price = {price:g} $ an hour, as given").format(price=price)
    if device is None or device.price is None:
        return None, _("price: none is known, so no money is computed")
    line = _("price = {price:g} $ an hour: {source}, {date}")
    return device.price, line.format(price=device.price, source=device.price_source, date=device.price_date)


def powered(device: Device | None, power: float | None) -> tuple[float | None, str]:
    """The watts of one device, given or the most that it takes, and where they come from."""
    if power is not None:
        return positive(power, "power"), _("power = {power:g} W, as given").format(power=power)
    if device is None or device.power is None:
        return None, _("power: none is known, so no energy is computed")
    line = _("power = {power:g} W: the most that {device} takes, its server's other parts left out")
    return device.power, line.format(power=device.power, device=device.title)


def figure(value: float) -> str:
    """A number for a reader: 1,720,320, 11.95 or 0.0012."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
