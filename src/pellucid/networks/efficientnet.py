"""EfficientNet (Tan and Le 2019), in its lite form: pictures to classes, with few parameters and operations.

Lite leaves out what small machines do badly: no squeeze-and-excitation, ReLU6 in place of SiLU, and a stem and a head
that are the same in all sizes. The settings of `EfficientNetConfig` are those of lite0.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.networks.efficientnet_config import EfficientNetConfig, Stage


class EfficientNet(nn.Module):
    """Stem, blocks, head, the mean over all places, and one linear layer to the classes.

    Stochastic depth, with which the published weights were trained, is left out: it does nothing once they are.

    Args:
        config: The settings.
        seed: Of the initial parameters; None leaves them unset, for weights that are loaded.
    """

    def __init__(self, config: EfficientNetConfig, seed: int | None = 0) -> None:
        super().__init__()
        self.config = config
        self.conv_stem = SameConv2d(3, config.stem, kernel_size=3, stride=2)
        self.bn0 = _norm(config, config.stem)
        self.blocks = nn.ModuleList()
        width = config.stem
        for stage in config.stages:
            for n in range(stage.repeat):
                self.blocks.append(Block(config, stage, width, stage.stride if n == 0 else 1))
                width = stage.channels
        self.conv_head = SameConv2d(width, config.head, kernel_size=1)
        self.bn1 = _norm(config, config.head)
        self.relu6 = nn.ReLU6()
        self.dropout = nn.Dropout(config.dropout)
        self.fc = nn.Linear(config.head, config.classes)
        if seed is not None:
            self.initialise(seed)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits (B, classes) of pictures (B, 3, H, W), scaled as in training."""
        return self.fc(self.dropout(self.features(x_BCHW).mean((2, 3))))

    def features(self, x_BCHW: Tensor) -> Tensor:
        """What the last convolution sees at each place: (B, head, H / 32, W / 32), sizes rounded up."""
        x_BCHW = self.relu6(self.bn0(self.conv_stem(x_BCHW)))
        for block in self.blocks:
            x_BCHW = block(x_BCHW)
        return self.relu6(self.bn1(self.conv_head(x_BCHW)))

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draw all parameters anew, as the paper's code does.

        Convolutions N(0, sqrt(2 / fan_out)) (He et al. 2015), the last layer uniform within 1 / sqrt(classes).
        """
        generator = torch.Generator(self.fc.weight.device).manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
                module.weight.normal_(0.0, math.sqrt(2 / fan_out), generator=generator)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
        bound = 1 / math.sqrt(self.config.classes)
        self.fc.weight.uniform_(-bound, bound, generator=generator)
        self.fc.bias.zero_()


class Block(nn.Module):
    """MBConv, the inverted residual (Sandler et al. 2018): wider by 1×1, look around channel by channel, narrow again.

    What it is given is added where it fits; there is no activation after the narrowing.
    """

    def __init__(self, config: EfficientNetConfig, stage: Stage, width: int, stride: int) -> None:
        super().__init__()
        inner = width * stage.expand
        self.expands, self.residual = stage.expand > 1, stride == 1 and width == stage.channels
        if self.expands:
            self.expand_conv = SameConv2d(width, inner, kernel_size=1)
            self.bn0 = _norm(config, inner)
        self.depthwise_conv = SameConv2d(inner, inner, kernel_size=stage.kernel, stride=stride, groups=inner)
        self.bn1 = _norm(config, inner)
        self.project_conv = SameConv2d(inner, stage.channels, kernel_size=1)
        self.bn2 = _norm(config, stage.channels)
        self.relu6 = nn.ReLU6()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BEHW = self.relu6(self.bn0(self.expand_conv(x_BCHW))) if self.expands else x_BCHW
        y_BEHW = self.relu6(self.bn1(self.depthwise_conv(y_BEHW)))
        y_BCHW = self.bn2(self.project_conv(y_BEHW))
        return x_BCHW + y_BCHW if self.residual else y_BCHW


class SameConv2d(nn.Conv2d):
    """A convolution without bias whose result is ceil(size / stride) wide and high.

    TensorFlow's "same" padding: as many zeros as are needed, and where they are odd, the odd one below and to the
    right. Which strides see what differs from a padding of half the kernel.
    """

    def __init__(self, given: int, channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(given, channels, kernel_size, stride, groups=groups, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        high, wide = (
            max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            for size, stride, kernel in zip(x_BCHW.shape[2:], self.stride, self.kernel_size, strict=True)
        )
        if high % 2 or wide % 2:
            x_BCHW = F.pad(x_BCHW, (wide // 2, wide - wide // 2, high // 2, high - high // 2))
            high = wide = 0
        return F.conv2d(x_BCHW, self.weight, None, self.stride, (high // 2, wide // 2), groups=self.groups)


def _norm(config: EfficientNetConfig, channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=config.norm_eps, momentum=config.norm_momentum)
