"""Convolutional networks: from a configuration to the tree. Each function reads like its paper's table.

Fields are those of Hugging Face's `config.json` where the hub has the family, and those of torchvision's builders, to
which `image_size` is added. Part names follow the papers.
"""

from pellucid.anatomy.families import ours
from pellucid.anatomy.families.defaults import DEFAULTS
from pellucid.anatomy.families.fields import Fields
from pellucid.anatomy.families.flow import Flow, classify, labels, picture
from pellucid.anatomy.tree import Activation, Input, Linear, Lone, Part, Sequence
from pellucid.language import _
from pellucid.networks.convnet_config import ConvNetConfig


def convnet(fields: Fields) -> Sequence:
    """Our own notation, `ConvNetConfig`, and an `output_activation` where there is one."""
    layers = fields.content.get("layers")
    if not isinstance(layers, list) or not all(isinstance(layer, str) for layer in layers):
        fields.refuse("layers", _('Give a list such as ["conv 16 5, relu, max 2", "flatten, dense 10"].'))
    channels, height, width = (fields.size(name) for name in ("channels", "height", "width"))
    config = ConvNetConfig(channels, height, width, tuple(layers))
    parts = [Part("input", Input((channels, height, width))), *ours.convnet(config).parts]
    if "output_activation" in fields:
        parts.append(Part("output_activation", Activation(fields.name("output_activation"), config.classes), "head"))
    return Sequence(tuple(parts))


def lenet5(fields: Fields) -> Sequence:
    """LeNet-5 as published (LeCun et al. 1998, figure 2).

    Pooling is trained, the maps of C3 read some of those of S2 (table I: 60 pairs), and an output is the distance of 84
    numbers to a drawing of its digit, which is fixed.
    """
    first, second, third = fields.sizes("channels", 3)
    flow = picture(fields)
    flow.convolution("C1", first, 5, padding=0)
    flow.activation("C1_activation", "tanh")
    flow.pool("S2", "average", 2, trained=True)
    flow.activation("S2_activation", "tanh")
    flow.convolution("C3", second, 5, padding=0, connections=fields.size("connections"))
    flow.activation("C3_activation", "tanh")
    flow.pool("S4", "average", 2, trained=True)
    flow.activation("S4_activation", "tanh")
    flow.convolution("C5", third, 5, padding=0)
    flow.activation("C5_activation", "tanh")
    flow.flatten()
    flow.dense("F6", fields.size("units"))
    flow.activation("F6_activation", "tanh")
    flow.add("output", Linear(flow.channels, fields.size("classes"), bias=False, fixed=True), "head")
    return flow.tree


def alexnet(fields: Fields) -> Sequence:
    """AlexNet (Krizhevsky et al. 2012, figure 2): in 2012 three convolutions were split over two GPUs, as groups."""
    channels, groups = fields.sizes("channels", 5), fields.sizes("groups", 5)
    windows = ((11, 4, 2), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1))
    flow = picture(fields)
    for n, (size, stride, padding) in enumerate(windows):
        flow.convolution(f"conv{n + 1}", channels[n], size, stride, padding, groups[n])
        flow.activation(f"relu{n + 1}", "relu")
        if n in (0, 1, 4):
            flow.pool(f"pool{n + 1}", "max", 3, stride=2)
    flow.pool_to("average", 6)
    return _three_dense(flow, fields, first=6)


def vgg(fields: Fields) -> Sequence:
    """VGG (Simonyan and Zisserman 2014, table 1): channels of each convolution, and "M" where the picture is halved."""
    layers = fields.content.get("layers")
    if not isinstance(layers, list) or not all(layer == "M" or (type(layer) is int and layer > 0) for layer in layers):
        fields.refuse("layers", _('Give a list of channels and "M", such as [64, "M", 128, "M"].'))
    flow = picture(fields)
    stage, n = 1, 1
    for layer in layers:
        if layer == "M":
            flow.pool(f"pool{stage}", "max", 2)
            stage, n = stage + 1, 1
        else:
            flow.convolution(f"conv{stage}_{n}", layer, 3)
            flow.activation(f"relu{stage}_{n}", "relu")
            n += 1
    flow.pool_to("average", 7)
    return _three_dense(flow, fields, first=6)


def resnet(fields: Fields) -> Sequence:
    """ResNet (He et al. 2015, table 1), in Hugging Face's fields; with torchvision's it is read as `resnext`."""
    if "layers" in fields or "block" in fields:
        return resnext(Fields(DEFAULTS["resnext"] | fields.content, fields.where))
    depths = fields.sizes("depths")
    widths = fields.sizes("hidden_sizes", len(depths))
    return _residual(
        picture(fields),
        is_deep=fields.name("layer_type", "basic", "bottleneck") == "bottleneck",
        stem=fields.size("embedding_size"),
        depths=depths,
        widths=[(width, width // 4) for width in widths],
        halves_first=fields.flag("downsample_in_first_stage"),
        halves_early=fields.flag("downsample_in_bottleneck"),
        function=fields.activation("hidden_act"),
        classes=labels(fields),
    )


def resnext(fields: Fields) -> Sequence:
    """ResNeXt (Xie et al. 2016, table 1), wide ResNets (Zagoruyko and Komodakis 2016) and ResNets, as torchvision's."""
    is_deep = fields.name("block", "basic", "bottleneck") == "bottleneck"
    inner = fields.size("groups") * fields.size("width_per_group")
    if not is_deep and inner != 64:
        fields.refuse("block", _("Give groups and width_per_group to blocks of the kind bottleneck only."))
    return _residual(
        picture(fields),
        is_deep=is_deep,
        stem=64,
        depths=fields.sizes("layers", 4),
        widths=[((256 if is_deep else 64) * 2**n, inner * 2**n) for n in range(4)],
        groups=fields.size("groups"),
        classes=fields.size("num_classes"),
    )


def _residual(
    flow: Flow,
    is_deep: bool,
    stem: int,
    depths: tuple[int, ...],
    widths: list[tuple[int, int]],
    classes: int | None,
    groups: int = 1,
    halves_first: bool = False,
    halves_early: bool = False,
    function: str = "relu",
) -> Sequence:
    """Stages of residual blocks, so many channels wide and, where a block `is_deep`, so many within it."""

    def block(flow: Flow, setting: tuple[int, int, int]) -> None:
        width, inner, stride = setting
        source = flow.fork()
        if is_deep:
            flow.conv_norm("conv1", inner, 1, stride if halves_early else 1)
            flow.conv_norm("conv2", inner, 3, 1 if halves_early else stride, groups=groups)
            flow.conv_norm("conv3", width, 1, activation=None)
        else:
            flow.conv_norm("conv1", width, 3, stride)
            flow.conv_norm("conv2", width, 3, activation=None)
        _shortcut(flow, source, stride)
        flow.activation("activation", function)

    flow.conv_norm("conv1", stem, 7, stride=2)
    flow.pool("pool1", "max", 3, stride=2, padding=1)
    for n, (depth, (width, inner)) in enumerate(zip(depths, widths, strict=True)):
        first = 2 if n or halves_first else 1
        flow.blocks(f"conv{n + 2}", [(width, inner, stride) for stride in (first, *[1] * (depth - 1))], block)
    return classify(flow, classes)


def _shortcut(flow: Flow, source: Flow, stride: int) -> None:
    """What a residual block adds to its result: its input, brought to the same dimensions where they differ."""
    if stride != 1 or source.channels != flow.channels:
        source.conv_norm("shortcut", flow.channels, 1, stride, activation=None)
        flow.parts += source.parts


def regnet(fields: Fields) -> Sequence:
    """RegNet X and Y (Radosavovic et al. 2020): a residual block of one width, in groups; Y squeezes too."""
    depths, function = fields.sizes("depths"), fields.activation("hidden_act")
    widths = fields.sizes("hidden_sizes", len(depths))
    squeezes, group_width = fields.name("layer_type", "x", "y") == "y", fields.size("groups_width")

    def block(flow: Flow, setting: tuple[int, int]) -> None:
        width, stride = setting
        source = flow.fork()
        flow.conv_norm("conv1", width, 1, activation=function)
        flow.conv_norm("conv2", width, 3, stride, groups=max(1, width // group_width), activation=function)
        if squeezes:
            flow.squeeze_excite("squeeze_excite", max(1, round(source.channels / 4)))
        flow.conv_norm("conv3", width, 1, activation=None)
        _shortcut(flow, source, stride)
        flow.activation("activation", function)

    flow = picture(fields)
    flow.conv_norm("stem", fields.size("embedding_size"), 3, stride=2, activation=function)
    for n, (depth, width) in enumerate(zip(depths, widths, strict=True), 1):
        first = 2 if n > 1 or fields.flag("downsample_in_first_stage") else 1
        flow.blocks(f"stage{n}", [(width, stride) for stride in (first, *[1] * (depth - 1))], block)
    return classify(flow, labels(fields))


def densenet(fields: Fields) -> Sequence:
    """DenseNet-BC (Huang et al. 2016, table 1): a layer reads all before it in its block, and adds a few channels."""
    growth, squeezed = fields.size("growth_rate"), fields.size("bn_size")
    depths = fields.sizes("block_config")

    def norm_conv(flow: Flow, n: int, outputs: int, size: int) -> None:
        flow.batch_norm(f"norm{n}")
        flow.activation(f"relu{n}", "relu")
        flow.convolution(f"conv{n}", outputs, size, bias=False)

    def layer(flow: Flow, _n: int) -> None:
        before = flow.channels
        norm_conv(flow, 1, squeezed * growth, 1)
        norm_conv(flow, 2, growth, 3)
        flow.channels += before

    def transition(flow: Flow) -> None:
        norm_conv(flow, 1, flow.channels // 2, 1)
        flow.pool("pool", "average", 2)

    flow = picture(fields)
    flow.conv_norm("conv0", fields.size("num_init_features"), 7, stride=2)
    flow.pool("pool0", "max", 3, stride=2, padding=1)
    for n, depth in enumerate(depths, 1):
        flow.blocks(f"dense{n}", range(depth), layer)
        if n < len(depths):
            flow.group(f"transition{n}", transition)
    flow.batch_norm("norm")
    flow.activation("relu", "relu")
    return classify(flow, fields.size("num_classes"))


def convnext(fields: Fields) -> Sequence:
    """ConvNeXt (Liu et al. 2022, figure 4), and V2 (Woo et al. 2023, figure 5), which norms in place of its scale.

    What the figure calls convolutions of 1 x 1 are dense layers at each place in the authors' code and others'.
    """
    depths = fields.sizes("depths")
    widths = fields.sizes("hidden_sizes", len(depths))
    is_scaled, is_second = fields.rate("layer_scale_init_value") > 0, fields.name("model_type") == "convnextv2"
    function = fields.activation("hidden_act")

    def block(flow: Flow, width: int) -> None:
        flow.convolution("depthwise", width, 7, groups=width)
        flow.layer_norm("norm")
        flow.dense_at_each_place("wide", 4 * width)
        flow.activation("activation", function)
        if is_second:
            flow.layer_norm("response_norm")
        flow.dense_at_each_place("narrow", width)
        if is_scaled:
            flow.add("scale", Lone((width,)), "convolution")

    flow = picture(fields)
    patch = fields.size("patch_size")
    flow.convolution("stem", widths[0], patch, patch, padding=0)
    flow.layer_norm("stem_norm")
    for n, (depth, width) in enumerate(zip(depths, widths, strict=True), 1):
        if n > 1:
            flow.layer_norm(f"norm{n}")
            flow.convolution(f"halve{n}", width, 2, 2, padding=0)
        flow.blocks(f"stage{n}", [width] * depth, block)
    flow.pool_to("pool", 1)
    flow.layer_norm("norm")
    return classify(flow, labels(fields))


def _three_dense(flow: Flow, fields: Fields, first: int) -> Sequence:
    """Two dense layers of 4096, half of each dropped while training, and the classes."""
    flow.flatten()
    for n in (first, first + 1):
        flow.dense(f"fc{n}", 4096)
        flow.activation(f"relu{n}", "relu")
        flow.dropout(f"dropout{n}", 0.5)
    flow.dense(f"fc{first + 2}", fields.size("num_classes"), "head")
    return flow.tree
