"""unCLIP's autoregressive prior: an image embedding as a sequence of numbers, predicted in order.

Ramesh et al. 2022, "Hierarchical text-conditional image generation with CLIP latents" (arXiv
2204.06125), section 2.2: the embedding is written in its principal components, those of most
variance first; each coordinate falls into one of 1,024 buckets; a causal transformer predicts
them one after the other behind the caption, its CLIP embedding, and a token that says how well
caption and picture agree: the bucket of their dot product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suffuse.errors import SuffuseError
from suffuse.networks.attention import join_heads, split_heads
from suffuse.networks.transformer import Attention, Block, initialise_blocks

MARGIN = 0.02  # share of a coordinate's range that its buckets reach beyond what was seen


@dataclass(frozen=True)
class ARPriorConfig:
    """The shape of a prior; coordinates and buckets are the paper's for CLIPs of 1,024 numbers."""

    embedding: int = 1024  # numbers in a CLIP embedding, D
    coordinates: int = 319  # principal components that are kept, K
    buckets: int = 1024  # that a coordinate falls into
    dots: int = 1024  # buckets of the dot product, each as often met as the others
    vocab: int = 49408
    tokens: int = 77  # of a caption, L
    width: int = 2048
    layers: int = 24
    heads: int = 32

    def __post_init__(self) -> None:
        if min(vars(self).values()) < 1:
            raise SuffuseError("prior: every size must be at least 1")
        if self.width % self.heads:
            raise SuffuseError(f"prior: width {self.width} does not divide into {self.heads} heads")
        if not 1 <= self.coordinates <= self.embedding:
            raise SuffuseError(
                f"prior: {self.coordinates} coordinates of embeddings of {self.embedding} numbers"
            )


class Coordinates(nn.Module):
    """Embeddings (B, D) as buckets (B, K) of their principal components, and back.

    mean: (D,);  basis: (K, D), orthonormal rows by falling variance;  low, high: (K,), the ends of
    each coordinate's buckets
    """

    mean: Tensor
    basis: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, embedding: int, coordinates: int, buckets: int) -> None:
        super().__init__()
        self.buckets = buckets
        self.register_buffer("mean", torch.zeros(embedding))
        self.register_buffer("basis", torch.eye(embedding)[:coordinates].clone())
        self.register_buffer("low", -torch.ones(coordinates))
        self.register_buffer("high", torch.ones(coordinates))

    @torch.no_grad()
    def fit(self, z: Tensor) -> None:
        """Principal components and ranges of embeddings (N, D). Raises SuffuseError for too few."""
        mean, basis, _ = components(z)
        count = len(self.basis)
        if len(basis) < count:
            raise SuffuseError(f"{len(z)} embeddings are too few for {count} coordinates")
        self.mean.copy_(mean)
        self.basis.copy_(basis[:count])
        found = (z.to(self.mean) - self.mean) @ self.basis.T  # (N, K)
        low, high = found.amin(0), found.amax(0)
        room = (MARGIN * (high - low)).clamp_min(1e-6)
        self.low.copy_(low - room)
        self.high.copy_(high + room)

    def ids(self, z: Tensor) -> Tensor:
        """(B, D) -> (B, K) int64; what lies outside falls into the outermost buckets."""
        place = (z.float() - self.mean) @ self.basis.T  # (B, K)
        share = (place - self.low) / (self.high - self.low)
        return (share * self.buckets).floor().clamp(0, self.buckets - 1).long()

    def embedding(self, ids: Tensor) -> Tensor:
        """(B, K) -> (B, D): the middles of the buckets."""
        share = (ids + 0.5) / self.buckets
        return self.mean + (self.low + share * (self.high - self.low)) @ self.basis


def components(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (D,), principal directions (R, D) and their variances (R,), the largest first."""
    mean = z.double().mean(0)
    _, spread, basis = torch.linalg.svd(z.double() - mean, full_matrices=False)
    return mean, basis, spread.square() / max(len(z) - 1, 1)


class Cache:
    """Keys and values of the tokens so far, for every block."""

    def __init__(self, blocks: int, length: int) -> None:
        self.length, self.seen = length, 0
        self._kept: list[tuple[Tensor, Tensor] | None] = [None] * blocks

    def extend(self, block: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the new tokens (B, heads, n, d) -> those of all, (B, heads, seen + n, d)."""
        kept = self._kept[block]
        if kept is None:
            room = (*k.shape[:2], self.length, k.shape[3])
            kept = self._kept[block] = (k.new_empty(room), v.new_empty(room))
        end = self.seen + k.shape[2]
        for place, new in zip(kept, (k, v)):
            place[:, :, self.seen : end] = new
        return kept[0][:, :, :end], kept[1][:, :, :end]


class Told(NamedTuple):
    """What B embeddings are predicted from.

    A row that is not kept (`keep`) is predicted from nothing: classifier-free guidance.
    """

    ids: Tensor  # (B, L) int64, the caption's tokens
    text: Tensor  # (B, D), its CLIP embedding, of length 1
    dots: Tensor  # (B,) int64, bucket of its dot product with the picture's
    keep: Tensor  # (B,) bool


class ARPrior(nn.Module):
    """Predicts the bucket of each coordinate from what is told and the coordinates before it.

    >>> prior = ARPrior(ARPriorConfig(16, 5, 8, 4, vocab=9, tokens=3, width=32, layers=1, heads=2))
    >>> told = Told(torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 16), torch.tensor([0, 3]),
    ...             torch.tensor([True, False]))
    >>> prior(torch.zeros(2, 5, dtype=torch.long), told).shape
    torch.Size([2, 5, 8])
    """

    edges: Tensor

    def __init__(self, config: ARPriorConfig) -> None:
        super().__init__()
        c = self.config = config
        self.coordinates = Coordinates(c.embedding, c.coordinates, c.buckets)
        self.register_buffer(
            "edges", torch.linspace(-1, 1, c.dots + 1)[1:-1].clone()
        )  # (dots - 1,)
        self.token = nn.Embedding(c.vocab, c.width)
        self.text = nn.Linear(c.embedding, c.width)
        self.dot = nn.Embedding(c.dots, c.width)
        self.null = nn.Embedding(c.tokens + 2, c.width)  # in place of all three
        self.bucket = nn.Embedding(c.buckets, c.width)
        self.position = nn.Embedding(c.tokens + 2 + c.coordinates, c.width)
        self.blocks = nn.ModuleList(
            Block(c.width, c.heads, 4 * c.width, causal=True) for _ in range(c.layers)
        )
        self.norm = nn.LayerNorm(c.width)
        self.out = nn.Linear(c.width, c.buckets)
        self._initialise()

    def forward(self, ids: Tensor, told: Told) -> Tensor:
        """Logits (B, K, buckets) of the buckets `ids` (B, K), each knowing those before it."""
        x = torch.cat([self._prefix(told), self.bucket(ids[:, :-1])], dim=1)
        x = x + self.position.weight[: x.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.out(self.norm(x[:, self.config.tokens + 1 :]))

    def begin(self, told: Told) -> tuple[Tensor, Cache]:
        """Logits (B, buckets) of the first coordinate, and what the next ones need."""
        cache = Cache(len(self.blocks), self.position.num_embeddings)
        return self._further(self._prefix(told), cache), cache

    def go_on(self, ids: Tensor, cache: Cache) -> Tensor:
        """Logits (B, buckets) of the coordinate behind the one in the buckets `ids` (B,)."""
        return self._further(self.bucket(ids)[:, None], cache)

    def dot_ids(self, dots: Tensor) -> Tensor:
        """Dot products (B,) -> their buckets (B,) int64."""
        return torch.bucketize(dots.float(), self.edges)

    @torch.no_grad()
    def fit_dots(self, dots: Tensor) -> None:
        """Buckets that each hold as many of the dot products (N,)."""
        shares = torch.arange(1, self.config.dots, dtype=torch.float32) / self.config.dots
        self.edges.copy_(torch.quantile(dots.float().cpu(), shares))

    def _prefix(self, told: Told) -> Tensor:
        """(B, L + 2, width): the caption, its embedding, the dot product. Raises SuffuseError."""
        c = self.config
        if told.ids.shape[1] != c.tokens or told.text.shape[1] != c.embedding:
            raise SuffuseError(
                f"the prior reads captions of {c.tokens} tokens and embeddings of {c.embedding} "
                f"numbers, not {told.ids.shape[1]} and {told.text.shape[1]}"
            )
        # Of length 1, its numbers are small: as many times larger they are about 1.
        text = self.text(c.embedding**0.5 * told.text.to(self.text.weight.dtype))
        x = torch.cat([self.token(told.ids), torch.stack([text, self.dot(told.dots)], 1)], 1)
        return torch.where(told.keep[:, None, None], x, self.null.weight)

    def _further(self, x: Tensor, cache: Cache) -> Tensor:
        """New tokens (B, n, width), n > 1 only at first -> logits (B, buckets) behind the last."""
        end = cache.seen + x.shape[1]
        x = x + self.position.weight[cache.seen : end]
        for i, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            x = x + _attended(block.attn, block.norm1(x), cache, i)
            x = x + block.mlp(block.norm2(x))
        cache.seen = end
        return self.out(self.norm(x[:, -1]))

    @torch.no_grad()
    def _initialise(self) -> None:
        c = self.config
        initialise_blocks(self.blocks, c.width)
        for table in (self.token, self.dot, self.null, self.bucket):
            nn.init.normal_(table.weight, std=0.02)
        nn.init.normal_(self.position.weight, std=0.01)
        nn.init.normal_(self.text.weight, std=0.02 * c.embedding**-0.5)
        nn.init.zeros_(self.text.bias)
        nn.init.zeros_(self.out.weight)  # every bucket alike
        nn.init.zeros_(self.out.bias)


def _attended(attn: Attention, x: Tensor, cache: Cache, block: int) -> Tensor:
    """`attn` of new tokens (B, n, width), which see those of the cache too."""
    q, k, v = (split_heads(f(x), attn.heads) for f in (attn.q, attn.k, attn.v))
    k, v = cache.extend(block, k, v)
    # One token sees all there are; several are the first, and see each other causally.
    y = F.scaled_dot_product_attention(q, k, v, is_causal=x.shape[1] > 1)
    return attn.out(join_heads(y))
