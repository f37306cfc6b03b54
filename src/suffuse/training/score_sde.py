"""The stage of score SDEs: pictures, at times between noise and data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from suffuse.data.stream import Stream
from suffuse.diffusion.sde import likelihood_times
from suffuse.diffusion.timesteps import spread
from suffuse.networks.blocks import channels_last
from suffuse.networks.ncsnpp import NCSNpp, initialise
from suffuse.systems.generate import pixels
from suffuse.systems.request import Request
from suffuse.systems.score_sde import ScoreSDE
from suffuse.training.autoencoder import contact_sheet
from suffuse.training.draw import normal, share
from suffuse.training.pixel import AT_ONCE, HELD_OUT, SHOWN, row, streams
from suffuse.training.score_sde_presets import ScorePreset
from suffuse.training.stages import take
from suffuse.weights.parts import Defaults, Info
from suffuse.weights.pixel import PixelModel
from suffuse.weights.pixel_folder import open_pixel
from suffuse.weights.save import save_pixel

CLEANEST = 1e-5  # the least time that is trained; the score of the data itself may not exist


class ScoreStage:
    """The system's own loss, at times spread evenly or as the likelihood weighs them."""

    def __init__(
        self,
        system: ScoreSDE,
        stream: Stream,
        *,
        likelihood: bool = False,
        held_out: Stream | None = None,
        export: Callable[[ScoreSDE, Path], None] = lambda system, folder: None,
    ):
        """held_out: pictures that tell which checkpoint is best"""
        self.system, self.stream, self.likelihood = system, stream, likelihood
        self.nets = nn.ModuleDict({"unet": system.unet})
        self.held_out, self._export = held_out, export

    def batch(self, step: int, size: int, seed: int, rows: slice | None = None) -> Tensor:
        """Images (B, C, H, W) in the network's range."""
        return self._images(self.stream.batch(step, size, seed, rows).pictures)

    def loss(self, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        x0 = batch.to(memory_format=torch.channels_last)
        t = self.times(evenly(len(x0), generator)).to(x0.device)
        eps = normal(x0.shape, generator).to(x0)
        return self.system.loss(x0, t, eps).mean(), {}

    def times(self, places: Tensor) -> Tensor:
        """Times (B,) in [CLEANEST, 1] from places in [0, 1).

        Where likelihood counts they are denser instead of weighing more, which has the same
        expectation up to a factor and far less variance.
        """
        if self.likelihood:
            return likelihood_times(self.system.process.sde, places, CLEANEST)[0]
        return CLEANEST + (1 - CLEANEST) * places

    @torch.no_grad()
    def score(self, nets: nn.ModuleDict) -> float | None:
        """The loss of what is held out, at times spread evenly over it; None if nothing is."""
        if self.held_out is None:
            return None
        system = self._of(nets)
        images = self._images(self.held_out.batch(0, HELD_OUT, 0).pictures)
        noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
        times = self.times((torch.arange(len(images)) + 0.5) / len(images))
        losses = [
            system.loss(*(each[rows].to(system.device) for each in (images, times, noise)))
            for rows in torch.arange(len(images)).split(AT_ONCE)
        ]
        return torch.cat(losses).mean().item()

    def sample(self, nets: nn.ModuleDict, path: Path) -> None:
        """Rows of pictures."""
        system = self._of(nets)
        requests = [Request(seed=i * SHOWN, n=SHOWN) for i in range(SHOWN)]
        rows = [row(system.generate(asked, together=SHOWN)) for asked in requests]
        contact_sheet(rows, path)

    def export(self, nets: nn.ModuleDict, folder: Path) -> None:
        self._export(self._of(nets), folder)

    def _of(self, nets: nn.ModuleDict) -> ScoreSDE:
        unet: Any = nets["unet"].eval()
        return self.system.holding(unet)

    def _images(self, pictures: np.ndarray) -> Tensor:
        return self.system.inward(pixels(pictures, self.system.channels))


def evenly(count: int, generator: torch.Generator) -> Tensor:
    """Places (B,) in [0, 1), spread over the whole batch of all processes."""
    total, rows = share(generator, count)
    return spread(torch.rand(total, generator=generator))[rows]


def score_sde_stage(
    preset: ScorePreset,
    seed: int,
    *,
    data: str | None = None,
    streaming: bool = False,
    init: Path | None = None,
) -> ScoreStage:
    """The score SDE of `preset`, ready to train.

    data: pictures that `open_stream` finds; None for the preset's own
    init: a model whose network training goes on from

    Raises SuffuseError.
    """
    stream, held_out, _ = streams(preset, data, streaming, False)
    torch.manual_seed(seed)
    side = preset.preprocess.size
    config = replace(preset.unet, size=side)
    unet = initialise(NCSNpp(config))
    channels_last(unet)
    if init is not None:
        take(unet, open_pixel(init).unet, init, "network")
    model = PixelModel(
        unet,
        config,
        Info("training run", "made in memory"),
        scheduler=dict(preset.scheduler),
        size=(side, side),
        defaults=Defaults(steps=preset.steps),
    )
    system = ScoreSDE(model)
    system.resolve(Request())  # refuses an SDE that the network or the steps do not fit

    def export(system: ScoreSDE, folder: Path) -> None:
        save_pixel(system.model, folder)
        if data is not None:
            preset.preprocess.save(folder)

    return ScoreStage(
        system, stream, likelihood=preset.likelihood, held_out=held_out, export=export
    )
