"""The U-Net skeleton: stem, down, middle, up, head. The parts are injected by `families.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from suffuse.networks.attention import (
    CrossAttention,
    FusedAttention,
    JointAttention,
    KeyValue,
    PixelAttention,
    SpatialTransformer,
    key_mask,
    repeat_rows,
)
from suffuse.networks.blocks import Downsample, ResBlock, Upsample, silu
from suffuse.networks.embed import LabelEmbedding

Attention = SpatialTransformer | PixelAttention | FusedAttention | JointAttention
Resample = Downsample | Upsample | ResBlock


class Doors(Protocol):
    """What the skeleton reads of a conditioning: each field a tensor or None."""

    @property
    def vector(self) -> Tensor | None: ...
    @property
    def tokens(self) -> Tensor | None: ...
    @property
    def mask(self) -> Tensor | None: ...
    @property
    def concat(self) -> Tensor | None: ...


@dataclass(frozen=True)
class Context:
    """Everything that depends on the conditioning alone, made once per generation."""

    rows: int | None  # its batch; None if there is no conditioning at all
    kvs: Sequence[KeyValue]  # one for each cross-attention, in order
    mask: Tensor | None  # (B, 1, 1, L)
    vector: Tensor | None  # (B, E), already projected
    concat: Tensor | None  # (B, C, H, W)


class Stage(nn.Module):
    """One resolution: residual blocks, each followed by attention where the level has it."""

    def __init__(
        self,
        res: Sequence[ResBlock],
        attn: Sequence[Attention] = (),
        resample: Resample | None = None,
    ):
        super().__init__()
        self.res = nn.ModuleList(res)
        self.attn = nn.ModuleList(attn)
        self.resample = resample

    def block(self, j: int, x: Tensor, emb: Tensor, context: Context) -> Tensor:
        x = self.res[j](x, emb)
        return self.attn[j](x, context.kvs, context.mask) if j < len(self.attn) else x


class Head(nn.Module):
    """norm, SiLU, convolution."""

    def __init__(self, width: int, out: int, *, groups: int = 32, eps: float = 1e-5):
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=eps)
        self.conv = nn.Conv2d(width, out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(silu(self.norm(x)))


def descend(down: nn.ModuleList, x: Tensor, emb: Tensor, context: Context) -> list[Tensor]:
    """The way down from the stem's output x: what every part of it made, x first."""
    states = [x]
    for stage in cast("Iterable[Stage]", down):
        for j in range(len(stage.res)):
            states.append(stage.block(j, states[-1], emb, context))
        if stage.resample is not None:
            states.append(stage.resample(states[-1], emb))
    return states


class UNet(nn.Module):
    """(n, C, H, W), label (n,) or (), context of B rows -> (B, C_out, H, W).

    n is B, or a whole fraction of it: the batch then stands for itself over and over, as guidance
    asks for every picture under several texts. Until the first text is read their rows are the
    same and are computed once; in Stable Diffusion that includes one of five attentions over all
    the pixels.

    `vector` makes of what comes through that door what is added to the label's embedding; without
    it, that comes as wide as the embedding. `activation` acts on their sum before the blocks read
    it.
    """

    def __init__(
        self,
        stem: nn.Conv2d,
        time: LabelEmbedding,
        down: Sequence[Stage],
        mid: Stage,
        up: Sequence[Stage],
        head: Head,
        vector: nn.Module | None = None,
        activation: Callable[[Tensor], Tensor] = silu,
    ):
        super().__init__()
        self.stem, self.time, self.vector, self.activation = stem, time, vector, activation
        self.down, self.mid, self.up = nn.ModuleList(down), mid, nn.ModuleList(up)
        self.head = head
        readers = (CrossAttention, JointAttention)  # of the text
        self.cross = [m for m in self.modules() if isinstance(m, readers)]
        for slot, module in enumerate(self.cross):
            module.slot = slot

    def prepare(self, cond: Doors) -> Context:
        """Keys, values and projected vectors of `cond`: what no step has to compute again."""
        kvs = [] if cond.tokens is None else [m.prepare(cond.tokens) for m in self.cross]
        vector = cond.vector
        if vector is not None and self.vector is not None:
            vector = self.vector(vector)
        doors = (cond.tokens, cond.vector, cond.concat)
        rows = next((len(door) for door in doors if door is not None), None)
        return Context(rows, kvs, key_mask(cond.mask), vector, cond.concat)

    def forward(self, x: Tensor, label: Tensor, context: Context) -> Tensor:
        rows = context.rows or len(x)
        # A label shared by the whole batch is embedded once and broadcast.
        emb = self.time(label.reshape(-1))
        if len(emb) > 1 or context.vector is not None or context.concat is not None:
            x = repeat_rows(x, rows)  # something tells the rows apart before any text does
            emb = emb if len(emb) == 1 else repeat_rows(emb, rows)
        emb = self.activation(emb if context.vector is None else emb + context.vector)
        x = x if context.concat is None else torch.cat((x, context.concat), dim=1)
        # The sampler's own numbers are float32 and contiguous; the network's are neither.
        x = self.stem(x.to(self.stem.weight.dtype, memory_format=torch.channels_last))
        skips = descend(self.down, x, emb, context)
        x = self.mid.block(0, skips[-1], emb, context)
        x = self.mid.res[1](x, emb)
        for stage in cast("Iterable[Stage]", self.up):
            for j in range(len(stage.res)):
                skip = repeat_rows(skips.pop(), len(x))
                x = stage.block(j, torch.cat((x, skip), dim=1), emb, context)
            if stage.resample is not None:
                # Sizes that do not halve evenly grow back to the size of the waiting skip.
                x = stage.resample(x, emb, skips[-1].shape[-2:])
        return repeat_rows(self.head(x), rows)
