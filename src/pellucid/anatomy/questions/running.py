"""What running a network takes: memory, whether it fits, how fast at most, what it costs at least."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from pellucid.anatomy import counts
from pellucid.anatomy.arguments import whole
from pellucid.anatomy.cost import generating
from pellucid.anatomy.memory import formats, serving
from pellucid.anatomy.questions.common import find_device, runtime, text_length, without_device
from pellucid.anatomy.tree import Embedding, Linear, walk

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from pellucid.anatomy.cost.devices import Device
    from pellucid.anatomy.memory.sizes import Sizes
    from pellucid.anatomy.report import Anatomy
    from pellucid.anatomy.tree import Node


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
    device: Device | None = None
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
        from pellucid.anatomy.shown import tables

        return tables.serving(self)

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
    hardware = find_device(device) if device is not None else None
    options: dict[str, Any] = {"cache_format": cache_format, "source": length, "runtime": runtime(hardware)}
    sizes = serving.serve(tree, format, batch, length, **options)
    token = serving.token_bytes(tree, cache_format)
    answer = Serving(network.name, format, cache_format, batch, text, sizes, token, context=network.context)
    if hardware is None:
        without_device(price=price, devices=devices if devices > 1 else None)
        return answer
    memory = _together(hardware, devices)
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


def _together(device: Device, n: int) -> int:
    """The memory of n devices, of which the runtime takes its part on each."""
    return n * (device.memory - runtime(device)) + runtime(device)


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
