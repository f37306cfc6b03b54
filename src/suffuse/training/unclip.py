"""unCLIP's two stages (2204.06125, section 2): the prior, and the decoder of a latent model.

Both read embeddings of a CLIP that stands still. The prior learns to make them from captions; the
decoder, a text-to-image model that is trained already, learns to make pictures from them, by layers
of low rank beside its own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from suffuse.diffusion.cond import Cond
from suffuse.diffusion.loss import simple
from suffuse.diffusion.prediction import Kind
from suffuse.diffusion.schedule import Schedule
from suffuse.networks.clip import Clip
from suffuse.networks.prior import DiffusionPrior
from suffuse.networks.unclip import ImageProjection
from suffuse.systems.encoders import TextEncoder
from suffuse.systems.unclip_door import joined
from suffuse.systems.unclip_prior import PriorNet, counted
from suffuse.training.embedded import Batch, EmbeddedSet
from suffuse.training.noising import Levels, Noising
from suffuse.training.tuning import Adapters

AT_ONCE = 32  # held-out examples that go through the network together


class PriorStage:
    """The mean squared error of the embedding without noise; the caption is dropped for some."""

    def __init__(
        self,
        prior: DiffusionPrior,
        clip: Clip,
        text: TextEncoder,
        data: EmbeddedSet,
        schedule: Schedule,
        *,
        dropout: float = 0.1,
        held_out: Batch | None = None,
        export: Callable[[DiffusionPrior, Path], None] = lambda prior, folder: None,
    ):
        """text: the CLIP's tower with its tokenizer;  held_out: tells which checkpoint is best"""
        self.prior, self.clip, self.text, self.data = prior, clip.requires_grad_(False), text, data
        self.levels, self.dropout = Levels(Noising(), schedule), dropout
        self.held_out, self._export = held_out, export
        self.stream = None
        self.nets = nn.ModuleDict({"prior": prior, "levels": self.levels})
        self.empty = text.ids([""])

    def batch(self, step: int, size: int, seed: int, rows: slice | None = None) -> Batch:
        return _dropped(self.data, self.empty, self.dropout, step, size, seed, rows)

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        x0 = self.prior.normalise(batch.z)[..., None, None]  # (B, D, 1, 1)
        net = PriorNet(self.prior)
        context = self.told(batch.ids)
        return self.levels.losses_of(net, x0, context, "x0", generator).mean(), {}

    def told(self, ids: Tensor) -> Cond:
        """Tokens (B, 1, L) -> what the prior reads of the captions: their embeddings as `vector`,
        the states of their tokens, and which of these count."""
        ids = ids[:, 0]
        with torch.no_grad():
            out = self.clip.text(ids)
        text = nn.functional.normalize(out.pooled, dim=1)
        return Cond(text, out.last, counted(ids, self.text.tokenizer.eos))

    @torch.no_grad()
    def score(self, nets: nn.ModuleDict) -> float | None:
        """The loss of what is held out, at levels spread evenly over it; None if nothing is."""
        if self.held_out is None:
            return None
        prior: Any = nets["prior"].eval()
        z, device = self.held_out.z, prior.mean.device
        steps, noise = self.levels.evenly(z[..., None, None])
        losses = []
        for rows in torch.arange(len(z)).split(AT_ONCE):
            x0 = prior.normalise(z[rows].to(device))[..., None, None]
            level = self.levels.schedule.at(steps[rows].to(device))
            told = self.told(self.held_out.ids[rows].to(device))
            eps = noise[rows].to(device)
            losses.append(simple(PriorNet(prior), x0, told, level, eps, "x0"))
        return torch.cat(losses).mean().item()

    def sample(self, nets: nn.ModuleDict, path: Path) -> None:
        """An embedding is nothing to look at."""

    def export(self, nets: nn.ModuleDict, folder: Path) -> None:
        prior: Any = nets["prior"].eval()
        self._export(prior, folder)


class DecoderStage:
    """The simple loss of latents under an embedding and a caption, each left out for a share."""

    def __init__(
        self,
        method: Adapters,
        projection: ImageProjection,
        data: EmbeddedSet,
        schedule: Schedule,
        *,
        kind: Kind = "v",
        without: float = 0.1,
        silent: float = 0.5,
        noising: Noising | None = None,
        held_out: Batch | None = None,
        sample: Callable[[ImageProjection, Path], None] = lambda projection, path: None,
        export: Callable[[nn.ModuleDict, Path], None] = lambda nets, folder: None,
    ):
        """method: the model with its adapters;  without, silent: shares of the pictures whose
        embedding, and whose caption, is left out"""
        self.method, self.projection, self.data = method, projection, data
        self.unet, parts = method.parts.unet, method.parts
        self.text = TextEncoder(parts.tokenizer, parts.text)
        self.levels = Levels(noising or Noising(), schedule)
        self.kind, self.without, self.silent = kind, without, silent
        self.scale, self.shift = parts.latent_scale, parts.latent_shift
        self.held_out, self.stream = held_out, None
        self._sample, self._export = sample, export
        self.nets = nn.ModuleDict({**method.nets, "projection": projection, "levels": self.levels})
        self.empty = self.text.ids([""])

    def batch(self, step: int, size: int, seed: int, rows: slice | None = None) -> Batch:
        found = _dropped(self.data, self.empty, self.silent, step, size, seed, rows)
        rng = np.random.default_rng((seed, step, 1))
        gone = torch.from_numpy(rng.random(size) < self.without)[rows or slice(None)]
        found.z[gone] = torch.nan  # known by it in `loss`, on whichever device
        return found

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        kept = ~batch.z.isnan().any(1)
        z = self.projection.keep(batch.z.nan_to_num(), kept)
        x0 = ((batch.latents - self.shift) * self.scale).to(memory_format=torch.channels_last)
        context = self._context(self.projection, z, batch.ids, kept)
        losses = self.levels.losses_of(self.unet, x0, context, self.kind, generator)
        return losses.mean(), {}

    def _context(self, projection: ImageProjection, z: Tensor, ids: Tensor, seen: Tensor) -> Any:
        with torch.no_grad():
            words = self.text.embed(ids)
        said = (ids != self.empty.to(ids)).flatten(1).any(1)
        return self.unet.prepare(joined(words, projection(z), said, seen))

    @torch.no_grad()
    def score(self, nets: nn.ModuleDict) -> float | None:
        """The loss of held-out pictures by their embeddings alone, at levels spread evenly; None
        if nothing is held out."""
        if self.held_out is None:
            return None
        projection: Any = nets["projection"].eval()
        z, raw = self.held_out.z, self.held_out.latents
        device = projection.null.device
        steps, noise = self.levels.evenly(raw)
        losses = []
        with self.method.using(nets):
            for rows in torch.arange(len(z)).split(AT_ONCE):
                x0 = ((raw[rows] - self.shift) * self.scale).to(device)
                silence = self.empty.expand(len(rows), -1, -1)
                seen = torch.ones(len(rows), dtype=torch.bool, device=device)
                context = self._context(projection, z[rows].to(device), silence.to(device), seen)
                level = self.levels.schedule.at(steps[rows].to(device))
                eps = noise[rows].to(device)
                losses.append(simple(self.unet, x0, context, level, eps, self.kind))
        return torch.cat(losses).mean().item()

    @torch.no_grad()
    def sample(self, nets: nn.ModuleDict, path: Path) -> None:
        projection: Any = nets["projection"].eval()
        with self.method.using(nets):
            self._sample(projection, path)

    def export(self, nets: nn.ModuleDict, folder: Path) -> None:
        self._export(nets, folder)


def _dropped(
    data: EmbeddedSet,
    empty: Tensor,
    share: float,
    step: int,
    size: int,
    seed: int,
    rows: slice | None,
) -> Batch:
    """A batch of which a share of the captions is empty."""
    rng = np.random.default_rng((seed, step))
    found = data.batch(step, size, seed, rows, rng)
    gone = torch.from_numpy(rng.random(size) < share)[rows or slice(None)]
    found.ids[gone] = empty
    return found
