"""What is asked beside the counts: what running and training a network takes, what a budget buys, what there is.

Each answer is plain data, and opens: `explain` gives the formulas of its numbers, filled in.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from pellucid.anatomy import catalogue, counts, families
from pellucid.anatomy.cost import devices, generating, optimal
from pellucid.anatomy.cost.assumptions import positive
from pellucid.anatomy.cost.training import Cost, from_device_hours, implied_utilisation, training_cost
from pellucid.anatomy.explain import QUANTITIES
from pellucid.anatomy.memory import formats, serving
from pellucid.anatomy.memory import sharding as sharded
from pellucid.anatomy.memory.sizes import whole
from pellucid.anatomy.tree import Embedding, Linear, walk
from pellucid.errors import PellucidError
from pellucid.language import _

if TYPE_CHECKING:
    from types import ModuleType

    from rich.console import Console, ConsoleOptions, RenderResult

    from pellucid.anatomy.memory.sizes import Sizes
    from pellucid.anatomy.report import Anatomy
    from pellucid.anatomy.tree import Node


class Model(NamedTuple):
    """A published model: counted from its configuration, beside what was published."""

    entry: catalogue.Entry
    total: int | None  # None where no configuration was published
    active: int | None

    @property
    def difference(self) -> float | None:
        """Of the count from the published number, as a share of it: 124,439,808 from "124M" is 0.35 %."""
        published = self.entry.published_total or _number(self.entry.published or "")
        return self.total / published - 1 if self.total is not None and published else None


@dataclass(frozen=True)
class Models:
    """Rows of the catalogue."""

    rows: tuple[Model, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        return tables().models(self)

    def json(self) -> list[dict[str, Any]]:
        return [asdict(row.entry) | {"total": row.total, "active": row.active} for row in self.rows]


def models(words: str = "") -> Models:
    """The published models in which all of `words` occur, each counted.

    Raises:
        PellucidError: when there is none.
    """
    entries = catalogue.search(words)
    if not entries:
        catalogue.find(words)  # says what is near
    return Models(tuple(_counted(entry) for entry in entries))


def _counted(entry: catalogue.Entry) -> Model:
    if entry.config is None:
        return Model(entry, None, None)
    parameters = counts.parameters(families.describe(entry.config, entry.name))
    return Model(entry, parameters.total, parameters.active)


def _number(words: str) -> float | None:
    """The first number in words, with its letter: 1.5e9 of "1.5B"."""
    found = re.match(r"\D*([\d.,]*\d)\s*([KMBT]?)(?=$|[\s,;+)])", words)
    return (
        float(found[1].replace(",", "")) * {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12, "": 1}[found[2]] if found else None
    )


@dataclass(frozen=True)
class Hardware:
    rows: tuple[devices.Device, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        return tables().hardware(self)

    def json(self) -> list[dict[str, Any]]:
        return [asdict(row) for row in self.rows]


def hardware() -> Hardware:
    """The devices that can be named."""
    return Hardware(tuple(devices.table().values()))


def find_device(name: str | None) -> devices.Device:
    """The device of that name; "here" measures this machine.

    Raises:
        PellucidError: when there is none, or none was named.
    """
    if name is None:
        raise PellucidError(
            _("Which device?"), "--device", _("--device a100-80gb, say, or --device here; --hardware shows all.")
        )
    return devices.find(devices.HERE if name == "here" else name)


class Bought(NamedTuple):
    """What a budget buys."""

    budget: optimal.Budget

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        return tables().budget(self.budget)

    def json(self) -> dict[str, Any]:
        return asdict(self.budget)


def budget(
    budget: float, device: str | None = None, utilisation: float | None = None, price: float | None = None
) -> Bought:
    """What so many dollars buy on a device; see `optimal.what_fits`."""
    return Bought(optimal.what_fits(find_device(device), money=budget, utilisation=utilisation, price=price))


def asked(words: str) -> tuple[str, str]:
    """What `--explain` asks for: a quantity, parameters where none is named, and a part, all where none is."""
    quantity, _space, part = words.strip().partition(" ")
    if quantity not in QUANTITIES:
        quantity, part = "parameters", words.strip()
    return quantity, "" if part in ("all", "total") else part.strip()


@dataclass(frozen=True)
class Serving:
    """What running a network takes."""

    name: str
    number_format: str
    cache_format: str
    batch: int
    length: int | None  # tokens of each text, prompt and answer together; None where no text is read
    sizes: Sizes
    token: int  # bytes that one more token adds to the cache
    device: devices.Device | None = None
    devices: int = 1
    context: int | None = None  # tokens that the network was made for
    largest_context: int | None = None  # tokens that fit at this batch; None without a device, or where any do
    largest_batch: int | None = None  # texts of this length
    speed: generating.Generating | None = None  # None where it does not fit, or writes nothing token by token

    @property
    def fits(self) -> bool | None:
        """Whether it fits on the devices, parted among them without loss; None without one."""
        return None if self.device is None else self.sizes.fits(_together(self.device, self.devices))

    def explain(self) -> list[str]:
        return [*self.sizes.explain(), *(self.speed.explain() if self.speed else [])]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        return tables().serving(self)

    def json(self) -> dict[str, Any]:
        return asdict(self) | {"sizes": self.sizes.json(), "fits": self.fits}


def serve(
    network: Anatomy,
    format: str = "bf16",
    cache_format: str = "bf16",
    device: str | None = None,
    devices: int = 1,
    price: float | None = None,
    batch: int = 1,
    length: int | None = None,
) -> Serving:
    """What running `network` takes: see `serving.serve` and `generating.generating_cost` for the arguments.

    What a translator reads is as long as what it writes.

    Raises:
        PellucidError: when a number is not possible, a format or device not known, or nothing says how long texts are.
    """
    tree, text = network.tree, text_length(network, length)
    length, format = text or 1, formats.known(format, formats.FORMATS)
    whole(devices, "devices")
    sizes = serving.serve(tree, format, batch, length, cache_format, source=length)
    token = serving.token_bytes(tree, cache_format)
    answer = Serving(network.name, format, cache_format, batch, text, sizes, token, context=network.context)
    if device is None:
        _without_device(price=price, devices=devices if devices > 1 else None)
        return answer
    hardware = find_device(device)
    memory = _together(hardware, devices)
    options: dict[str, Any] = {"cache_format": cache_format, "source": length}
    cache, speed = serving.cache(tree, 1, length, cache_format, source=length), None
    if sizes.fits(memory) and cache.parts:  # what keeps nothing of past tokens does not write one by one
        work = network.generated_token(length - 1, length)
        weights = sizes["weights"] * read_share(tree, batch)
        speed = generating.generating_cost(weights, cache.total, work.flops, hardware, batch, devices, price=price)
    longest = serving.largest_context(tree, memory, format, batch, **options)
    return replace(
        answer,
        device=hardware,
        devices=devices,
        largest_context=longest if text is not None and longest < serving.LIMIT else None,
        largest_batch=serving.largest_batch(tree, memory, format, length, **options),
        speed=speed,
    )


def text_length(network: Anatomy, length: int | None) -> int | None:
    """Tokens of a text: what was asked for, or the network's context; None where no text is read.

    Raises:
        PellucidError: when neither is known, or a network that reads no text is asked for some.
    """
    if not {visit.positions for visit in walk(network.tree)} & {"token", "source"}:
        if length is not None:
            raise PellucidError(_("This network reads no text."), network.name, _("Leave --length out."))
        return None
    if length is None and network.context is None:
        raise PellucidError(
            _("How long are the texts?"), network.name, _("Say --length 512, say: nothing in it limits the length.")
        )
    return whole(length if length is not None else network.context or 1, "length")


def _without_device(**given: float | None) -> None:
    """Refuse what has a meaning for a device only."""
    for name, value in given.items():
        if value is not None:
            raise PellucidError(
                _("--{name} has no meaning without --device.").format(name=name),
                "--device",
                _("--device a100-80gb, say, or --device here; --hardware shows all."),
            )


def _together(device: devices.Device, n: int) -> int:
    """The memory of n devices, of which the runtime takes its part on each."""
    return n * (device.memory - serving.RUNTIME) + serving.RUNTIME


def read_share(tree: Node, batch: int = 1) -> float:
    """The share of the parameters that a step of `batch` texts reads: no tables but the head's, and not all experts.

    Of n experts, k of them for a token, 1 - (1 - k/n)^batch are met, if the router has no favourites.
    """
    visits = list(walk(tree))
    tied = {visit.leaf.tied_to for visit in visits if isinstance(visit.leaf, Linear)}
    read = sum(
        visit.parameters * (1 - (1 - visit.active / visit.copies) ** batch)
        for visit in visits
        if visit.positions == "token" and (not isinstance(visit.leaf, Embedding) or visit.path in tied)
    )
    return read / counts.parameters(tree).total


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
    device: devices.Device | None = None
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
        return tables().training(self)

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
    examples = tokens if tokens is not None else facts.tokens if facts else None
    if examples is None:
        raise PellucidError(
            _("How many tokens shall the training see?"),
            network.name,
            _("Say --tokens 300B, say: nothing was published of it."),
        )
    positive(examples, "tokens")
    tree, text = network.tree, text_length(network, length)
    length, is_text = text or 1, text is not None
    step = network.training_step(recompute=recompute, token=length, source=length)
    rule = 6 * network.parameters.active * examples if is_text else None
    exact = step.flops * examples / length
    hardware = find_device(device or (facts.device if facts else None)) if device or (facts and facts.device) else None
    shape: dict[str, Any] = {
        "batch": batch,
        "length": length,
        "source": length,
        "precision": precision,
        "optimiser": optimiser,
        "recompute": recompute,
    }
    sharding = sharding or ("fsdp" if devices > 1 else "none")
    if sharding == "none" and devices > 1:
        raise PellucidError(
            _("{n:,} devices with nothing between them are as many trainings.").format(n=devices),
            "sharding",
            _("--sharding ddp, where each holds the whole network; zero1, zero2, zero3 or fsdp share it out."),
        )
    if hardware is None:
        _without_device(price=price, utilisation=utilisation)
    sizes = sharded.train(tree, devices=devices, sharding=sharding, **shape)
    recomputed = None
    if hardware is not None and not recompute and not sizes.fits(hardware.memory):
        recomputed = sharded.train(tree, devices=devices, sharding=sharding, **shape | {"recompute": True})
    costs: dict[str, Any] = {}
    if hardware is not None:
        source = "6ND" if is_text else _("exact by operation")
        costs["cost"] = training_cost(
            rule or exact,
            hardware,
            devices,
            utilisation=utilisation,
            precision="fp32" if precision == "fp32" else None,
            price=price,
            source=_rumoured(network, source),
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


def _rumoured(network: Anatomy, source: str) -> str:
    status = network.entry.status if network.entry else None
    return f"{source}, {status}" if status else source


def tables() -> ModuleType:
    """What shows answers in a terminal: data needs none of it."""
    from pellucid.anatomy.shown import tables

    return tables
