"""Attention over tokens, and the transformer that stands between a U-Net's residual blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, pad, scaled_dot_product_attention

KeyValue = tuple[Tensor, Tensor]  # (B, heads, L, D / heads) twice

# Sums go into the fresh output of a layer, `y = layer(...); y += x`, so that none is allocated for
# them. Gradients do not mind: no layer's backward pass asks for its own output.


def repeat_rows(x: Tensor, rows: int) -> Tensor:
    """(n, ...) -> (rows, ...): the batch over and over, in its memory format; n divides rows."""
    return x if len(x) == rows else torch.cat([x] * (rows // len(x)))


def split_heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)  # (B, L, D) -> (B, heads, L, D / heads)


def join_heads(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)  # (B, heads, L, D / heads) -> (B, L, D)


class SelfAttention(nn.Module):
    """Multi-head self-attention (1706.03762, section 3.2.2): (B, L, D) -> (B, L, D)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, width, bias=False)
        self.v = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (split_heads(project(x), self.heads) for project in (self.q, self.k, self.v))
        return self.out(join_heads(scaled_dot_product_attention(q, k, v)))


class CrossAttention(nn.Module):
    """Multi-head attention from pictures to text.

    Keys and values depend on the text alone: `prepare` makes them once per generation and the
    skeleton hands the one at `slot` back at every step.
    """

    def __init__(self, width: int, context: int, heads: int):
        super().__init__()
        self.heads, self.slot = heads, -1
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(context, width, bias=False)
        self.v = nn.Linear(context, width, bias=False)
        self.out = nn.Linear(width, width)

    def prepare(self, tokens: Tensor) -> KeyValue:
        """tokens (B, L, context) -> keys and values."""
        return split_heads(self.k(tokens), self.heads), split_heads(self.v(tokens), self.heads)

    def forward(self, x: Tensor, kv: KeyValue, mask: Tensor | None) -> Tensor:
        q = split_heads(self.q(x), self.heads)
        return self.out(join_heads(scaled_dot_product_attention(q, *kv, attn_mask=mask)))


class GatedFeedForward(nn.Module):
    """GEGLU feed-forward (2002.05202): the second half of the first layer gates the first."""

    def __init__(self, width: int, ratio: int = 4):
        super().__init__()
        self.fc1 = nn.Linear(width, 2 * ratio * width)
        self.fc2 = nn.Linear(ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        hidden, gate = self.fc1(x).chunk(2, dim=-1)
        return self.fc2(hidden * gelu(gate))


class TransformerBlock(nn.Module):
    """Self-, cross-attention, feed-forward, each behind a norm (2112.10752, appendix E)."""

    def __init__(self, width: int, context: int, heads: int):
        super().__init__()
        self.norm1, self.self_attn = nn.LayerNorm(width), SelfAttention(width, heads)
        self.norm2, self.cross_attn = nn.LayerNorm(width), CrossAttention(width, context, heads)
        self.norm3, self.ff = nn.LayerNorm(width), GatedFeedForward(width)

    def forward(self, x: Tensor, kvs: Sequence[KeyValue], mask: Tensor | None) -> Tensor:
        """x (n, L, D), n the batch of the text or a whole fraction of it -> (B, L, D)."""
        kv = kvs[self.cross_attn.slot]
        h = self.self_attn(self.norm1(x))
        h += x
        x = repeat_rows(h, len(kv[0]))  # here the text tells rows of one picture apart
        h = self.cross_attn(self.norm2(x), kv, mask)
        h += x
        x = h
        h = self.ff(self.norm3(x))
        h += x
        return h


class SpatialTransformer(nn.Module):
    """A picture as a sequence of its pixels: (n, C, H, W) -> (B, C, H, W), B the text's batch.

    Stable Diffusion 1 projects in and out with 1 x 1 convolutions and 2.x with linear layers; on a
    sequence they are the same product, so one form serves both (weights/maps reshape on loading).
    """

    def __init__(self, width: int, context: int, heads: int, depth: int, groups: int = 32):
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.proj_in = nn.Linear(width, width)
        self.blocks = nn.ModuleList(TransformerBlock(width, context, heads) for _ in range(depth))
        self.proj_out = nn.Linear(width, width)

    def forward(self, x: Tensor, kvs: Sequence[KeyValue], mask: Tensor | None) -> Tensor:
        height, width = x.shape[-2:]
        h = self.norm(x).flatten(2).transpose(1, 2)  # (B, H*W, C): a view if x is channels-last
        h = self.proj_in(h)
        for block in self.blocks:
            h = block(h, kvs, mask)
        h = self.proj_out(h).transpose(1, 2).unflatten(2, (height, width))  # (B, C, H, W)
        h += repeat_rows(x, len(h))
        return h


class PixelAttention(nn.Module):
    """Self-attention over pixels, as autoencoders and DDPM have it (2006.11239, appendix B).

    Text plays no part; `kvs` and `mask` are there because the skeleton hands them to any attention.
    """

    def __init__(self, width: int, groups: int = 32, *, heads: int = 1, eps: float = 1e-6):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(groups, width, eps=eps)
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Tensor, kvs: Sequence[KeyValue] = (), mask: Tensor | None = None
    ) -> Tensor:
        height, width = x.shape[-2:]
        h = self.norm(x).flatten(2).transpose(1, 2)  # (B, H*W, C)
        q, k, v = (split_heads(project(h), self.heads) for project in (self.q, self.k, self.v))
        h = self.out(join_heads(scaled_dot_product_attention(q, k, v)))
        h = h.transpose(1, 2).unflatten(2, (height, width))  # (B, C, H, W)
        h += x
        return h


class FusedAttention(nn.Module):
    """The same with one product for queries, keys and values, as ADM and SR3 have it.

    The outputs of `qkv` are ordered [q|k|v], then by head. Files of guided-diffusion have them by
    head first, unless they were trained with its "new attention order": their map sorts them.
    """

    def __init__(
        self, width: int, groups: int = 32, *, heads: int = 1, eps: float = 1e-5, bias: bool = True
    ):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(groups, width, eps=eps)
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Tensor, kvs: Sequence[KeyValue] = (), mask: Tensor | None = None
    ) -> Tensor:
        height, width = x.shape[-2:]
        h = self.qkv(self.norm(x).flatten(2).transpose(1, 2))  # (B, H*W, 3C)
        q, k, v = (split_heads(part, self.heads) for part in h.chunk(3, dim=-1))
        h = self.out(join_heads(scaled_dot_product_attention(q, k, v)))
        h = h.transpose(1, 2).unflatten(2, (height, width))  # (B, C, H, W)
        h += x
        return h


class JointAttention(nn.Module):
    """Pixels attend to a text and to each other at once, as GLIDE has it (2112.10741, section 2.3):
    (n, C, H, W) -> (B, C, H, W), B the text's batch.

    Keys and values of the text stand before those of the pixels, all in one softmax.
    """

    def __init__(
        self, width: int, context: int, groups: int = 32, *, heads: int = 1, eps: float = 1e-5
    ):
        super().__init__()
        self.heads, self.slot = heads, -1
        self.norm = nn.GroupNorm(groups, width, eps=eps)
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.text_k = nn.Linear(context, width)
        self.text_v = nn.Linear(context, width)
        self.out = nn.Linear(width, width)

    def prepare(self, tokens: Tensor) -> KeyValue:
        """tokens (B, L, context) -> their keys and values."""
        parts = (project(tokens) for project in (self.text_k, self.text_v))
        key, value = (split_heads(part, self.heads) for part in parts)
        return key, value

    def forward(self, x: Tensor, kvs: Sequence[KeyValue], mask: Tensor | None) -> Tensor:
        text_k, text_v = kvs[self.slot]
        x = repeat_rows(x, len(text_k))
        height, width = x.shape[-2:]
        h = self.norm(x).flatten(2).transpose(1, 2)  # (B, H*W, C)
        q, k, v = (split_heads(project(h), self.heads) for project in (self.q, self.k, self.v))
        k, v = torch.cat((text_k, k), dim=2), torch.cat((text_v, v), dim=2)
        if mask is not None:
            mask = pad(mask, (0, height * width), value=True)  # (B, 1, 1, L + H*W)
        h = self.out(join_heads(scaled_dot_product_attention(q, k, v, attn_mask=mask)))
        h = h.transpose(1, 2).unflatten(2, (height, width))  # (B, C, H, W)
        h += x
        return h


def key_mask(mask: Tensor | None) -> Tensor | None:
    """(B, L) bool, true where a token counts -> (B, 1, 1, L) for attention; all true -> None."""
    return None if mask is None or bool(torch.all(mask)) else mask[:, None, None, :]
