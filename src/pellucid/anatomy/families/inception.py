"""Networks of branches: GoogLeNet, Inception-v3 and SqueezeNet, as torchvision builds them."""

from collections.abc import Callable

from pellucid.anatomy.families.fields import Fields
from pellucid.anatomy.families.flow import Flow, Size, classify, picture
from pellucid.anatomy.tree import Sequence

# Szegedy et al. 2014, table 1: 1x1; 3x3 reduced, 3x3; 5x5 reduced, 5x5; projected after pooling. None: pool, and a head
GOOGLENET = {
    "3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64), "4b": (160, 112, 224, 24, 64, 64), "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64), "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128),
}  # fmt: skip


def googlenet(fields: Fields) -> Sequence:
    """GoogLeNet (Szegedy et al. 2014, table 1) with batch norm; its windows of 5 x 5 are 3 x 3 in torchvision."""
    classes = fields.size("num_classes")
    flow = picture(fields)
    flow.conv_norm("conv1", 64, 7, stride=2)
    flow.pool("pool1", "max", 3, stride=2, round_up=True)
    flow.conv_norm("conv2", 64, 1)
    flow.conv_norm("conv3", 192, 3)
    flow.pool("pool2", "max", 3, stride=2, round_up=True)
    for name, (one, three_in, three, five_in, five, pooled) in GOOGLENET.items():
        flow.branches(
            f"inception{name}",
            one=_convolutions((one, 1)),
            three=_convolutions((three_in, 1), (three, 3)),
            five=_convolutions((five_in, 1), (five, 3)),
            pooled=_convolutions((pooled, 1), pool="max"),
        )
        if name in ("3b", "4e"):
            size = 3 if name == "3b" else 2
            flow.pool(f"pool{name[0]}", "max", size, stride=2, round_up=True)
        if name in ("4a", "4d") and fields.flag("aux_logits"):
            flow.training_only(f"auxiliary{name}", lambda side: _googlenet_auxiliary(side, classes))
    return classify(flow, classes, dropout=0.2)


def _googlenet_auxiliary(side: Flow, classes: int) -> None:
    side.pool_to("pool", 4)
    side.conv_norm("conv", 128, 1)
    side.flatten()
    side.dense("fc1", 1024, "head")
    side.activation("relu", "relu")
    side.dropout("dropout", 0.7)
    side.dense("fc2", classes, "head")


def inception_v3(fields: Fields) -> Sequence:
    """Inception-v3 (Szegedy et al. 2015, table 1 and figures 5 to 7); blocks are named by their part of the network."""
    classes = fields.size("num_classes")
    flow = picture(fields)
    flow.conv_norm("conv1a", 32, 3, stride=2, padding=0)
    flow.conv_norm("conv2a", 32, 3, padding=0)
    flow.conv_norm("conv2b", 64, 3)
    flow.pool("pool2", "max", 3, stride=2)
    flow.conv_norm("conv3b", 80, 1)
    flow.conv_norm("conv4a", 192, 3, padding=0)
    flow.pool("pool4", "max", 3, stride=2)
    for name, pooled in (("5b", 32), ("5c", 64), ("5d", 64)):
        flow.branches(
            f"mixed{name}",
            one=_convolutions((64, 1)),
            five=_convolutions((48, 1), (64, 5)),
            three_twice=_convolutions((64, 1), (96, 3), (96, 3)),
            pooled=_convolutions((pooled, 1), pool="average"),
        )
    flow.branches(
        "mixed6a",
        three=_convolutions((384, 3), halve=True),
        three_twice=_convolutions((64, 1), (96, 3), (96, 3), halve=True),
        pooled=_halve,
    )
    for name, n in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        flow.branches(
            f"mixed{name}",
            one=_convolutions((192, 1)),
            seven=_convolutions((n, 1), (n, (1, 7)), (192, (7, 1))),
            seven_twice=_convolutions((n, 1), (n, (7, 1)), (n, (1, 7)), (n, (7, 1)), (192, (1, 7))),
            pooled=_convolutions((192, 1), pool="average"),
        )
    if fields.flag("aux_logits"):
        flow.training_only("auxiliary", lambda side: _inception_auxiliary(side, classes))
    flow.branches(
        "mixed7a",
        three=_convolutions((192, 1), (320, 3), halve=True),
        seven_three=_convolutions((192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3), halve=True),
        pooled=_halve,
    )
    for name in ("7b", "7c"):
        flow.branches(
            f"mixed{name}",
            one=_convolutions((320, 1)),
            three=_convolutions((384, 1), split=384),
            three_twice=_convolutions((448, 1), (384, 3), split=384),
            pooled=_convolutions((192, 1), pool="average"),
        )
    return classify(flow, classes, dropout=0.5)


def _inception_auxiliary(side: Flow, classes: int) -> None:
    side.pool("pool", "average", 5, stride=3)
    side.conv_norm("conv0", 128, 1)
    side.conv_norm("conv1", 768, 5, padding=0)
    classify(side, classes)


def squeezenet(fields: Fields) -> Sequence:
    """SqueezeNet (Iandola et al. 2016, table 1), and version 1.1, whose first window is smaller and pools come earlier.

    Its classes are the means of the last convolution's maps.
    """
    is_first = fields.name("version", "1_0", "1_1") == "1_0"
    flow = picture(fields)
    flow.convolution("conv1", 96 if is_first else 64, 7 if is_first else 3, stride=2, padding=0)
    flow.activation("relu1", "relu")
    flow.pool("pool1", "max", 3, stride=2, round_up=True)
    for n, squeezed in enumerate((16, 16, 32, 32, 48, 48, 64, 64), 2):
        flow.convolution(f"fire{n}_squeeze", squeezed, 1)
        flow.activation(f"fire{n}_relu", "relu")
        flow.branches(
            f"fire{n}_expand",
            one=_convolutions((4 * squeezed, 1), norm=False),
            three=_convolutions((4 * squeezed, 3), norm=False),
        )
        if n in ((4, 8) if is_first else (3, 5)):
            flow.pool(f"pool{n}", "max", 3, stride=2, round_up=True)
    flow.dropout("dropout", 0.5)
    flow.convolution("conv10", fields.size("num_classes"), 1, kind="head")
    flow.activation("relu10", "relu")
    return classify(flow, None)


def _convolutions(
    *settings: tuple[int, Size],
    pool: str | None = None,
    halve: bool = False,
    split: int | None = None,
    norm: bool = True,
) -> Callable[[Flow], None]:
    """A branch: pooling where it is named, convolutions of so many channels and such windows.

    The last one halves the picture, or is followed by one of 1 x 3 and one of 3 x 1 side by side, of `split` channels.
    """

    def write(flow: Flow) -> None:
        if pool is not None:
            flow.pool("pool", pool, 3, stride=1, padding=1)
        for n, (outputs, size) in enumerate(settings, 1):
            if not norm:
                flow.convolution(f"conv{n}", outputs, size)
                flow.activation(f"relu{n}", "relu")
            elif halve and n == len(settings):
                flow.conv_norm(f"conv{n}", outputs, size, stride=2, padding=0)
            else:
                flow.conv_norm(f"conv{n}", outputs, size)
        if split is not None:
            flow.branches("split", wide=_convolutions((split, (1, 3))), high=_convolutions((split, (3, 1))))

    return write


def _halve(flow: Flow) -> None:
    flow.pool("pool", "max", 3, stride=2)
