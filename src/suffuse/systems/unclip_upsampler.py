"""unCLIP's up-samplers: a few steps of diffusion beside the enlarged picture.

Karlo has two networks, of which one takes the last step alone; ours are those of `train sr3`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from suffuse.diffusion.cond import Cond
from suffuse.diffusion.grid import Grid, make_grid
from suffuse.diffusion.guidance import bind
from suffuse.diffusion.noise import Noise
from suffuse.diffusion.prediction import predict
from suffuse.diffusion.samplers import SAMPLERS
from suffuse.diffusion.samplers.common import Step
from suffuse.diffusion.schedule import Level
from suffuse.systems.sr3 import SuperResolution
from suffuse.systems.tiles import Tiling
from suffuse.weights.unclip import UpsamplerParts


@dataclass(frozen=True, eq=False)
class Upsampler:
    """Karlo's: pictures (B, 3, h, w) in [-1, 1] to its one size; holds no state between calls."""

    parts: UpsamplerParts

    @property
    def networks(self) -> list[nn.Module]:
        return [self.parts.first, self.parts.last]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, H, W) of what it makes."""
        return (3, *self.parts.size)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of its pictures, in pixels."""
        height, width = self.parts.size
        return width, height

    @property
    def grid(self) -> Grid:
        """The levels of its steps."""
        sampling, device = self.parts.sampling, self.parts.first.stem.weight.device
        return make_grid(sampling.schedule, self.parts.steps, sampling.grid, device)

    def sample(self, low: Tensor, noise: Noise) -> Iterator[Step]:
        """From low resolutions (B, 3, h, w) to pictures (B, 3, H, W)."""
        grid, sampling = self.grid, self.parts.sampling
        beside = interpolate(low, self.parts.size, mode="bicubic", antialias=True)
        cond = Cond(concat=beside.to(self.parts.first.stem.weight.dtype))
        first, last = bind(self.parts.first, cond), bind(self.parts.last, cond)
        final = grid.label[-1].item()

        def raw(x: Tensor, level: Level) -> Tensor:
            return (last if level.label.item() == final else first)(x, level)

        denoiser = sampling.bound(predict(raw, sampling.kind))
        drawn = noise.shaped(*self.shape)
        sampler = SAMPLERS[sampling.sampler]
        yield from sampler(denoiser, drawn() * grid.start, grid, drawn, **sampling.options)

    @torch.inference_mode()
    def upscale(self, low: Tensor, seeds: list[int]) -> Tensor:
        """Low resolutions (B, 3, h, w) -> pictures (B, 3, H, W), each by a seed of its own."""
        noise = Noise(seeds, self.shape, self.parts.first.stem.weight.device)
        *_, step = self.sample(low, noise)
        return step.x.clamp(-1, 1)


@dataclass(frozen=True, eq=False)
class Enlarger:
    """Any upscaler behind pictures of one size, `low`: width and height in pixels."""

    system: SuperResolution
    low: tuple[int, int]

    @property
    def networks(self) -> list[nn.Module]:
        return [self.system.unet]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, H, W) of what it makes."""
        width, height = self.size
        return 3, height, width

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of its pictures, in pixels."""
        width, height = self.low
        return width * self.system.factor, height * self.system.factor

    @property
    def whole(self) -> SuperResolution:
        """The upscaler with the picture in one piece, as the paper uses what is trained on crops
        (section 2.1)."""
        return replace(self.system, tiling=Tiling(max(self.size), 0))

    @property
    def grid(self) -> Grid:
        """The levels of its steps."""
        return self.system.grid(self.system.steps, self.system.sampling)

    def sample(self, low: Tensor, noise: Noise) -> Iterator[Step]:
        """From low resolutions (B, 3, h, w) to pictures (B, 3, H, W)."""
        grid, drawn = self.grid, noise.shaped(*self.shape)
        start = drawn() * grid.start
        yield from self.whole.sample(start, low, drawn, grid, self.system.sampling)

    def upscale(self, low: Tensor, seeds: list[int]) -> Tensor:
        """Low resolutions (B, 3, h, w) -> pictures (B, 3, H, W), each by a seed of its own."""
        return self.whole.upscale(low, seeds)
