"""What training a network takes: work, memory of each device, time, money, energy; what was published beside."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pellucid.anatomy.arguments import positive
from pellucid.anatomy.cost.training import Cost, from_device_hours, implied_utilisation, training_cost
from pellucid.anatomy.memory import sharding as sharded
from pellucid.anatomy.questions.common import find_device, runtime, text_length, without_device
from pellucid.errors import PellucidError
from pellucid.language import _

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from pellucid.anatomy.cost.devices import Device
    from pellucid.anatomy.memory.sizes import Sizes
    from pellucid.anatomy.report import Anatomy


@dataclass(frozen=True)
class Training:
    """What a training takes."""

    name: str
    examples: float  # tokens of a text; pictures or rows of networks that read no text
    length: int | None  # tokens of each text; None where no text is read
    rule: float | None  # FLOPs by 6ND: 6 for each parameter that a token meets, and each token; None without tokens
    exact: float  # FLOPs by operation, attention over `length` tokens and recomputation included
    cost: Cost | None = None  # None without a device
    published: Cost | None = None  # from the device-hours that were published
    utilisation: float | None = None  # that those imply, by 6ND
    memory: Sizes | None = None  # of one device
    recomputed: Sizes | None = None  # the same with recomputation, where it does not fit without
    sharding: str = "none"  # how devices share the state
    device: Device | None = None
    devices: int = 1
    smallest: int | None = None  # the fewest devices on which it fits; None where no number of them does
    context: int | None = None  # tokens that the network was made for

    @property
    def fits(self) -> bool | None:
        """Whether it fits on each device; None without one."""
        return None if self.device is None or self.memory is None else self.memory.fits(self.device.memory)

    def explain(self) -> list[str]:
        parts = (self.memory, self.cost, self.published)
        return list(dict.fromkeys(line for part in parts if part for line in part.explain()))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from pellucid.anatomy.shown import tables

        return tables.training(self)

    def json(self) -> dict[str, Any]:
        sizes = {"memory": self.memory, "recomputed": self.recomputed}
        return (
            asdict(self) | {name: size.json() if size else None for name, size in sizes.items()} | {"fits": self.fits}
        )


def train(
    network: Anatomy,
    tokens: float | None = None,
    device: str | None = None,
    devices: int = 1,
    price: float | None = None,
    batch: int = 1,
    length: int | None = None,
    optimiser: str = "adamw",
    precision: str = "mixed",
    sharding: str | None = None,
    recompute: bool = False,
    utilisation: float | None = None,
) -> Training:
    """What training `network` takes.

    Time and money follow from 6ND for texts, because published utilisations do, and from the exact work for others.

    Args:
        network: What is trained. What a translator reads is as long as what it writes, and `tokens` are those written.
        tokens: How many in all; of a network that reads no text, how many pictures or rows. What was published of it
            when left out.
        device: A name for `find_device`; the one that was published when left out.
        devices: How many.
        price: $ a device and hour; the device's own when left out.
        batch: Texts, pictures or rows at once on each device.
        length: Tokens of a text; the network's context when left out.
        optimiser: One of `sharding.OPTIMISERS`.
        precision: A key of `sharding.PRECISIONS`.
        sharding: A key of `sharding.SHARDED`; "fsdp" where there are several devices when left out.
        recompute: Keep each block's input only, and compute the rest again.
        utilisation: Share of the peak that is reached; published trainings' median when left out.

    Raises:
        PellucidError: when a number is not possible, a name not known, or nothing says how many tokens, or how long
            texts are.
    """
    facts = network.entry.training if network.entry else None
    examples = _examples(network, tokens)
    tree, text = network.tree, text_length(network, length)
    length, is_text = text or 1, text is not None
    step = network.training_step(recompute=recompute, token=length, source=length)
    rule = 6 * network.parameters.active * examples if is_text else None
    exact = step.flops * examples / length
    device = device or (facts.device if facts else None)
    hardware = find_device(device) if device else None
    sharding = _sharding(sharding, devices)
    shape: dict[str, Any] = {
        "batch": batch,
        "length": length,
        "source": length,
        "precision": precision,
        "optimiser": optimiser,
        "recompute": recompute,
        "runtime": runtime(hardware),
    }
    if hardware is None:
        without_device(price=price, utilisation=utilisation)
    sizes = sharded.train(tree, devices=devices, sharding=sharding, **shape)
    recomputed = None
    if hardware is not None and not recompute and not sizes.fits(hardware.memory):
        recomputed = sharded.train(tree, devices=devices, sharding=sharding, **shape | {"recompute": True})
    costs: dict[str, Any] = {}
    if hardware is not None:
        costs["cost"] = training_cost(
            rule or exact,
            hardware,
            devices,
            utilisation=utilisation,
            precision="fp32" if precision == "fp32" else None,
            price=price,
            source="6ND" if is_text else _("exact by operation"),
        )
    if rule and facts and facts.hours and hardware and hardware.name == facts.device and examples == facts.tokens:
        costs["published"] = from_device_hours(facts.hours, devices, price, device=hardware, source=facts.source)
        costs["utilisation"] = implied_utilisation(rule, facts.hours, hardware)
    smallest = sharded.fewest_devices(tree, hardware.memory, sharding, **shape) if hardware else None
    return Training(
        network.name,
        examples,
        text,
        rule,
        exact,
        **costs,
        memory=sizes,
        recomputed=recomputed,
        sharding=sharding,
        device=hardware,
        devices=devices,
        smallest=smallest,
        context=network.context,
    )


def _examples(network: Anatomy, tokens: float | None) -> float:
    """How many the training sees: as asked, or as was published."""
    published = network.entry.training if network.entry else None
    examples = tokens if tokens is not None else published.tokens if published else None
    if examples is None:
        raise PellucidError(
            _("How many tokens shall the training see?"),
            network.name,
            _("Say --tokens 300B, say: nothing was published of it."),
        )
    return positive(examples, "tokens")


def _sharding(asked: str | None, devices: int) -> str:
    """How the devices share the state: as asked, or so that each holds its share of all."""
    sharding = asked or ("fsdp" if devices > 1 else "none")
    if sharding == "none" and devices > 1:
        raise PellucidError(
            _("{n:,} devices with nothing between them are as many trainings.").format(n=devices),
            "sharding",
            _("--sharding ddp, where each holds the whole network; zero1, zero2, zero3 or fsdp share it out."),
        )
    return sharding
