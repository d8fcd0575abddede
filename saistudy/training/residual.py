"""A plain residual classifier: the network that seed document 001 speaks of without naming it."""

import torch
from torch import nn

STD = 0.02  # seed document 001, L178: truncated normal


class Block(nn.Module):
    """Two convolutions with their BatchNorm, and the input added: He et al. 2016 (CVPR), figure 2."""

    def __init__(self, before_n: int, after_n: int, stride: int, sum_in_place: bool = False):
        super().__init__()
        self.sum_in_place = sum_in_place
        self.body = nn.Sequential(
            nn.Conv2d(before_n, after_n, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after_n),
            nn.ReLU(inplace=True),
            nn.Conv2d(after_n, after_n, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after_n),
        )
        fits = stride == 1 and before_n == after_n
        self.short = nn.Identity() if fits else _shortcut(before_n, after_n, stride)
        self.last = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, before, H, W) to (N, after, H / stride, W / stride)."""
        out = self.body(x)
        if self.sum_in_place:
            out += self.short(x)
        else:
            out = out + self.short(x)  # what seed document 001, L177 holds to be cheaper
        return self.last(out)


def _shortcut(before_n: int, after_n: int, stride: int) -> nn.Sequential:
    """A mean over stride x stride, then a 1 x 1 convolution: He et al. 2019 (CVPR), figure 2c.

    Not a 1 x 1 convolution with a stride: channels-last with fewer than 8 channels, its backward pass writes
    past its memory on a CPU (oneDNN issue 6035; seen here 2026-11 with AVX2: 4 channels, process aborted).
    """
    return nn.Sequential(nn.AvgPool2d(stride), nn.Conv2d(before_n, after_n, 1, bias=False))


def build(width: int, blocks_n: int, classes_n: int, sum_in_place: bool = False) -> nn.Sequential:
    """Three stages of `blocks_n` blocks, `width`, 2 x and 4 x as many channels, each at half the size.

    Takes (N, 3, H, W) float in 0 to 1, gives scores (N, classes). A sequence, so that it can be checkpointed.
    """
    layers = [nn.Sequential(nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(True))]
    before_n = width
    for stage in range(3):
        for i in range(blocks_n):
            after_n = width * 2**stage
            layers.append(Block(before_n, after_n, 2 if i == 0 else 1, sum_in_place))
            before_n = after_n
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before_n, classes_n))
    return nn.Sequential(*layers, head)


def truncated_normal(network: nn.Module) -> None:
    """Draw the weights of every convolution and linear layer anew, truncated at two STD; biases to 0."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=STD, a=-2 * STD, b=2 * STD)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
