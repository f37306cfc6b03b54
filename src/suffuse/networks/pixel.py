"""The pixel-space families: DDPM's U-Net, ADM's improved one, and SR3's."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from suffuse.networks.attention import FusedAttention, JointAttention, PixelAttention
from suffuse.networks.blocks import Double, Downsample, Halve, ResBlock, Upsample, silu
from suffuse.networks.embed import LabelEmbedding
from suffuse.networks.families import Kit
from suffuse.networks.unet import Head, UNet


@dataclass(frozen=True)
class DDPMConfig:
    """DDPM's U-Net; the defaults are CIFAR-10's (2006.11239, appendix B)."""

    in_channels: int = 3
    out_channels: int = 3
    channels: tuple[int, ...] = (128, 256, 256, 256)
    blocks: int = 2  # residual blocks a level on the way down, one more on the way up
    attends: tuple[bool, ...] = (False, True, False, False)
    heads: tuple[int, ...] = (1, 1, 1, 1)  # how many, by level; the middle has the last level's
    mid_attention: bool = True
    groups: int = 32
    eps: float = 1e-6  # of the norms
    symmetric: bool = False  # whether strided convolutions pad all around
    cos_first: bool = False
    shift: float = 1.0
    classes: int = 0  # 0: without labels
    dropout: float = 0.0

    @property
    def embedding(self) -> int:
        return 4 * self.channels[0]


def ddpm(c: DDPMConfig) -> UNet:
    """The U-Net of Ho et al., which diffusers calls UNet2DModel."""

    def attention(level: int) -> PixelAttention:
        return PixelAttention(c.channels[level], c.groups, heads=c.heads[level], eps=c.eps)

    def res(width: int, out: int) -> ResBlock:
        return ResBlock(width, out, c.embedding, groups=c.groups, eps=c.eps, dropout=c.dropout)

    kit = Kit(
        res=res,
        attend=lambda level, _: attention(level) if c.attends[level] else None,
        middle=lambda: attention(-1) if c.mid_attention else None,
        shrink=lambda width: Downsample(width, symmetric=c.symmetric),
        grow=Upsample,
    )
    down, mid, up = kit.ladder(c.channels[0], c.channels, c.blocks)
    stem = nn.Conv2d(c.in_channels, c.channels[0], 3, padding=1)
    time = LabelEmbedding(c.channels[0], c.embedding, cos_first=c.cos_first, shift=c.shift)
    head = Head(c.channels[0], c.out_channels, groups=c.groups, eps=c.eps)
    return UNet(stem, time, down, mid, up, head, class_table(c.classes, c.embedding))


def class_table(classes: int, embedding: int) -> nn.Linear | None:
    """One-hot labels (B, classes) at the `vector` door -> (B, embedding); a row of zeros adds
    nothing, so it stands for no class at all. None for no classes."""
    return nn.Linear(classes, embedding, bias=False) if classes else None


@dataclass(frozen=True)
class ADMConfig:
    """The U-Net of improved DDPM and ADM; the defaults are ImageNet 64's (2105.05233, table 11).

    With learned variance `out_channels` is twice the picture's. An upsampler has the low resolution
    beside x, so twice the channels go in. With a `context` it reads text, as GLIDE and the decoder
    of unCLIP do (2112.10741, section 2.3).
    """

    in_channels: int = 3
    out_channels: int = 6
    width: int = 192  # that of the sinusoid; the embedding is four times as wide
    channels: tuple[int, ...] = (192, 384, 576, 768)
    blocks: int = 3  # residual blocks a level on the way down, one more on the way up
    attends: tuple[bool, ...] = (False, True, True, True)
    heads: tuple[int, ...] = (3, 6, 9, 12)  # how many, by level; the middle has the last level's
    up_heads: tuple[int, ...] | None = None  # those on the way up, where they differ
    mid_attention: bool = True
    context: int = 0  # numbers in the state of a text's token; 0: without text
    classes: int = 0  # 0: without labels
    scale_shift: bool = True  # adaptive group norm; otherwise the embedding is added
    res_resample: bool = True  # residual blocks change the resolution; otherwise convolutions do
    label_scale: float = 1.0  # the network sees its label, a step of T, times this: 1000 / T or 1
    dropout: float = 0.0

    @property
    def embedding(self) -> int:
        return 4 * self.width


def adm(c: ADMConfig) -> UNet:
    """The improved U-Net of Dhariwal and Nichol (2105.05233, section 3)."""
    down, mid, up = adm_kit(c).ladder(c.channels[0], c.channels, c.blocks)
    stem = nn.Conv2d(c.in_channels, c.channels[0], 3, padding=1)
    time = LabelEmbedding(c.width, c.embedding, scale=c.label_scale)
    head = Head(c.channels[0], c.out_channels)
    return UNet(stem, time, down, mid, up, head, class_table(c.classes, c.embedding))


def adm_kit(c: ADMConfig) -> Kit:
    """What the improved U-Net and its classifier are put together from."""

    def res(width: int, out: int, resample: Halve | Double | None = None) -> ResBlock:
        return ResBlock(
            width,
            out,
            c.embedding,
            scale_shift=c.scale_shift,
            resample=resample,
            dropout=c.dropout,
        )

    def attention(level: int, up: bool) -> FusedAttention | JointAttention:
        heads = (c.up_heads if up and c.up_heads else c.heads)[level]
        if c.context:
            return JointAttention(c.channels[level], c.context, heads=heads)
        return FusedAttention(c.channels[level], heads=heads)

    return Kit(
        res=res,
        attend=lambda level, up: attention(level, up) if c.attends[level] else None,
        middle=lambda: attention(-1, False) if c.mid_attention else None,
        shrink=lambda width: res(width, width, Halve()) if c.res_resample else Downsample(width),
        grow=lambda width: res(width, width, Double()) if c.res_resample else Upsample(width),
    )


@dataclass(frozen=True)
class SR3Config:
    """SR3's U-Net in its public implementation; the defaults are those of 16 -> 128 (2104.07636).

    Six channels go in: x, then the picture to be enlarged, at its new size. With `continuous` the
    label is the noise level sqrt(alpha_bar), and its embedding reaches the blocks without an
    activation; otherwise it is a timestep, as in DDPM.
    """

    in_channels: int = 6
    out_channels: int = 3
    width: int = 64  # of the stem, the sinusoid and the embedding
    channels: tuple[int, ...] = (64, 128, 256, 512, 512)
    blocks: int = 2
    attends: tuple[bool, ...] = (False, False, False, True, False)
    mid_attention: bool = True  # the public code has no other
    groups: int = 32
    continuous: bool = True
    dropout: float = 0.0


def sr3(c: SR3Config) -> UNet:
    """The U-Net of Saharia et al. as the public implementation (Janspiry) builds it."""

    def attention(level: int) -> FusedAttention:
        return FusedAttention(c.channels[level], c.groups, bias=False)

    def res(width: int, out: int) -> ResBlock:
        return ResBlock(width, out, c.width, groups=c.groups, dropout=c.dropout)

    kit = Kit(
        res=res,
        attend=lambda level, _: attention(level) if c.attends[level] else None,
        middle=lambda: attention(-1) if c.mid_attention else None,
        shrink=Downsample,
        grow=Upsample,
    )
    down, mid, up = kit.ladder(c.width, c.channels, c.blocks)
    stem = nn.Conv2d(c.in_channels, c.width, 3, padding=1)
    time = LabelEmbedding(c.width, c.width, hidden=4 * c.width, cos_first=False)
    head = Head(c.channels[0], c.out_channels, groups=c.groups)
    activation = unchanged if c.continuous else silu
    return UNet(stem, time, down, mid, up, head, activation=activation)


def unchanged(x: Tensor) -> Tensor:
    return x
