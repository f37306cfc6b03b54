"""The stage that fine-tunes a loaded model.

The objective is that of stage two, on a model that can already draw. Pictures are encoded at every
step, so that crops and flips may differ; beside the U-Net's passes that is little. `tuning` says
what may change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from suffuse.data.preprocess import Preprocess
from suffuse.data.stream import Stream
from suffuse.systems.encoders import TextEncoder
from suffuse.systems.latent import LatentDiffusion
from suffuse.systems.request import Request
from suffuse.training.autoencoder import contact_sheet
from suffuse.training.encoded import sample_latents
from suffuse.training.noising import Levels, Noising
from suffuse.training.tuning import Method


class Batch(NamedTuple):
    """Pictures of the subject; behind them as many of its class, with prior preservation."""

    pictures: Tensor  # (B or 2B, H, W, 3) uint8
    ids: Tensor  # (B or 2B, windows, window) int64


@dataclass(frozen=True)
class ClassPictures:
    """Pictures of the class, what they are said to show, and what their loss counts."""

    stream: Stream
    prompt: str
    weight: float


class FinetuneStage:
    """The simple loss on the latents of one's own pictures; `method` says what is trained."""

    def __init__(
        self,
        method: Method,
        stream: Stream,
        *,
        captions: Sequence[str] = (),
        others: ClassPictures | None = None,
        dropout: float = 0.0,
        noising: Noising | None = None,
        prompts: Sequence[str] = (),
        preprocess: Preprocess | None = None,
    ):
        """captions: one of these for each picture, at random, in place of its own
        prompts: of the samples"""
        self.method, self.stream = method, stream
        self.levels = Levels(noising or Noising(), method.parts.sampling.schedule)
        self.nets = nn.ModuleDict({**dict(method.nets.items()), "levels": self.levels})
        self.captions, self.others, self.dropout = list(captions), others, dropout
        self.prompts, self.preprocess = list(prompts), preprocess
        parts = method.parts
        self.text = TextEncoder(parts.tokenizer, parts.text)

    # ---- a step ----------------------------------------------------------------------------------

    def batch(self, step: int, size: int, seed: int, rows: slice | None = None) -> Batch:
        found = self.stream.batch(step, size, seed, rows)
        rng = np.random.default_rng((seed, step))
        mine = rows or slice(None)
        which, drops = rng.integers(2**31, size=size)[mine], rng.random(size)[mine] < self.dropout
        said = list(found.captions)
        if self.captions:
            said = [self.captions[i % len(self.captions)] for i in which]
        said = ["" if drop else caption for drop, caption in zip(drops, said)]
        pictures = [found.pictures]
        if self.others is not None:
            drawn = self.others.stream.batch(step, size, seed, rows).pictures
            pictures.append(drawn)
            said += [self.others.prompt] * len(drawn)
        return Batch(torch.from_numpy(np.concatenate(pictures)), self.text.ids(said))

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        parts = self.method.parts
        kind, each = parts.sampling.kind, len(batch.ids) // (1 if self.others is None else 2)
        raw = sample_latents(parts.autoencoder, batch.pictures, generator, each)
        x0 = (raw - parts.latent_shift) * parts.latent_scale
        x0 = x0.to(memory_format=torch.channels_last)
        context = parts.unet.prepare(self.text.embed(batch.ids))
        losses = self.levels.losses_of(parts.unet, x0, context, kind, generator, each)  # (B or 2B,)
        if self.others is None:
            return losses.mean(), {}
        own, prior = losses[:each].mean(), losses[each:].mean()
        return own + self.others.weight * prior, {"own": own.item(), "prior": prior.item()}

    # ---- what comes out --------------------------------------------------------------------------

    def sample(self, nets: nn.ModuleDict, path: Path) -> None:
        """The prompts, drawn with `nets`."""
        with self.method.using(nets.eval()) as parts:
            system = LatentDiffusion(parts)
            drawn = [system.generate(Request(p, seed=i))[0] for i, p in enumerate(self.prompts)]
        contact_sheet([np.stack([np.asarray(picture) for picture in drawn])], path)

    def export(self, nets: nn.ModuleDict, folder: Path) -> None:
        self.method.export(nets.eval(), folder)
        if self.preprocess is not None:
            self.preprocess.save(folder)
