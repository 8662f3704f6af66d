"""JSON files, read with care. Without torch."""

import json
from pathlib import Path
from typing import Any

from pellucid.errors import PellucidError
from pellucid.language import _


def read_json(path: str | Path) -> dict[str, Any]:
    """The JSON object in `path`.

    Raises:
        PellucidError: when it cannot be read or is no JSON object.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():  # a folder, or a pipe that nobody writes to
            raise PellucidError(_("{name} is no file.").format(name=path.name), str(path), "")
        found = json.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows put a byte order mark
    except FileNotFoundError:
        raise PellucidError(
            _("There is no {name} here.").format(name=path.name),
            str(path.parent),
            _("Name the folder of a trained model."),
        ) from None
    except OSError as error:
        raise PellucidError(
            _("{name} cannot be read: {why}.").format(name=path.name, why=error.strerror), str(path)
        ) from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, brackets without end
        raise PellucidError(
            _("{name} is damaged: {why}.").format(name=path.name, why=error), str(path), _("Copy or download it again.")
        ) from error
    if not isinstance(found, dict):
        raise PellucidError(
            _("{name} is damaged: {why}.").format(name=path.name, why=_("it holds no JSON object")),
            str(path),
            _("Copy or download it again."),
        )
    return found
