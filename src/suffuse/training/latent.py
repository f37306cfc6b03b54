"""Stage two: text to latents (2112.10752, section 3.3), the text encoder frozen or trained along.

The autoencoder stands still. Whether its latents were made before the first step or are made at
every step is for `encoded.Latents` to know.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from suffuse.diffusion.loss import simple
from suffuse.diffusion.prediction import Kind
from suffuse.diffusion.schedule import Schedule
from suffuse.networks.unet import UNet
from suffuse.systems.encoders import TextEncoder
from suffuse.training.encoded import Batch, Latents
from suffuse.training.noising import Levels, Noising

AT_ONCE = 16  # held-out latents that go through the network together


class LatentStage:
    """The simple loss on latents; the caption is dropped for a share of the images."""

    def __init__(
        self,
        unet: UNet,
        text: TextEncoder,
        data: Latents,
        schedule: Schedule,
        *,
        kind: Kind = "v",
        dropout: float = 0.12,
        noising: Noising | None = None,
        held_out: Batch | None = None,
        compiled: bool = False,
        sample: Callable[[nn.ModuleDict, Path], None] = lambda nets, path: None,
        export: Callable[[nn.ModuleDict, Path], None] = lambda nets, path: None,
    ):
        """held_out: raw latents with captions that tell which checkpoint is best"""
        self.levels = Levels(noising or Noising(), schedule)
        self.nets = nn.ModuleDict({"unet": unet, "text": text.tower, "levels": self.levels})
        self.net: Any = torch.compile(unet, dynamic=False) if compiled else unet
        self.unet, self.text, self.data = unet, text, data
        self.kind, self.dropout, self.scale = kind, dropout, data.scale
        self.stream, self.held_out = data.stream, held_out
        self.sample, self.export = sample, export
        self.empty = text.ids([""])  # (1, 1, window)

    def batch(self, step: int, size: int, seed: int, rows: slice | None = None) -> Batch:
        rng = np.random.default_rng((seed, step))
        found = self.data.batch(step, size, seed, rows, rng)
        dropped = torch.from_numpy(rng.random(size) < self.dropout)[rows or slice(None)]
        # The empty caption is the null of guided sampling, by construction.
        found.ids[dropped] = self.empty
        return found

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        raw = self.data.raw(batch.images, generator)
        x0 = (raw * self.scale).to(memory_format=torch.channels_last)
        context = self.unet.prepare(self.text.embed(batch.ids))
        return self.levels.losses_of(self.net, x0, context, self.kind, generator).mean(), {}

    @torch.no_grad()
    def score(self, nets: nn.ModuleDict) -> float | None:
        """The simple loss of what is held out, None if nothing is.

        Levels are spread evenly over the images; these and the noise are the same every time.
        """
        if self.held_out is None:
            return None
        unet: Any = nets["unet"].eval()
        tower: Any = nets["text"].eval()
        text, schedule = TextEncoder(self.text.tokenizer, tower), self.levels.schedule
        raw, device = self.held_out.images, next(unet.parameters()).device
        steps, noise = self.levels.evenly(raw)
        losses = []
        for rows in torch.arange(len(raw)).split(AT_ONCE):
            x0, eps = (raw[rows] * self.scale).to(device), noise[rows].to(device)
            context = unet.prepare(text.embed(self.held_out.ids[rows]))
            level = schedule.at(steps[rows].to(device))
            losses.append(simple(unet, x0, context, level, eps, self.kind))
        return torch.cat(losses).mean().item()
