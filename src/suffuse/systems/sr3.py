"""SR3 (2104.07636): super-resolution as diffusion, given the low resolution beside x.

ADM's upsamplers (2105.05233, section 4.3) are the same system: theirs is told the timestep, brings
the low resolution to size bilinearly, learns its variance, and knows classes.

Pictures are (B, 3, H, W) in [-1, 1], the low resolution (B, 3, H / factor, W / factor).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from suffuse.diffusion.cond import Cond
from suffuse.diffusion.grid import Grid, GridSpec, make_grid
from suffuse.diffusion.loss import simple
from suffuse.diffusion.noise import Noise
from suffuse.diffusion.prediction import Denoiser, Prediction, predict, x0_to_eps
from suffuse.diffusion.samplers import SAMPLERS
from suffuse.diffusion.samplers.common import Step
from suffuse.diffusion.schedule import Discrete, Level, betas
from suffuse.errors import SuffuseError
from suffuse.networks.pixel import ADMConfig, SR3Config
from suffuse.networks.unet import UNet
from suffuse.systems import sr3_request
from suffuse.systems.encoders import ClassEncoder
from suffuse.systems.generate import Job
from suffuse.systems.generates import Generates
from suffuse.systems.pixels import PixelSystem
from suffuse.systems.request import Request
from suffuse.systems.tiles import Group, Tiling, jointly
from suffuse.weights.pixel import Enlarging, Inference, PixelModel
from suffuse.weights.scheduler import Sampling


@dataclass(frozen=True, eq=False)
class SuperResolution(Generates, PixelSystem[UNet]):
    """Pictures `factor` times as large; holds no state between calls.

    tiling: how large pictures are cut; None is the size the network was trained at, with an
        overlap of a quarter. Raises SuffuseError for a network that is no upscaler.
    """

    model: PixelModel[UNet]
    tiling: Tiling | None = None

    def __post_init__(self) -> None:
        check_upscaler(self.model)

    # ---- the paper -----------------------------------------------------------------------------

    def loss(
        self, picture: Tensor, low: Tensor, level: Level, eps: Tensor, power: Literal[1, 2] = 1
    ) -> Tensor:
        """|f(x, low, sqrt(alpha_bar)) - eps|^p, its mean over each picture, (B,) (eq. 6).

        `picture` and `eps` are (B, 3, H, W); `level` is of `timesteps.piecewise_uniform`, or of the
        schedule for a network that is told timesteps. A model that predicts something else than eps
        is held to that.
        """
        base = self.enlarged(low)
        context = self.unet.prepare(Cond(concat=base))
        x0, kind = self.missing(picture, base), self.sampling.kind
        return simple(self.unet, x0, context, self.told(level), eps, kind, power=power)

    def sample(
        self,
        x: Tensor,
        low: Tensor,
        noise: Noise,
        grid: Grid,
        sampling: Sampling,
        labels: Tensor | None = None,
    ) -> Iterator[Step]:
        """From x (B, 3, H, W), of the grid's first level, to pictures (algorithm 2, or another).

        labels: classes (B,), for models that know some
        """
        base = self.enlarged(low)  # (B, 3, H, W)
        height, width = x.shape[-2:]
        boxes = self.cut.boxes(height, width, self.factor)

        def answer(part: Tensor, level: Level, group: Group) -> Tensor:
            beside = torch.stack([box.cut(base[row]) for row, box in group])
            vector = None
            if labels is not None:
                ids = labels[[row for row, _ in group]]
                vector = self.classes.embed(ids.to(self.device), self.dtype).vector
            context = self.unet.prepare(Cond(concat=beside.to(self.dtype), vector=vector))
            return self.unet(part, self.told(level).label, context).to(part.dtype)

        raw = jointly(answer, boxes, self.cut.at_once)
        denoiser = predict(raw, sampling.kind, sampling.learned_var)
        bound = self.bound(denoiser, sampling, base)
        for step in SAMPLERS[sampling.sampler](bound, x, grid, noise, **sampling.options):
            last = step.i == len(grid) - 1
            yield step._replace(
                x=self.whole(step.x, base) if last else step.x, x0=self.whole(step.x0, base)
            )

    def told(self, level: Level) -> Level:
        """What the network is told: sqrt(alpha_bar), or the timestep (section 2.4)."""
        config = self.model.config
        if not (isinstance(config, SR3Config) and config.continuous):
            return level
        return level._replace(label=level.alpha.reshape(-1).to(self.device, torch.float32))

    def enlarged(self, low: Tensor) -> Tensor:
        """The low resolution brought to size by the filter, (B, 3, H, W) in [-1, 1]."""
        size = [self.factor * side for side in low.shape[-2:]]
        if self.enlarging.filter == "bilinear":
            return interpolate(low, size, mode="bilinear")
        return interpolate(low, size, mode="bicubic", antialias=True).clamp(-1, 1)  # as Pillow's

    # ---- a residual in place of the picture, where the model has one ---------------------------

    def missing(self, picture: Tensor, base: Tensor) -> Tensor:
        """What is diffused: the picture, or what `base` lacks of it (SRDiff, 2104.14951)."""
        times = self.enlarging.residual
        return (picture - base) * times if times else picture

    def whole(self, x0: Tensor, base: Tensor) -> Tensor:
        """The reverse of `missing`."""
        times = self.enlarging.residual
        return base + x0 / times if times else x0

    def bound(self, denoiser: Denoiser, sampling: Sampling, base: Tensor) -> Denoiser:
        """`denoiser` with its pictures kept in [-1, 1]."""
        if not self.enlarging.residual:
            return sampling.bound(denoiser)

        def denoise(x: Tensor, level: Level) -> Prediction:
            p = denoiser(x, level)
            x0 = self.missing(self.whole(p.x0, base).clamp(-1, 1), base)
            return replace(p, x0=x0, eps=x0_to_eps(x, x0, level))

        return denoise

    # ---- what it is made of --------------------------------------------------------------------

    @property
    def enlarging(self) -> Enlarging:
        assert self.model.enlarging is not None
        return self.model.enlarging

    @property
    def factor(self) -> int:
        """How many times a side grows."""
        return self.enlarging.factor

    @property
    def least(self) -> int:
        """The least side of a picture in pixels: enlarged, a pixel is left of it at the bottom."""
        shrunk: int = 2 ** (len(self.unet.down) - 1)
        return -(-shrunk // self.factor)

    @property
    def cut(self) -> Tiling:
        """The tiling."""
        if self.tiling is not None:
            return self.tiling
        side = min(self.model.size or (256, 256))
        return Tiling(side, side // 4)

    @property
    def classes(self) -> ClassEncoder:
        config = self.model.config
        count = config.classes if isinstance(config, ADMConfig) else 0
        return ClassEncoder(self.model.classes or tuple(map(str, range(count))))

    @property
    def sampling(self) -> Sampling:
        """The scheduler file's meaning; DDPM's own where there is none. Raises SuffuseError."""
        return self.model.sampling

    @cached_property
    def schedule(self) -> Discrete:
        """The one of training. Raises SuffuseError for a flow, which SR3 is not."""
        if not isinstance(self.sampling.schedule, Discrete):
            raise SuffuseError(f"{self.info.name}: its schedule is no chain of steps")
        return self.sampling.schedule

    def holding(self, unet: UNet) -> SuperResolution:
        """The same system around another network of this shape."""
        return replace(self, model=replace(self.model, unet=unet))

    def drawing_by(self, inference: Inference) -> SuperResolution:
        """The same system with another schedule to draw with. Raises SuffuseError."""
        enlarging = replace(self.enlarging, inference=inference)
        return replace(self, model=replace(self.model, enlarging=enlarging))

    # ---- how many steps, on which schedule -----------------------------------------------------

    @property
    def steps(self) -> int:
        """Steps where nothing is asked for."""
        inference = self.enlarging.inference
        if inference is not None:
            return inference.steps
        return self.model.defaults.steps or min(100, self.schedule.T)

    def grid(self, steps: int, sampling: Sampling) -> Grid:
        """The levels of so many steps: as many as the inference schedule has are that schedule,
        all other numbers are steps of the training's. Raises SuffuseError."""
        inference = self.enlarging.inference
        if inference is not None and steps == inference.steps:
            return make_grid(drawn_by(inference), steps, GridSpec(), self.device)
        return make_grid(sampling.schedule, steps, sampling.grid, self.device)

    # ---- requests ------------------------------------------------------------------------------

    @torch.inference_mode()
    def upscale(
        self,
        low: Tensor,
        seeds: Sequence[int],
        *,
        steps: int | None = None,
        sampler: str | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Low resolutions (B, 3, h, w) -> pictures (B, 3, H, W), each by a seed of its own."""
        sampling = self.sampling.using(sampler)
        grid, low = self.grid(steps or self.steps, sampling), low.to(self.device)
        noise = Noise(seeds, (3, *(self.factor * side for side in low.shape[-2:])), self.device)
        *_, last = self.sample(noise() * grid.start, low, noise, grid, sampling, labels)
        return last.x.clamp(-1, 1)

    def job(self, requests: Sequence[Request]) -> Job:
        """Resolved requests of one picture each, with equal `together.key`s, as one batch."""
        return sr3_request.job(self, requests)

    def resolve(self, request: Request) -> Request:
        """The request as it will run: this model's defaults, a definite seed, a checked picture.

        Raises SuffuseError where there is no picture or it is too small, for a class that the model
        does not have, and for what an upscaler cannot do.
        """
        return sr3_request.resolved(self, request)


def drawn_by(inference: Inference) -> Discrete:
    """The schedule of `inference`. Raises SuffuseError for one that is none."""
    i = inference
    return Discrete.from_betas(betas(i.kind, i.steps, i.start, i.end))


def check_upscaler(model: PixelModel[Any]) -> None:
    """Raises SuffuseError where the network does not take the low resolution beside x."""
    config, name = model.config, model.info.path or model.info.name
    if not isinstance(config, SR3Config | ADMConfig) or model.enlarging is None:
        raise SuffuseError(f"{name}: is no upscaler")
    if config.in_channels != 6 or config.out_channels not in (3, 6):
        raise SuffuseError(
            f"{name}: is no upscaler: one takes 6 channels, x and the low resolution, not "
            f"{config.in_channels}"
        )
    continuous = isinstance(config, SR3Config) and config.continuous
    if model.enlarging.inference is not None and not continuous:
        raise SuffuseError(f"{name}: is told timesteps, so it has no inference schedule of its own")
