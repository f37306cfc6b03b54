"""unCLIP's own decoder (2204.06125, section 2.1): GLIDE's U-Net over pixels, which reads a CLIP's
embedding of the picture, and the caption.

The CLIP stands still, and looks at the pictures of every step anew: beside a step of the decoder
that costs little, and data may be endless. Captions are read by its text tower, as in Karlo; the
paper trains a transformer for them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from suffuse.data.pairs import shrink
from suffuse.data.stream import Examples, Stream
from suffuse.diffusion.chain import Chain, Reverse
from suffuse.diffusion.cond import Cond
from suffuse.diffusion.loss import hybrid
from suffuse.diffusion.schedule import Discrete
from suffuse.errors import SuffuseError
from suffuse.networks.unclip import TextProjection
from suffuse.systems.encoders import TextEncoder
from suffuse.training.autoencoder import to_tensor
from suffuse.training.noising import Levels, Noising
from suffuse.training.unclip import counted
from suffuse.weights.clip import ClipParts
from suffuse.weights.unclip import PixelDecoderParts

AT_ONCE = 32  # held-out pictures that go through the network together


class Batch(NamedTuple):
    """Pixels in [-1, 1] and as the CLIP takes them, captions, and whose embedding is told."""

    images: Tensor  # (B, 3, H, W) float32
    seen: Tensor  # (B, 3, h, w) float32
    ids: Tensor  # (B, window) int64
    told: Tensor  # (B,) bool


class PixelDecoderStage:
    """The hybrid loss (2102.09672, eq. 16) under embedding and caption, each left out for a share.

    Both shares are drawn apart from each other, so some pictures have neither.
    """

    def __init__(
        self,
        parts: PixelDecoderParts,
        clip: ClipParts,
        stream: Stream,
        *,
        without: float = 0.1,
        silent: float = 0.5,
        held_out: Examples | None = None,
        sample: Callable[[PixelDecoderParts, Batch, Path], None] = lambda parts, batch, path: None,
        export: Callable[[PixelDecoderParts, Path], None] = lambda parts, folder: None,
    ):
        """without, silent: shares of the pictures whose embedding, and whose caption, is left out
        held_out: pictures that tell which checkpoint is best

        Raises SuffuseError for a schedule that is no chain, or a variance that is not learned.
        """
        schedule = parts.sampling.schedule
        if not isinstance(schedule, Discrete) or not parts.sampling.learned_var:
            raise SuffuseError("a decoder of pixels learns its variance on a chain of steps")
        self.parts, self.clip, self.stream = parts, clip, stream
        self.clip.model.requires_grad_(False)
        self.text = TextEncoder(clip.tokenizer, clip.model.text)
        self.without, self.silent = without, silent
        self.levels = Levels(Noising(), schedule)
        self.reverse = Reverse(Chain(schedule), parts.sampling.kind, "learned_range")
        self.nets = nn.ModuleDict(
            {"unet": parts.unet, "projection": parts.projection, "levels": self.levels}
        )
        self.empty = self.text.ids([""])[:, 0]  # (1, window)
        self.held_out = None if held_out is None else self._batch(held_out)
        self._sample, self._export = sample, export

    # ---- data ----------------------------------------------------------------------------------

    def batch(self, step: int, size: int, seed: int, rows: slice | None = None) -> Batch:
        mine = rows or slice(None)
        found = self._batch(self.stream.batch(step, size, seed, rows))
        lots = torch.from_numpy(np.random.default_rng((seed, step)).random((2, size)))[:, mine]
        found.ids[lots[0] < self.silent] = self.empty
        return found._replace(told=lots[1] >= self.without)

    def _batch(self, found: Examples) -> Batch:
        """All of it told. A caption that is longer than the window is cut."""
        images = to_tensor(found.pictures)
        small = shrink(images, images.shape[2] // self.parts.size[0])
        seen = self.clip.prepare.batch([Image.fromarray(picture) for picture in found.pictures])
        ids = self.text.ids(found.captions)[:, 0]
        return Batch(small, seen, ids, torch.ones(len(ids), dtype=torch.bool))

    # ---- the loss ------------------------------------------------------------------------------

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        x0 = batch.images.to(memory_format=torch.channels_last)
        unet, projection = self.parts.unet, self.parts.projection
        context = unet.prepare(self.cond(projection, batch))

        def objective(t: Tensor, eps: Tensor) -> Tensor:
            return hybrid(unet, x0, context, t, eps, self.reverse)

        return self.levels.of(objective, x0, generator).mean(), {}

    def embed(self, seen: Tensor) -> Tensor:
        """Pictures as the CLIP takes them -> (B, D) of length 1."""
        with torch.no_grad():
            return self.clip.model.embed_images(seen)

    def cond(self, projection: TextProjection, batch: Batch) -> Cond:
        """What the U-Net reads of a batch, as `PixelDecoder` tells it when it draws."""
        with torch.no_grad():
            words = self.clip.model.text(batch.ids)
        assert words.pooled is not None
        z = projection.image.keep(self.embed(batch.seen), batch.told)
        tokens, vector = projection(z, normalize(words.pooled, dim=1), words.last)
        mask = counted(batch.ids, self.clip.tokenizer.eos)
        return Cond(vector, tokens, pad(mask, (projection.image.count, 0), value=True))

    # ---- looking -------------------------------------------------------------------------------

    @torch.no_grad()
    def score(self, nets: nn.ModuleDict) -> float | None:
        """The loss of what is held out, with caption and embedding, at levels spread evenly over
        it; None if nothing is."""
        if self.held_out is None:
            return None
        parts, found = self.of(nets), self.held_out
        device, unet = parts.projection.image.null.device, parts.unet
        steps, noise = self.levels.evenly(found.images)
        losses = []
        for rows in torch.arange(len(steps)).split(AT_ONCE):
            some = Batch(*(each[rows].to(device) for each in found))
            t, eps = steps[rows].to(device), noise[rows].to(device)
            context = unet.prepare(self.cond(parts.projection, some))
            losses.append(hybrid(unet, some.images, context, t, eps, self.reverse))
        return torch.cat(losses).mean().item()

    def sample(self, nets: nn.ModuleDict, path: Path) -> None:
        found = self.held_out
        if found is None:
            found = self._batch(self.stream.batch(0, AT_ONCE, 0, slice(0, 8)))
        self._sample(self.of(nets), found, path)

    def export(self, nets: nn.ModuleDict, folder: Path) -> None:
        self._export(self.of(nets), folder)

    def of(self, nets: nn.ModuleDict) -> PixelDecoderParts:
        """The decoder with these networks."""
        unet: Any = nets["unet"].eval()
        projection: Any = nets["projection"].eval()
        held = self.parts
        return PixelDecoderParts(unet, held.config, projection, held.sampling, held.size)
