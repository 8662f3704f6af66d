"""Configurations of Hugging Face's, read field by field, and its names of activations. Without torch."""

from dataclasses import dataclass
from typing import Any, NoReturn

from pellucid.errors import PellucidError
from pellucid.language import _


@dataclass
class Supported:
    """A configuration of Hugging Face's of which all that our networks do not do is refused.

    What is only counted passes much more: `anatomy.families.fields.Fields` refuses what makes no sense.
    """

    content: dict[str, Any]
    where: str
    families: tuple[str, ...]  # the model types that are

    def get(self, name: str, default: Any) -> Any:
        """The field, or Hugging Face's default where it is missing or null."""
        value = self.content.get(name)
        return default if value is None else value

    def size(self, *names: str, default: int | None = None) -> int:
        """A whole number of at least one, under the first of `names` that there is."""
        name = next((name for name in names if self.content.get(name) is not None), names[0])
        value = self.content.get(name, default)
        value = default if value is None else value
        if value is None:
            raise PellucidError(
                _("The configuration does not say {name}.").format(name=name),
                self.where,
                _("Add {name}, or copy the whole file again.").format(name=name),
            )
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            self.refuse(name)
        return value

    def only(self, name: str, *values: Any) -> None:
        """Refuse the field if it is there with another value than these."""
        if name in self.content and self.content[name] not in values:
            self.refuse(name)

    def refuse(self, name: str) -> NoReturn:
        raise PellucidError(
            _("This model's {name} = {value} is not supported.").format(name=name, value=self.content.get(name)),
            self.where,
            _("Supported are {families}.").format(families=", ".join(self.families)),
        )


ACTIVATIONS = {  # their names of ours
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}


def foreign_activation(name: str) -> str:
    """Their name of our activation."""
    return "gelu_new" if name == "gelu_tanh" else name
