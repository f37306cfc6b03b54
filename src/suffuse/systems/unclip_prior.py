"""unCLIP's prior (2204.06125, section 2.2): from a caption to image embeddings that fit it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from suffuse.data.decode import upright
from suffuse.diffusion.cond import Cond
from suffuse.diffusion.grid import Grid, make_grid
from suffuse.diffusion.guidance import cfg
from suffuse.diffusion.noise import Noise
from suffuse.diffusion.prediction import predict
from suffuse.diffusion.samplers import SAMPLERS
from suffuse.diffusion.samplers.common import Step
from suffuse.errors import SuffuseError
from suffuse.networks.attention import repeat_rows
from suffuse.networks.prior import DiffusionPrior
from suffuse.systems.clip import window_ids
from suffuse.weights.unclip import PriorParts, Towers

if TYPE_CHECKING:
    from PIL.Image import Image

Note = Callable[[str], None]


def _warn(line: str) -> None:
    warnings.warn(line, stacklevel=4)


class Captions(NamedTuple):
    """What a CLIP says about B captions."""

    text: Tensor  # (B, D)
    states: Tensor  # (B, L, W), of their tokens
    mask: Tensor  # (B, L) bool, true where there is a token

    def cond(self) -> Cond:
        """By the doors of the prior."""
        return Cond(vector=self.text, tokens=self.states, mask=self.mask)


@dataclass(frozen=True, eq=False)
class Embedder:
    """Captions and pictures by the towers of a CLIP."""

    towers: Towers

    @property
    def weight(self) -> Tensor:
        """One of a tower's, to see where they are and in which precision."""
        tower = self.towers.image if self.towers.text is None else self.towers.text
        assert tower is not None
        return next(tower.parameters())

    @property
    def device(self) -> torch.device:
        return self.weight.device

    @torch.inference_mode()
    def captions(self, texts: Sequence[str], note: Note = _warn) -> Captions:
        """What does not fit into the window is cut off, and `note` gets a line that says where.

        Raises SuffuseError without a tower for texts.
        """
        # A text is encoded by itself: among others its numbers could differ in the last digit.
        encode = cache(lambda text: self._caption(text, note))
        parts = [encode(text) for text in texts]
        return Captions(*(torch.cat(part) for part in zip(*parts)))

    def _caption(self, text: str, note: Note) -> Captions:
        tokenizer, tower = self.towers.tokenizer, self.towers.text
        if tower is None or tokenizer is None:
            raise SuffuseError("this model has no text encoder in the space of its pictures")
        ids = window_ids(tokenizer, [text], note).to(self.device)
        found = tower(ids)
        assert found.pooled is not None
        return Captions(self._sized(found.pooled), found.last, counted(ids, tokenizer.eos))

    def texts(self, texts: Sequence[str], note: Note = _warn) -> Tensor:
        """Texts -> (N, D)."""
        return self.captions(texts, note).text

    @torch.inference_mode()
    def images(self, pictures: Sequence[Image]) -> Tensor:
        """Pictures of any size, mode and rotation -> (N, D). Raises SuffuseError without a tower
        for them."""
        tower, prepare = self.towers.image, self.towers.prepare
        if tower is None or prepare is None:
            raise SuffuseError("this model has no image encoder, so it cannot look at a picture")
        weight = self.weight
        made = []
        for picture in pictures:  # one by one, for the same reason as texts
            pixels = prepare.prepare(upright(picture))[None].to(weight.device, weight.dtype)
            made.append(self._sized(tower.pool(pixels)))
        return torch.cat(made)

    def _sized(self, z: Tensor) -> Tensor:
        z = z.float()
        return normalize(z, dim=1) if self.towers.unit else z


def counted(ids: Tensor, eos: int) -> Tensor:
    """Which tokens of (B, L) are a caption's: up to the first end, that included, (B, L) bool."""
    ended = (ids == eos).cumsum(1)
    return (ended == 0) | ((ended == 1) & (ids == eos))


@dataclass(frozen=True, eq=False)
class PriorNet:
    """A prior in the form of the networks that draw pictures: embeddings are (B, D, 1, 1)."""

    network: DiffusionPrior

    def prepare(self, cond: Cond) -> Cond:
        return cond

    def __call__(self, x: Tensor, label: Tensor, context: Cond) -> Tensor:
        text, states, mask = context.vector, context.tokens, context.mask
        assert text is not None and states is not None and mask is not None
        x = repeat_rows(x[..., 0, 0], len(text))
        return self.network(x, label, text, states, mask)[..., None, None]


@dataclass(frozen=True, eq=False)
class Prior:
    """A prior in use; it holds no state between calls. Embeddings are (B, D)."""

    parts: PriorParts
    embedder: Embedder

    @property
    def shape(self) -> tuple[int, int]:
        """(draws, D) of the noise of one picture."""
        return self.parts.draws, self.parts.network.config.embedding

    @property
    def grid(self) -> Grid:
        """The levels of its steps."""
        sampling = self.parts.sampling
        device = self.parts.network.query.device
        return make_grid(sampling.schedule, self.parts.steps, sampling.grid, device)

    def sample(
        self, x: Tensor, noise: Noise, captions: Captions, null: Captions, grid: Grid
    ) -> Iterator[Step]:
        """From x (B, draws, D) of the grid's first level to normalised embeddings of that shape.

        captions, null: what to draw, and what guidance leads away from, of B rows or 1
        """
        count, draws = x.shape[:2]
        sampling, guidance = self.parts.sampling, self.parts.guidance

        def rows(told: Captions) -> Cond:
            # Every draw of a picture has its caption.
            return _repeated(told.cond().expand(count), draws)

        raw = cfg(PriorNet(self.parts.network), rows(captions), rows(null), guidance)
        denoiser = sampling.bound(predict(raw, sampling.kind))
        drawn = noise.shaped(*x.shape[1:])

        def fresh() -> Tensor:
            return drawn().flatten(0, 1)[..., None, None]  # (B * draws, D, 1, 1)

        start = x.flatten(0, 1)[..., None, None]
        sampler = SAMPLERS[sampling.sampler]
        for step in sampler(denoiser, start, grid, fresh, **sampling.options):
            shaped = (p[..., 0, 0].unflatten(0, (count, draws)) for p in (step.x, step.x0))
            yield Step(step.i, *shaped)

    def chosen(self, x: Tensor, captions: Captions) -> Tensor:
        """Of the draws (B, draws, D) the one nearest to its caption, as CLIP makes embeddings:
        (B, D). (section 2.2: the higher dot product)"""
        network = self.parts.network
        z = x * network.std.float() + network.mean.float()
        if self.embedder.towers.unit:
            z = normalize(z, dim=2)
        text = normalize(captions.text, dim=1)[:, None]  # (B, 1, D)
        best = (normalize(z, dim=2) * text).sum(2).argmax(1)  # (B,)
        return z[torch.arange(len(z), device=z.device), best]

    @torch.inference_mode()
    def imagine(
        self, texts: Sequence[str], seeds: Sequence[int], negative: str = "", note: Note = _warn
    ) -> Tensor:
        """Embeddings of pictures that fit the texts, (B, D), each by a seed of its own."""
        device = self.parts.network.query.device
        noise = Noise(seeds, self.shape, device)
        captions = self.embedder.captions(texts, note)
        null = self.embedder.captions([negative], note)
        grid = self.grid
        *_, last = self.sample(noise() * grid.start, noise, captions, null, grid)
        return self.chosen(last.x, captions)


def _repeated(cond: Cond, times: int) -> Cond:
    """Each row so many times, one after another."""

    def repeat(part: Tensor | None) -> Tensor | None:
        return None if part is None else part.repeat_interleave(times, dim=0)

    return Cond(vector=repeat(cond.vector), tokens=repeat(cond.tokens), mask=repeat(cond.mask))
