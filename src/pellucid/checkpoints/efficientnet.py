"""EfficientNet-lite in two files: `config.json` with what the pictures must be, and the weights."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from pellucid.checkpoints.files import TENSORS, read_json, read_tensors
from pellucid.errors import PellucidError
from pellucid.language import _
from pellucid.networks.efficientnet import EfficientNet
from pellucid.networks.efficientnet_config import EfficientNetConfig

MODEL_TYPE = "efficientnet-lite0"
FACTS = {"image_size": 224, "mean": [127 / 255] * 3, "std": [128 / 255] * 3}  # of the published weights


def open_efficientnet(folder: str | Path) -> tuple[EfficientNet, list[str], dict[str, Any]]:
    """The network saved in `folder`, ready to be asked; its classes; and what its pictures must be.

    The published weights name a part `_blocks.0._bn1`; here, as in addresses, it is `blocks.0.bn1`. Both are opened.

    Returns:
        The network in evaluation mode; the names of the classes in the order of the logits; and "image_size" (pixels),
        "mean" and "std" (one number a colour, for values from 0 to 1).

    Raises:
        PellucidError: when a file is missing or damaged, is of another network, or the two do not fit together.
    """
    folder = Path(folder)
    content = read_json(folder / "config.json")
    if content.get("model_type") != MODEL_TYPE:
        raise PellucidError(
            _("There is no kind of network {name!r}.").format(name=content.get("model_type")),
            str(folder / "config.json"),
            _("There are {names}.").format(names=MODEL_TYPE),
        )
    tensors = {re.sub(r"(^|\.)_", r"\1", name): tensor for name, tensor in read_tensors(folder).items()}
    labels = [str(label) for label in content.get("labels", [])]
    config = EfficientNetConfig(image_size=content.get("image_size", FACTS["image_size"]))
    network = EfficientNet(replace(config, classes=len(labels) or config.classes), seed=None)
    try:
        network.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise PellucidError(
            _("{name} is damaged: {why}.").format(name=TENSORS, why=str(error).splitlines()[1].strip()),
            str(folder / TENSORS),
            _("The two files belong to different models; copy or download both again."),
        ) from error
    labels = labels or [str(n) for n in range(config.classes)]
    facts = {name: content.get(name, default) for name, default in FACTS.items()}
    return network.requires_grad_().eval(), labels, facts
