"""Stage two: text to latents (2112.10752, section 3.3), the text encoder frozen or trained along.

The autoencoder stands still, so every scene is encoded once, before the first step. What is kept of
a scene is its latent and a few captions as token ids: batches are then a look-up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from suffuse.data.emoji import World
from suffuse.diffusion.prediction import Kind
from suffuse.diffusion.schedule import Schedule
from suffuse.errors import SuffuseError
from suffuse.networks.autoencoder import Autoencoder
from suffuse.networks.unet import UNet
from suffuse.systems.encoders import TextEncoder
from suffuse.training.autoencoder import to_tensor
from suffuse.training.noising import Levels, Noising

CAPTIONS = ("en", "en", "ko", "ko")  # how many of each language are kept of a scene


@dataclass(frozen=True)
class LatentSet:
    """Encoded scenes.

    latents: (N, C, h, w) float16, raw
    ids: (N, captions, window) int16, or int32 for a vocabulary beyond 32,767
    """

    latents: Tensor
    ids: Tensor

    @property
    def scale(self) -> float:
        """What brings the latents to unit variance (2112.10752, appendix G)."""
        return float(1 / self.latents.float().std())


@torch.no_grad()
def encode_scenes(
    autoencoder: Autoencoder,
    text: TextEncoder,
    world: World,
    count: int,
    *,
    seed: int = 0,
    size: int = 64,
    progress: Callable[[int], None] = lambda _: None,
) -> LatentSet:
    """The first `count` training scenes of the sequence that `seed` starts."""
    latents, ids = [], []
    for start in range(0, count, size):
        rows = min(size, count - start)
        pictures, _, scenes = world.batch(start, rows, seed=seed)
        latents.append(autoencoder.encode(to_tensor(pictures)).mode.half().contiguous())
        rng = np.random.default_rng((seed, start))
        said = [scene.caption(lang, rng) for scene in scenes for lang in CAPTIONS]
        rows_of_ids = text.ids(said)  # (rows * captions, windows, window)
        if rows_of_ids.shape[1] > 1:
            raise SuffuseError(
                f"a caption is longer than the window of {rows_of_ids.shape[2]} tokens"
            )
        ids.append(rows_of_ids.view(rows, len(CAPTIONS), -1).to(torch.int16))
        progress(start + rows)
    return LatentSet(torch.cat(latents), torch.cat(ids))


class Batch(NamedTuple):
    latents: Tensor  # (B, C, h, w) raw, float32
    ids: Tensor  # (B, 1, window) int64


class LatentStage:
    """The simple loss on latents; the caption is dropped for a share of the images."""

    def __init__(
        self,
        unet: UNet,
        text: TextEncoder,
        data: LatentSet,
        schedule: Schedule,
        *,
        kind: Kind = "v",
        dropout: float = 0.12,
        noising: Noising | None = None,
        compiled: bool = False,
        sample: Callable[[nn.ModuleDict, Path], None] = lambda nets, path: None,
        export: Callable[[nn.ModuleDict, Path], None] = lambda nets, path: None,
    ):
        self.levels = Levels(noising or Noising(), schedule)
        self.nets = nn.ModuleDict({"unet": unet, "text": text.tower, "levels": self.levels})
        self.net: Any = torch.compile(unet, dynamic=False) if compiled else unet
        self.unet, self.text, self.data = unet, text, data
        self.kind, self.dropout, self.scale = kind, dropout, data.scale
        self.sample, self.export = sample, export
        self.empty = text.ids([""])  # (1, 1, window)

    def batch(self, step: int, size: int, seed: int, rows: slice | None = None) -> Batch:
        """Scenes in an order shuffled anew each epoch, one caption of each at random."""
        count = len(self.data.latents)
        rng = np.random.default_rng((seed, step))
        places = np.arange(step * size, (step + 1) * size)
        which = rng.integers(self.data.ids.shape[1], size=size)
        dropped = torch.from_numpy(rng.random(size) < self.dropout)
        mine = rows or slice(None)
        places, which, dropped = places[mine], which[mine], dropped[mine]
        found = [_shuffled(count, seed, int(e))[p] for e, p in zip(places // count, places % count)]
        ids = self.data.ids[found, which].long()[:, None]  # (B, 1, window)
        # The empty caption is the null of guided sampling, by construction.
        ids[dropped] = self.empty
        return Batch(self.data.latents[found].float(), ids)

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        x0 = (batch.latents * self.scale).to(memory_format=torch.channels_last)
        context = self.unet.prepare(self.text.embed(batch.ids))
        return self.levels.losses_of(self.net, x0, context, self.kind, generator).mean(), {}


@lru_cache(maxsize=2)
def _shuffled(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch, count)).permutation(count)
