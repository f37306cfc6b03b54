"""Networks laid out for inference: the same functions of the same weights, in less time.

`pack` returns a twin of a network in which some parts have given way to a form that computes
faster and cannot be trained. The network it was made from stays as it is.
"""

from __future__ import annotations

import copy
import platform
from collections.abc import Callable
from itertools import product
from typing import Any, TypeVar

import torch
from torch import Size, Tensor, nn
from torch.nn.functional import gelu, interpolate, pad

from suffuse.networks.attention import GatedFeedForward
from suffuse.networks.blocks import Upsample, channels_last
from suffuse.networks.gradients import TrainedConv2d
from suffuse.networks.lora import absorb, has_attached

Net = TypeVar("Net", bound=nn.Module)


def pack(net: Net, *, layouts: bool = True) -> Net:
    """A twin of `net` for inference: call it where gradients are off, and leave it where it is.

    On x86 processors its layers lay their weights out as oneDNN reads them: at their first call,
    and again when the size of the picture changes. Until then they share those of `net`, so that
    whoever keeps only the twin holds every weight once. `torch.compile` cannot read these layouts
    and makes its own when it freezes weights; `layouts=False` leaves them out for it. Without
    them, the convolutions of `net` itself become channels-last.

    Adapters that are attached to `net` (`lora.Attached`) are merged into the twin, as they are now.

    On other devices none of this has been measured to help: `net` comes back, channels-last, or
    with adapters a twin that has them merged.
    """
    weight = next(net.parameters())
    if weight.device.type != "cpu":
        twin = _twin(net) if has_attached(net) else net
        channels_last(twin)
        return twin
    twin = _twin(net)
    replace_parts(twin, {Upsample: PhasedUpsample, GatedFeedForward: SplitFeedForward})
    if layouts and has_layouts(weight.dtype):
        replace_parts(twin, {nn.Conv2d: PackedConv2d, TrainedConv2d: PackedConv2d})
        if weight.dtype != torch.float32:  # float32 products go to MKL, faster with plain weights
            replace_parts(twin, {nn.Linear: PackedLinear})
    else:
        channels_last(twin)
    return twin


def _twin(net: Net) -> Net:
    """A copy that shares its weights with `net`, but for those that adapters change."""
    shared = {id(tensor): tensor for tensor in (*net.parameters(), *net.buffers())}
    twin = copy.deepcopy(net, shared)
    absorb(twin)
    return twin


def replace_parts(net: nn.Module, forms: dict[type[nn.Module], Callable[[Any], nn.Module]]) -> None:
    """Every part of exactly one of these types gives way to its other form."""
    for parent in list(net.modules()):
        for name, part in parent.named_children():
            if type(part) in forms:
                setattr(parent, name, forms[type(part)](part))


def has_layouts(dtype: torch.dtype) -> bool:
    """Whether oneDNN computes in `dtype` on this processor."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    if not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32


# ---- fewer products, less memory ---------------------------------------------------------------


class PhasedUpsample(nn.Module):
    """Doubling by nearest neighbours and a 3 x 3 convolution, in 4/9 of the products.

    Of the nine pixels that a kernel sees of the doubled picture, those with the same origin share
    a factor: their weights are summed beforehand. What is left is four kernels of 2 x 2 on the
    small picture, one for each of the four pixels that an old one becomes.
    """

    def __init__(self, part: Upsample):
        super().__init__()
        self.conv = part.conv  # for sizes that do not double
        self.phases = nn.ModuleList(
            convolution(kernel, part.conv.bias) for kernel in phase_kernels(part.conv.weight)
        )

    def forward(
        self, x: Tensor, emb: Tensor | None = None, size: tuple[int, int] | None = None
    ) -> Tensor:
        height, width = x.shape[-2:]
        doubled = (2 * height, 2 * width)
        if size is not None and tuple(size) != doubled:
            return self.conv(interpolate(x, size=size, mode="nearest"))
        shape = (len(x), self.conv.out_channels, *doubled)
        y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        x = pad(x, (1, 1, 1, 1))  # (B, C, H + 2, W + 2)
        for (i, j), conv in zip(product((0, 1), repeat=2), self.phases):
            y[:, :, i::2, j::2] = conv(x[:, :, i : i + height + 1, j : j + width + 1])
        return y  # (B, C, 2H, 2W)


def phase_kernels(weight: Tensor) -> list[Tensor]:
    """(O, I, 3, 3) -> four of (O, I, 2, 2), for even and odd rows times even and odd columns.

    Of the three taps around an even pixel the last two fall on one old pixel, of those around an
    odd one the first two. Sums are made in float32.
    """

    def halves(w: Tensor, dim: int) -> list[Tensor]:
        first, middle, last = w.unbind(dim)
        return [torch.stack((first, middle + last), dim), torch.stack((first + middle, last), dim)]

    wide = weight.detach().float()
    return [k.to(weight.dtype) for rows in halves(wide, 2) for k in halves(rows, 3)]


def convolution(weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    """A convolution without padding, of given weights (O, I, h, w)."""
    out, into, *size = weight.shape
    conv = nn.Conv2d(into, out, (size[0], size[1]), bias=bias is not None, device="meta")
    return with_weights(conv, weight, bias)


class SplitFeedForward(nn.Module):
    """GEGLU some rows at a time, so that its wide middle stays in the cache and in the heap.

    At 64 x 64 latents the middle is eight times a picture of 10 MB, and most of the time beyond
    the products would go into asking the system for that memory.
    """

    limit = 8 << 20  # bytes of the middle at a time

    def __init__(self, part: GatedFeedForward):
        super().__init__()
        weights, biases = part.fc1.weight.chunk(2), part.fc1.bias.chunk(2)
        self.hidden, self.gate = map(linear, weights, biases)
        self.fc2 = part.fc2

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():  # pieces would only multiply the frozen weights
            return self.piece(x)
        flat = x.flatten(0, -2)  # (N, D)
        middle = len(flat) * self.hidden.bias.numel() * x.element_size()
        pieces = flat.chunk(-(-middle // self.limit))
        return torch.cat([self.piece(rows) for rows in pieces]).view(x.shape)

    def piece(self, x: Tensor) -> Tensor:
        return self.fc2(gelu(self.gate(x)).mul_(self.hidden(x)))


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A linear layer of given weights (O, I)."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    return with_weights(layer, weight, bias)


Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def with_weights(layer: Layer, weight: Tensor, bias: Tensor | None) -> Layer:
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None:
            layer.register_parameter(name, nn.Parameter(tensor.detach(), requires_grad=False))
    return layer


# ---- oneDNN's layouts --------------------------------------------------------------------------


class Packed(nn.Module):
    """A layer whose weight is in an order that only oneDNN reads."""

    def __init__(self, part: nn.Linear | nn.Conv2d):
        super().__init__()
        self.weight, self.bias = part.weight.detach(), part.bias  # the weight is no parameter

    def check(self, x: Tensor) -> None:
        if x.requires_grad and torch.is_grad_enabled():  # oneDNN would cut the graph in silence
            raise RuntimeError("a packed network passes no gradients: use the one it was made from")

    def _save_to_state_dict(self, *args: Any) -> None:
        raise RuntimeError("a packed network cannot be saved: save the one it was made from")


class PackedConv2d(Packed):
    """A convolution laid out for one size of picture.

    Torch would bring the weight into this order at every call, which at 16 x 16 and below takes
    as long as the convolution itself. The order depends on the size: 1280 channels at 16 x 16 with
    weights in the order of 64 x 64 are seven times slower.
    """

    def __init__(self, part: nn.Conv2d):
        super().__init__(part)
        self.out_channels = part.out_channels
        padding = [int(n) for n in part.padding]
        self.how = (padding, part.stride, part.dilation, part.groups)
        self.shape: Size | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        x = x.contiguous(memory_format=torch.channels_last)
        if x.shape != self.shape:
            self.lay_out(x.shape)
        return torch.ops.mkldnn._convolution_pointwise(
            x, self.weight, self.bias, *self.how, "none", [], ""
        )

    def lay_out(self, shape: Size) -> None:
        plain = self.weight.to_dense() if self.weight.is_mkldnn else self.weight
        plain = plain.contiguous(memory_format=torch.channels_last)
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(plain, *self.how, list(shape))
        self.shape = shape


class PackedLinear(Packed):
    """A linear layer; the order is the same for any number of rows."""

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        if not self.weight.is_mkldnn:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight.contiguous())
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
