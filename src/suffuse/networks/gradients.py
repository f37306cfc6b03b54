"""Convolutions that learn faster on a processor: the same function, another backward pass.

oneDNN computes the gradient of a convolution's weights at a third to a half of the speed of its
forward pass (measured in float32 on AVX2, see benchmarks/README.md). The gradient is a product of
two matrices, and as such it takes half the time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import Function, once_differentiable
from torch.nn.functional import conv2d, pad

LIMIT = 16 << 20  # bytes of patches that are laid out at a time


def for_training(net: nn.Module) -> None:
    """Lets the 3 x 3 convolutions of `net` that gain by it compute gradients this way.

    Weights and their names stay as they are. Without gradients, on other devices, in other
    precisions and compiled they are plain convolutions.
    """
    for part in net.modules():
        if type(part) is nn.Conv2d and _suits(part):
            part.__class__ = TrainedConv2d


def _suits(part: nn.Conv2d) -> bool:
    same = part.padding == (1, 1) and part.stride == part.dilation == (1, 1)
    return part.kernel_size == (3, 3) and same and part.groups == 1 and narrowest(part) >= 64


def narrowest(part: nn.Conv2d) -> int:
    return min(part.in_channels, part.out_channels)


class TrainedConv2d(nn.Conv2d):
    """A 3 x 3 convolution with padding 1: (B, C, H, W) -> (B, O, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        if not self._gains(x):
            return super().forward(x)
        return _Convolution.apply(x, self.weight, self.bias)

    def _gains(self, x: Tensor) -> bool:
        # Narrow layers on small pictures do not, those of the preset `emoji` among them.
        return (
            torch.is_grad_enabled()
            and self.weight.requires_grad
            and x.device.type == "cpu"
            and x.dtype == self.weight.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
            and (narrowest(self) >= 256 or x.shape[-1] >= 64)
        )


class _Convolution(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return conv2d(x, weight, bias, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        needed, learned, biased = ctx.needs_input_grad
        of_x = _input_gradient(grad, x, weight) if needed else None
        of_bias = grad.sum((0, 2, 3)) if biased else None
        return of_x, weight_gradient(grad, x) if learned else None, of_bias


def _input_gradient(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    one, none = (1, 1), (0, 0)
    told: Any = torch.ops.aten.convolution_backward(
        grad, x, weight, None, one, one, one, False, none, 1, (True, False, False)
    )
    return told[0]


def weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """The gradient (O, C, 3, 3), channels-last, from that of the output (B, O, H, W) and x.

    Every pixel's patch of x is a row of 9 C numbers, every pixel of the gradient one of O: their
    product over all pixels is the gradient. Lines of pixels are taken some at a time, because
    patches need nine times the memory of x.
    """
    batch, channels, height, width = x.shape
    lines = pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))  # (B, H + 2, W + 2, C)
    b, h, w, c = lines.stride()
    patches = lines.as_strided((batch, height, width, 3, 3, channels), (b, h, w, h, w, c))
    gradients = grad.permute(0, 2, 3, 1)  # (B, H, W, O)
    found = x.new_zeros(grad.shape[1], 9 * channels)
    at_once = max(1, LIMIT // (width * 9 * channels * x.element_size()))  # lines of pixels
    for pictures in range(0, batch, max(1, at_once // height)):
        many = slice(pictures, pictures + max(1, at_once // height))
        for line in range(0, height, at_once):
            here = (many, slice(line, line + at_once))
            rows = gradients[here].flatten(0, 2)  # (N, O)
            found.addmm_(rows.t(), patches[here].reshape(len(rows), -1))
    return found.view(-1, 3, 3, channels).permute(0, 3, 1, 2)
