"""SR3's stage, and that of up-samplers like ADM's: squares of pictures and the low resolution made
of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from suffuse.data.pairs import Shrinking, blurred, crops, shrink
from suffuse.data.stream import EmojiStream, Stream
from suffuse.data.wear import worn
from suffuse.diffusion.schedule import Level
from suffuse.diffusion.timesteps import piecewise_uniform, spread, to_steps
from suffuse.errors import SuffuseError
from suffuse.networks.blocks import channels_last
from suffuse.networks.families import initialise
from suffuse.networks.pixel import SR3Config, adm, sr3
from suffuse.systems.generate import pixels
from suffuse.systems.sr3 import SuperResolution
from suffuse.training.autoencoder import contact_sheet
from suffuse.training.draw import normal, share
from suffuse.training.sr3_presets import SR3Preset
from suffuse.training.stages import opened, take
from suffuse.weights.parts import Defaults, Info
from suffuse.weights.pixel import PixelModel
from suffuse.weights.pixel_folder import open_pixel
from suffuse.weights.save import save_pixel

AT_ONCE = 16  # held-out squares that go through the network together
HELD_OUT = 64  # squares that tell which checkpoint is best
SHOWN = 8  # rows of a sheet


class Batch(NamedTuple):
    """Pixels (B, 3, H, W) and (B, 3, h, w), float32 in [-1, 1]."""

    images: Tensor
    low: Tensor


class SR3Stage:
    """The system's own loss."""

    def __init__(
        self,
        system: SuperResolution,
        stream: Stream,
        crop: int,
        *,
        shrinking: Shrinking | None = None,
        power: Literal[1, 2] = 1,
        held_out: Stream | None = None,
        export: Callable[[SuperResolution, Path], None] = lambda system, folder: None,
    ):
        """crop: pixels of a square;  held_out: pictures that tell which checkpoint is best"""
        self.system, self.stream, self.crop = system, stream, crop
        self.shrinking, self.power = shrinking or Shrinking(), power
        self.nets = nn.ModuleDict({"unet": system.unet})
        self.held_out, self._export = held_out, export

    def batch(self, step: int, size: int, seed: int, rows: slice | None = None) -> Batch:
        """Squares of `size` pictures; where they lie is drawn for the whole batch."""
        return self._pairs(self.stream, step, size, seed, rows, self.shrinking)

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        images = batch.images.to(memory_format=torch.channels_last)
        total, rows = share(generator, len(images))
        places = spread(torch.rand(total, generator=generator))[rows].to(images.device)
        eps = normal(images.shape, generator).to(images)
        level = self._level(places)
        return self.system.loss(images, batch.low, level, eps, self.power).mean(), {}

    @torch.no_grad()
    def score(self, nets: nn.ModuleDict) -> float | None:
        """The loss of what is held out, at levels spread evenly over it; None if nothing is."""
        if self.held_out is None:
            return None
        system = self._of(nets)
        found = self._pairs(self.held_out, 0, HELD_OUT, 0, None, Shrinking(self.shrinking.filter))
        eps = torch.randn(found.images.shape, generator=torch.Generator().manual_seed(0))
        places = (torch.arange(HELD_OUT) + 0.5) / HELD_OUT
        losses = []
        for rows in torch.arange(HELD_OUT).split(AT_ONCE):
            images, low, noise = (
                each[rows].to(system.device) for each in (found.images, found.low, eps)
            )
            level = self._level(places[rows].to(system.device))
            losses.append(system.loss(images, low, level, noise, self.power))
        return torch.cat(losses).mean().item()

    @torch.no_grad()
    def sample(self, nets: nn.ModuleDict, path: Path) -> None:
        """Rows of what went in, brought to size; what came out; and the picture itself."""
        system = self._of(nets)
        source = self.held_out or self.stream
        found = self._pairs(source, 0, SHOWN, 0, None, Shrinking(self.shrinking.filter))
        made = system.upscale(found.low, range(SHOWN))
        shown = (system.enlarged(found.low), made.cpu(), found.images)
        contact_sheet([_levels(torch.stack(row)) for row in zip(*shown)], path)

    def export(self, nets: nn.ModuleDict, folder: Path) -> None:
        self._export(self._of(nets), folder)

    def _pairs(
        self,
        stream: Stream,
        step: int,
        size: int,
        seed: int,
        rows: slice | None,
        shrinking: Shrinking,
    ) -> Batch:
        rows = rows or slice(0, size)
        pictures = stream.batch(step, size, seed, rows).pictures
        cut = []
        for row, picture in zip(range(size)[rows], pictures):
            # A sequence of its own for each picture, whatever process it is prepared by.
            rng = np.random.default_rng((seed, step, row))
            image = pixels(crops(picture[None], self.crop, self.system.factor, rng), 3)
            low = blurred(shrink(image, self.system.factor, shrinking.filter), shrinking, rng)
            if rng.random() < shrinking.worn:
                low = worn(image, self.system.factor, rng)
            cut.append(Batch(image, low))
        return Batch(*map(torch.cat, zip(*cut)))

    def _level(self, places: Tensor) -> Level:
        """As the network is told them: between the steps, or the steps themselves."""
        schedule, config = self.system.schedule, self.system.model.config
        if isinstance(config, SR3Config) and config.continuous:
            return piecewise_uniform(places, schedule)
        return schedule.at(to_steps(places, schedule.T))

    def _of(self, nets: nn.ModuleDict) -> SuperResolution:
        unet: Any = nets["unet"].eval()
        return self.system.holding(unet)


def _levels(images: Tensor) -> np.ndarray:
    """(n, 3, H, W) in [-1, 1] -> (n, H, W, 3) uint8."""
    levels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return levels.permute(0, 2, 3, 1).numpy()


def sr3_stage(
    preset: SR3Preset,
    seed: int,
    *,
    data: str | None = None,
    streaming: bool = False,
    init: Path | None = None,
) -> SR3Stage:
    """The upscaler of `preset`, ready to train.

    data: pictures that `open_stream` finds; None for the preset's own
    init: a model whose U-Net training goes on from

    Raises SuffuseError.
    """
    factor = preset.enlarging.factor
    if preset.crop % factor:
        raise SuffuseError(f"crop {preset.crop} is not divisible by the factor, {factor}")
    stream, held_out = _streams(preset, data, streaming)
    torch.manual_seed(seed)
    config = preset.unet
    unet = initialise(sr3(config) if isinstance(config, SR3Config) else adm(config))
    channels_last(unet)
    if init is not None:
        take(unet, open_pixel(init).unet, init, "U-Net")
    system = SuperResolution(
        PixelModel(
            unet,
            preset.unet,
            Info("training run", "made in memory"),
            scheduler=dict(preset.scheduler),
            size=(preset.crop, preset.crop),
            defaults=Defaults(steps=preset.steps),
            enlarging=preset.enlarging,
        )
    )
    system.grid(system.steps, system.sampling)  # refuses a schedule that cannot be drawn with

    def export(system: SuperResolution, folder: Path) -> None:
        save_pixel(system.model, folder)
        if data is not None:
            preset.preprocess.save(folder)

    return SR3Stage(
        system,
        stream,
        preset.crop,
        shrinking=preset.shrinking,
        power=preset.power,
        held_out=held_out,
        export=export,
    )


def _streams(preset: SR3Preset, data: str | None, streaming: bool) -> tuple[Stream, Stream | None]:
    """The pictures, and some that are held out."""
    pictures = opened(data, preset.preprocess, streaming)
    if pictures is not None:
        if preset.preprocess.size < preset.crop and preset.preprocess.buckets is None:
            raise SuffuseError(
                f"pictures of {preset.preprocess.size} pixels (preprocess.size) have no squares of "
                f"{preset.crop} (crop)"
            )
        return pictures, None
    if preset.data is None:
        raise SuffuseError("this preset has no pictures of its own: name a folder with --data")
    return EmojiStream(preset.world), EmojiStream(preset.world, split="test")
