"""NCSN++ and DDPM++, the networks of score SDEs (arXiv 2011.13456, section 4.4, appendix H).

A U-Net whose parts differ from Stable Diffusion's enough to have its own skeleton: changes of
resolution inside residual blocks and by FIR filters, sums divided by sqrt(2), pyramids of the
input and of the output that run beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from torch import Tensor, nn

from suffuse.errors import SuffuseError
from suffuse.networks.attention import PixelAttention
from suffuse.networks.blocks import Double, Downsample, Halve, Upsample, silu
from suffuse.networks.embed import FourierEmbedding, LabelEmbedding
from suffuse.networks.families import silence
from suffuse.networks.fir import FirDownsample, smooth_double, smooth_halve
from suffuse.networks.unet import Doors, Head


@dataclass(frozen=True)
class NCSNppConfig:
    """The choices of a network; the defaults are NCSN++ for CIFAR-10 with the VE SDE.

    Raises `SuffuseError` for a combination that no published network has.
    """

    image: int = 3  # channels
    size: int = 32  # pixels; decides which levels attend
    width: int = 128
    multiples: tuple[int, ...] = (1, 2, 2, 2)
    blocks: int = 4  # residual blocks a level on the way down, one more on the way up
    attention: tuple[int, ...] = (16,)  # at these sizes
    dropout: float = 0.1
    embedding: Literal["fourier", "positional"] = "fourier"
    fourier_scale: float = 16.0
    biggan: bool = True  # resolution changes inside residual blocks; else DDPM's convolutions
    fir: bool = True  # through smoothing filters
    rescale: bool = True  # every sum divided by sqrt(2)
    input_pyramid: Literal["none", "residual", "input_skip"] = "residual"
    output_pyramid: bool = False  # output_skip
    divide_by_label: bool = True  # the label being sigma
    unit_range: bool = True  # images in [0, 1], brought to [-1, 1] here
    groups: int | None = None  # of every normalisation; None: a quarter of the width, at most 32

    def __post_init__(self) -> None:
        if self.fir and not self.biggan:
            raise SuffuseError("DDPM's blocks have no FIR filters: take biggan=True or fir=False")
        if self.divide_by_label and self.embedding != "fourier":
            raise SuffuseError("only a Fourier embedding is told sigma, which to divide by")
        halvings = len(self.multiples) - 1
        if self.size % 2**halvings:
            raise SuffuseError(f"{self.size} pixels cannot be halved {halvings} times")

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(self.width * m for m in self.multiples)

    def attends(self, level: int) -> bool:
        return self.size >> level in self.attention

    def norm(self, width: int) -> nn.GroupNorm:
        return nn.GroupNorm(self.groups or min(width // 4, 32), width, eps=1e-6)


_DDPMPP = NCSNppConfig(
    embedding="positional", fir=False, input_pyramid="none", divide_by_label=False, unit_range=False
)  # fmt: skip

# score_sde's configurations that checkpoints were published for.
PUBLISHED = {
    "ve/cifar10_ncsnpp_continuous": NCSNppConfig(),
    "ve/cifar10_ncsnpp_deep_continuous": NCSNppConfig(blocks=8),
    "vp/cifar10_ddpmpp_continuous": _DDPMPP,
    "subvp/cifar10_ddpmpp_continuous": _DDPMPP,
    "vp/cifar10_ddpmpp_deep_continuous": replace(_DDPMPP, blocks=8),
    "subvp/cifar10_ddpmpp_deep_continuous": replace(_DDPMPP, blocks=8),
    "ve/celebahq_256_ncsnpp_continuous": NCSNppConfig(
        size=256, multiples=(1, 1, 2, 2, 2, 2, 2), blocks=2, dropout=0.0,
        input_pyramid="input_skip", output_pyramid=True,
    ),
    "ve/ffhq_ncsnpp_continuous": NCSNppConfig(
        size=1024, width=16, multiples=(1, 2, 4, 8, 16, 32, 32, 32), blocks=1, dropout=0.0,
        input_pyramid="input_skip", output_pyramid=True,
    ),
}  # fmt: skip


class Residual(nn.Module):
    """norm, SiLU, convolution, twice, around a skip; BigGAN's changes resolution on both ways."""

    def __init__(
        self, c: NCSNppConfig, width: int, out: int, change: Literal["down", "up"] | None = None
    ):
        super().__init__()
        self.norm1, self.norm2 = c.norm(width), c.norm(out)
        self.conv1 = nn.Conv2d(width, out, 3, padding=1)
        self.time = nn.Linear(4 * c.width, out)
        self.dropout = nn.Dropout(c.dropout)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.skip = nn.Conv2d(width, out, 1) if width != out or change else None
        self.scale = _scale(c)
        self.change = {None: None, "down": _halve(c), "up": _double(c)}[change]

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x (B, C, H, W); emb (B or 1, E), the embedding after its SiLU."""
        h = silu(self.norm1(x))
        if self.change is not None:
            h, x = self.change(h), self.change(x)
        h = self.conv1(h)
        h += self.time(emb)[:, :, None, None]  # (B or 1, out, 1, 1)
        h = self.conv2(self.dropout(silu(self.norm2(h))))
        h += x if self.skip is None else self.skip(x)
        return h * self.scale


class Attention(nn.Module):
    """`PixelAttention`, its sum rescaled."""

    def __init__(self, c: NCSNppConfig, width: int):
        super().__init__()
        self.pixels = PixelAttention(width, c.norm(width).num_groups)
        self.scale = _scale(c)

    def forward(self, x: Tensor) -> Tensor:
        return self.pixels(x) * self.scale


class Resolution(nn.Module):
    """One resolution: residual blocks, attention, what runs beside them, and the way on."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks, self.attn = nn.ModuleList(), nn.ModuleList()
        self.resample: nn.Module | None = None  # Residual, Downsample or Upsample
        self.pyramid: nn.Module | None = None  # of the input: to the width of the next level
        self.tap: Head | None = None  # of the output

    def change(self, x: Tensor, emb: Tensor) -> Tensor:
        assert self.resample is not None
        return self.resample(x, emb) if isinstance(self.resample, Residual) else self.resample(x)


class NCSNpp(nn.Module):
    """(B, C, H, W), label (B,) or () -> (B, C, H, W): eps, or the score if divided by sigma."""

    def __init__(self, c: NCSNppConfig):
        super().__init__()
        self.config, self.scale = c, _scale(c)
        self.shrink, self.grow = _halve(c), _double(c)  # the pyramids'
        self.time: nn.Module = (
            FourierEmbedding(c.width, 4 * c.width, c.fourier_scale)
            if c.embedding == "fourier"
            else LabelEmbedding(c.width, 4 * c.width, cos_first=False, shift=1)
        )
        self.stem = nn.Conv2d(c.image, c.width, 3, padding=1)
        skips = [c.width]
        self.down = nn.ModuleList(_down(c, i, skips) for i in range(len(c.widths)))
        width = c.widths[-1]
        self.mid = nn.ModuleList(
            [Residual(c, width, width), Attention(c, width), Residual(c, width, width)]
        )
        self.up = nn.ModuleList(_up(c, i, skips) for i in reversed(range(len(c.widths))))
        self.head = None if c.output_pyramid else _head(c, c.widths[0])

    def prepare(self, cond: Doors) -> None:
        """Nothing: these networks have no conditioning. Raises `SuffuseError` if there is some."""
        if any(door is not None for door in (cond.vector, cond.tokens, cond.concat)):
            raise SuffuseError("this network takes no conditioning; use guidance by a classifier")

    def forward(self, x: Tensor, label: Tensor, context: None = None) -> Tensor:
        emb = silu(self.time(label.reshape(-1)))  # (B or 1, E)
        x = (2 * x - 1 if self.config.unit_range else x).to(self.stem.weight.dtype)
        skips = self._descend(x, emb)
        h = skips[-1]
        for part in self.mid:
            h = part(h, emb) if isinstance(part, Residual) else part(h)
        h = self._ascend(h, skips, emb)
        return h / label.reshape(-1, 1, 1, 1) if self.config.divide_by_label else h

    def _descend(self, x: Tensor, emb: Tensor) -> list[Tensor]:
        """Everything the way up waits for."""
        skips, pyramid = [self.stem(x)], x
        for level in cast("Iterable[Resolution]", self.down):
            for j, block in enumerate(level.blocks):
                h = block(skips[-1], emb)
                skips.append(level.attn[j](h) if len(level.attn) else h)
            if level.resample is None:
                continue
            h = level.change(skips[-1], emb)
            if self.config.input_pyramid == "input_skip":
                pyramid = self.shrink(pyramid)
                h = h + cast("nn.Module", level.pyramid)(pyramid)
            elif self.config.input_pyramid == "residual":
                h = pyramid = (cast("nn.Module", level.pyramid)(pyramid) + h) * self.scale
            skips.append(h)
        return skips

    def _ascend(self, h: Tensor, skips: list[Tensor], emb: Tensor) -> Tensor:
        image: Tensor | None = None
        for level in cast("Iterable[Resolution]", self.up):
            for block in level.blocks:
                h = block(torch.cat((h, skips.pop()), dim=1), emb)
            h = level.attn[0](h) if len(level.attn) else h
            if level.tap is not None:
                image = level.tap(h) if image is None else self.grow(image) + level.tap(h)
            if level.resample is not None:
                h = level.change(h, emb)
        return cast("Tensor", image) if self.head is None else self.head(h)


# ---- building ----------------------------------------------------------------------------------


def _scale(c: NCSNppConfig) -> float:
    return 2**-0.5 if c.rescale else 1.0


def _halve(c: NCSNppConfig) -> Callable[[Tensor], Tensor]:
    return smooth_halve if c.fir else Halve()


def _double(c: NCSNppConfig) -> Callable[[Tensor], Tensor]:
    return smooth_double if c.fir else Double()


def _head(c: NCSNppConfig, width: int) -> Head:
    return Head(width, c.image, groups=c.norm(width).num_groups, eps=1e-6)


def _down(c: NCSNppConfig, i: int, skips: list[int]) -> Resolution:
    level, out = Resolution(), c.widths[i]
    for _ in range(c.blocks):
        level.blocks.append(Residual(c, skips[-1], out))
        if c.attends(i):
            level.attn.append(Attention(c, out))
        skips.append(out)
    if i < len(c.widths) - 1:
        skips.append(out)
        level.resample = (
            Residual(c, out, out, "down") if c.biggan else Downsample(out, symmetric=False)
        )
        if c.input_pyramid == "input_skip":
            level.pyramid = nn.Conv2d(c.image, out, 1)
        elif c.input_pyramid == "residual":
            level.pyramid = FirDownsample(c.image if i == 0 else c.widths[i - 1], out, fir=c.fir)
    return level


def _up(c: NCSNppConfig, i: int, skips: list[int]) -> Resolution:
    level, out = Resolution(), c.widths[i]
    width = c.widths[min(i + 1, len(c.widths) - 1)]
    for _ in range(c.blocks + 1):
        level.blocks.append(Residual(c, width + skips.pop(), out))
        width = out
    if c.attends(i):
        level.attn.append(Attention(c, out))
    if c.output_pyramid:
        level.tap = _head(c, out)
    if i:
        level.resample = Residual(c, out, out, "up") if c.biggan else Upsample(out)
    return level


def initialise(net: NCSNpp) -> NCSNpp:
    """Prepares fresh weights for training: residual branches and the output start at zero."""
    for module in net.modules():
        if isinstance(module, Residual):
            silence(module.conv2)
        elif isinstance(module, PixelAttention):
            silence(module.out)
        elif isinstance(module, Head):
            silence(module.conv)
    return net
