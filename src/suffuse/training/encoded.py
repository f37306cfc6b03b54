"""Where stage two takes its latents from: pictures encoded once and kept, or at every step anew.

What is kept costs nothing at a step. Encoding anew takes time at every step, but neither disk nor
memory, and crops, flips and captions may differ each time that a picture comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from suffuse.data.stream import Stream
from suffuse.networks.autoencoder import Autoencoder
from suffuse.systems.encoders import TextEncoder
from suffuse.training.draw import normal


class Batch(NamedTuple):
    images: Tensor  # raw latents (B, C, h, w) float32, or pictures (B, H, W, 3) uint8
    ids: Tensor  # (B, 1, window) int64


class Latents(Protocol):
    """What stage two trains on."""

    @property
    def scale(self) -> float:
        """What brings the latents to unit variance (2112.10752, appendix G)."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a latent; with buckets, of the square one."""

    @property
    def stream(self) -> Stream | None:
        """Where pictures come from while training goes on; None if from nowhere."""

    def batch(
        self, step: int, size: int, seed: int, rows: slice | None, rng: np.random.Generator
    ) -> Batch:
        """Images of a step with their captions; `rng` is the step's, and draws for all rows."""

    def raw(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images of a batch -> latents (B, C, h, w) float32, as the autoencoder makes them."""


@dataclass(frozen=True)
class LatentSet:
    """Encoded pictures.

    latents: (N, C, h, w) float16, raw
    ids: (N, captions, window) int16, or int32 for a vocabulary beyond 32,767
    """

    latents: Tensor
    ids: Tensor
    stream: Stream | None = None

    @property
    def scale(self) -> float:
        return float(1 / self.latents.float().std())

    @property
    def size(self) -> tuple[int, int]:
        return self.latents.shape[2], self.latents.shape[3]

    def batch(
        self, step: int, size: int, seed: int, rows: slice | None, rng: np.random.Generator
    ) -> Batch:
        """In an order shuffled anew each epoch, one caption of each at random."""
        count, mine = len(self.latents), rows or slice(None)
        which = rng.integers(self.ids.shape[1], size=size)[mine]
        places = np.arange(step * size, (step + 1) * size)[mine]
        found = [shuffled(count, seed, int(e))[p] for e, p in zip(places // count, places % count)]
        ids = self.ids[found, which].long()[:, None]  # (B, 1, window)
        return Batch(self.latents[found].float(), ids)

    def raw(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return images


@dataclass(frozen=True)
class FreshLatents:
    """Pictures of a stream, encoded at the step that wants them.

    Captions that are longer than the window of the text encoder are cut.
    """

    stream: Stream
    autoencoder: Autoencoder
    text: TextEncoder
    scale: float
    size: tuple[int, int]

    def batch(
        self, step: int, size: int, seed: int, rows: slice | None, rng: np.random.Generator
    ) -> Batch:
        found = self.stream.batch(step, size, seed, rows)
        return Batch(torch.from_numpy(found.pictures), self.text.ids(found.captions)[:, :1])

    def raw(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return sample_latents(self.autoencoder, images, generator).float()


@torch.no_grad()
def sample_latents(
    autoencoder: Autoencoder,
    pictures: Tensor,
    generator: torch.Generator,
    each: int | None = None,
) -> Tensor:
    """Pictures (B, H, W, 3) uint8 -> raw latents (B, C, h, w), drawn from their Gaussians.

    each: noise is drawn for so many pictures at a time; None for all
    """
    pixels = pictures.permute(0, 3, 1, 2).float() / 127.5 - 1  # (B, 3, H, W)
    found = autoencoder.encode(pixels)
    each = each or len(pixels)
    shape = (each, *found.mode.shape[1:])
    noise = torch.cat([normal(shape, generator) for _ in range(len(pixels) // each)])
    return found.sample(noise.to(found.mode))


@lru_cache(maxsize=2)
def shuffled(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch, count)).permutation(count)
