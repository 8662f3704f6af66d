"""A configuration of others, read field by field: what is missing or makes no sense is refused by its name."""

from dataclasses import dataclass
from typing import Any, NoReturn

from pellucid.checkpoints.fields import ACTIVATIONS
from pellucid.errors import PellucidError
from pellucid.language import _

MOST_LAYERS = 100_000  # each is looked at by itself


@dataclass(frozen=True)
class Fields:
    """The content of a `config.json`. A field that is null is missing; one without a default must be there.

    What only a running network minds is let through: `checkpoints.fields.Supported` refuses that.

    Each method raises `PellucidError` with the field, the file and what stands in other files of the kind.
    """

    content: dict[str, Any]
    where: str

    def __contains__(self, name: str) -> bool:
        return self.content.get(name) is not None

    def size(self, name: str, default: int | None = None) -> int:
        """A whole number of 1 or more."""
        value = self._get(name, default)
        return value if _is_size(value) else self.refuse(name, _("Give a whole number of 1 or more."))

    def layers(self, name: str) -> int:
        """How many layers: a whole number from 1, and no more than anybody could mean."""
        n = self.size(name)
        return n if n <= MOST_LAYERS else self.refuse(name, _("Give at most {n}.").format(n=MOST_LAYERS))

    def sizes(self, name: str, n: int | None = None, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """So many whole numbers of 1 or more, any number of them where `n` is None."""
        value = self._get(name, default)
        if not isinstance(value, list | tuple) or not value or not all(map(_is_size, value)):
            self.refuse(name, _("Give a list of whole numbers of 1 or more."))
        if n is not None and len(value) != n:
            self.refuse(name, _("Give {n} whole numbers.").format(n=n))
        return tuple(value)

    def positive(self, name: str, default: float | None = None, most: float = 1e9) -> float:
        """A number above 0, and not above `most`."""
        value = self._get(name, default)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and 0 < value <= most:
            return float(value)
        return self.refuse(name, _("Give a number above 0, at most {most:g}.").format(most=most))

    def flag(self, name: str, default: bool | None = None) -> bool:
        """True or false."""
        value = self._get(name, default)
        return value if isinstance(value, bool) else self.refuse(name, _("Give true or false."))

    def name(self, name: str, *known: str, default: str | None = None) -> str:
        """A name, where there are any `known` one of them."""
        value = self._get(name, default)
        if isinstance(value, str) and (value in known or not known):
            return value
        return self.refuse(
            name, _("Give one of {names}.").format(names=", ".join(known)) if known else _("Give a name.")
        )

    def count(self, name: str) -> int:
        """A whole number of 0 or more; 0 where it is missing."""
        return self.size(name) if self.content.get(name) else 0

    def rate(self, name: str) -> float:
        """A dropout's probability; 0 where it is missing."""
        return self.positive(name) if self.content.get(name) else 0.0

    def activation(self, name: str) -> str:
        """Our name of an activation; one that we do not have keeps its own."""
        return ACTIVATIONS.get(self.name(name), self.name(name))

    def share(self, width: str, heads: str) -> int:
        """What each of the `heads` has of the `width`."""
        whole, n = self.size(width), self.size(heads)
        if whole % n:
            self.refuse(heads, _("Give a number that divides {name} = {n}.").format(name=width, n=whole))
        return whole // n

    def architecture(self, default: str) -> str:
        """The first of the `architectures`, which says what stands on the body."""
        named = self.content.get("architectures") or [default]
        if not isinstance(named, list) or not isinstance(named[0], str):
            self.refuse("architectures", _("Give a list of names."))
        return named[0]

    def classes(self) -> int:
        """How many classes there are: two where nothing says."""
        names = self.content.get("id2label")
        return len(names) if isinstance(names, dict) and names else self.size("num_labels", 2)

    def under(self, name: str, defaults: dict[str, Any]) -> "Fields":
        """The configuration that stands under `name`, with `defaults` for what it leaves out."""
        content = self.content.get(name) or {}
        if not isinstance(content, dict):
            self.refuse(name, _("Give a configuration with fields of its own."))
        return Fields(defaults | content, self.where)

    def refuse(self, name: str, fix: str) -> NoReturn:
        """Refuse the value of this field."""
        found = self.content.get(name)
        value = repr(found) if isinstance(found, str) else str(found)
        raise PellucidError(
            _("{name} cannot be {value}.").format(name=name, value=value if len(value) <= 60 else f"{value[:60]} …"),
            self.where,
            fix,
        )

    def _get(self, name: str, default: Any) -> Any:
        value = self.content.get(name, default)
        if value is None and default is None:
            raise PellucidError(
                _("The configuration does not say {name}.").format(name=name),
                self.where,
                _("Add {name}, or copy the whole file again.").format(name=name),
            )
        return default if value is None else value


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
