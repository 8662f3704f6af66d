"""Networks for small machines, which look around channel by channel: MobileNets and EfficientNet."""

from math import ceil

from pellucid.anatomy.families.fields import Fields
from pellucid.anatomy.families.flow import Flow, classify, labels, picture
from pellucid.anatomy.tree import Sequence
from pellucid.language import _


def mobilenet_v1(fields: Fields) -> Sequence:
    """MobileNet (Howard et al. 2017, table 1), in Hugging Face's fields."""
    factor, least, function = fields.positive("depth_multiplier"), fields.size("min_depth"), fields.name("hidden_act")
    rows = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))

    def width(channels: int) -> int:
        return max(int(channels * factor), least)

    def block(flow: Flow, row: tuple[int, int]) -> None:
        outputs, stride = row
        flow.conv_norm("depthwise", flow.channels, 3, stride, groups=flow.channels, activation=function)
        flow.conv_norm("pointwise", width(outputs), 1, activation=function)

    flow = picture(fields)
    flow.conv_norm("stem", width(32), 3, stride=2, activation=function)
    flow.blocks("block", rows, block)
    return classify(flow, labels(fields), fields.rate("classifier_dropout_prob"))


def mobilenet_v2(fields: Fields) -> Sequence:
    """MobileNetV2 (Sandler et al. 2018, table 2), in Hugging Face's fields."""
    factor, divisor = fields.positive("depth_multiplier"), fields.size("depth_divisible_by")
    least, expand = fields.size("min_depth"), fields.positive("expand_ratio")
    output_stride = fields.size("output_stride")
    function = fields.activation("hidden_act")

    def width(channels: int) -> int:
        return rounded(round(channels * factor), divisor, least)

    flow = picture(fields)
    flow.conv_norm("stem", width(32), 3, stride=2, activation=function)
    if not fields.flag("first_layer_is_expansion"):
        flow.conv_norm("stem_expand", width(32), 1, activation=function)
    flow.group("block1", lambda inner: inverted_residual(inner, inner.channels, width(16), 3, 1, function))
    halved = 2
    stages = ((24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))  # channels, blocks, stride
    for n, (channels, depth, stride) in enumerate(stages, 2):
        if halved * stride > output_stride:
            stride = 1  # windows are spread instead
        halved *= stride

        def block(inner: Flow, stride: int, outputs: int = width(channels)) -> None:
            expanded = rounded(round(inner.channels * expand), divisor, least)
            inverted_residual(inner, expanded, outputs, 3, stride, function, always_expand=True)

        flow.blocks(f"block{n}", [stride, *[1] * (depth - 1)], block)
    keeps = factor < 1 and fields.flag("finegrained_output")
    flow.conv_norm("last", 1280 if keeps else width(1280), 1, activation=function)
    return classify(flow, labels(fields), fields.rate("classifier_dropout_prob"))


def mobilenet_v3(fields: Fields) -> Sequence:
    """MobileNetV3 (Howard et al. 2019, tables 1 and 2), in torchvision's fields.

    A row of `inverted_residual_setting` is a block: input channels, window, expanded channels, output channels, whether
    channels are squeezed and excited, "RE" or "HS" (ReLU or hard swish), stride, dilation.
    """
    rows = fields.content.get("inverted_residual_setting")
    if not isinstance(rows, list) or not all(map(_is_row, rows)) or not rows:
        fields.refuse("inverted_residual_setting", _('Give rows such as [16, 3, 64, 24, false, "RE", 2, 1].'))
    flow = picture(fields)
    flow.conv_norm("stem", rows[0][0], 3, stride=2, activation="hard_swish")
    for n, (inputs, size, expanded, outputs, squeezes, name, stride, dilation) in enumerate(rows, 1):
        if inputs != flow.channels:
            fields.refuse(
                "inverted_residual_setting", _("Let each row read as many channels as the one before writes.")
            )
        squeezed = rounded(expanded // 4, 8) if squeezes else None
        function = "hard_swish" if name == "HS" else "relu"
        inner = flow.fork()
        inverted_residual(
            inner,
            expanded,
            outputs,
            size,
            1 if dilation > 1 else stride,
            function,
            squeezed,
            squeeze_activations=("relu", "hard_sigmoid"),
        )
        flow.add(f"block{n}", inner.tree)
        flow.channels, flow.height, flow.width = inner.shape
    flow.conv_norm("last", 6 * flow.channels, 1, activation="hard_swish")
    flow.pool_to("mean", 1)
    flow.flatten()
    flow.dense("last_dense", fields.size("last_channel"))
    flow.activation("last_activation", "hard_swish")
    flow.dropout("dropout", 0.2)
    flow.dense("head", fields.size("num_classes"), "head")
    return flow.tree


def _is_row(row: object) -> bool:
    kinds = [type(value) for value in row] if isinstance(row, list) else []
    return kinds == [int, int, int, int, bool, str, int, int]


def efficientnet(fields: Fields) -> Sequence:
    """EfficientNet (Tan and Le 2019, table 1), wider and deeper by two coefficients, in Hugging Face's fields."""
    wider, deeper = (fields.positive(f"{side}_coefficient", most=100) for side in ("width", "depth"))
    divisor, squeeze = fields.size("depth_divisor"), fields.positive("squeeze_expansion_ratio")
    function = fields.activation("hidden_act")
    outputs = fields.sizes("out_channels")
    sizes = fields.sizes("kernel_sizes", len(outputs))
    strides = fields.sizes("strides", len(outputs))
    repeats = fields.sizes("num_block_repeats", len(outputs))
    expands = fields.sizes("expand_ratios", len(outputs))
    inputs = fields.sizes("in_channels", len(outputs))

    def width(channels: int) -> int:
        return rounded(channels * wider, divisor)

    flow = picture(fields)
    flow.conv_norm("stem", width(32), 3, stride=2, activation=function)
    rows = zip(inputs, outputs, sizes, strides, repeats, expands, strict=True)
    for n, (reads, writes, size, first, repeat, expand) in enumerate(rows, 1):
        if width(reads) != flow.channels:
            fields.refuse("in_channels", _("Let each stage read as many channels as the one before writes."))

        def block(
            inner: Flow, stride: int, outputs: int = width(writes), size: int = size, expand: int = expand
        ) -> None:
            squeezed = max(1, int(inner.channels * squeeze))
            inverted_residual(
                inner, expand * inner.channels, outputs, size, stride, function, squeezed, (function, "sigmoid")
            )

        flow.blocks(f"stage{n}", [first, *[1] * (ceil(deeper * repeat) - 1)], block)
    last = width(1280)
    if fields.size("hidden_dim") != last:
        fields.refuse("hidden_dim", _("With this width_coefficient it is {n}.").format(n=last))
    flow.conv_norm("last", last, 1, activation=function)
    return classify(flow, labels(fields), fields.rate("dropout_rate"))


def inverted_residual(
    flow: Flow,
    expanded: int,
    outputs: int,
    size: int,
    stride: int,
    function: str,
    squeezed: int | None = None,
    squeeze_activations: tuple[str, str] = ("relu", "sigmoid"),
    always_expand: bool = False,
) -> None:
    """Wider by 1 x 1, look around channel by channel, narrow again (Sandler et al. 2018, figure 3)."""
    if always_expand or expanded != flow.channels:
        flow.conv_norm("expand", expanded, 1, activation=function)
    flow.conv_norm("depthwise", expanded, size, stride, groups=expanded, activation=function)
    if squeezed is not None:
        flow.squeeze_excite("squeeze_excite", squeezed, *squeeze_activations)
    flow.conv_norm("narrow", outputs, 1, activation=None)


def rounded(channels: float, divisor: int, least: int | None = None) -> int:
    """The multiple of `divisor` nearest to `channels`, and no more than a tenth below it."""
    nearest = max(least or divisor, int(channels + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * channels else nearest
