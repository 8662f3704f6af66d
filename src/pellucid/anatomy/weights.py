"""The numbers that training set, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

SMALL = 100  # parameters, up to which all numbers are shown


@dataclass(frozen=True)
class Weights:
    """A network's parameters: a dense layer's weight is (neurons, inputs), so its outputs are W x + b."""

    parameters: dict[str, Tensor]
    inputs: tuple[str, ...] = ()  # what the first layer reads, where that has names: the columns of a table
    outputs: tuple[str, ...] = ()

    @classmethod
    def of(cls, network: nn.Module, inputs: Sequence[str] = (), outputs: Sequence[str] = ()) -> Weights:
        """Those of a network as it is now."""
        return cls({name: p.detach() for name, p in network.named_parameters()}, tuple(inputs), tuple(outputs))

    @property
    def total(self) -> int:
        return sum(p.numel() for p in self.parameters.values())

    @property
    def small(self) -> bool:
        """Whether all numbers are shown."""
        return self.total <= SMALL

    def __getitem__(self, name: str) -> Tensor:
        return self.parameters[name]

    def json(self) -> dict[str, Any]:
        """Plain data: names, shapes and, of a small network, all numbers."""
        return {
            "total": self.total,
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "parameters": {
                name: {"shape": list(p.shape)} | ({"values": p.tolist()} if self.small else {})
                for name, p in self.parameters.items()
            },
        }

    def show(self) -> None:
        """Print them."""
        from rich.console import Console
        from rich.table import Table

        from pellucid.language import _

        console = Console(highlight=False)
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for name in (_("parameter"), _("shape"), _("values") if self.small else _("numbers")):
            table.add_column(name, no_wrap=name == _("parameter"))
        for name, p in self.parameters.items():
            rows = p.reshape(-1, p.shape[-1]).tolist() if p.ndim else [[p.item()]]
            values = "\n".join("  ".join(f"{x:.6g}" for x in row) for row in rows) if self.small else f"{p.numel():,}"
            table.add_row(name, " × ".join(map(str, p.shape)), values)
        console.print(table)
        console.print(_("{n:,} parameters").format(n=self.total), style="bold")
        if self.inputs:
            said = _("in the table's own units, from {inputs} to {outputs}")
            console.print(said.format(inputs=", ".join(self.inputs), outputs=", ".join(self.outputs)), markup=False)
