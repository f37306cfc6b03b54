"""Score SDEs whose network knows the score: independent normal numbers, in closed form."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from suffuse.diffusion.sde import VE
from suffuse.networks.ncsnpp import NCSNpp, NCSNppConfig
from suffuse.systems.score_sde import ScoreSDE
from suffuse.weights.parts import Defaults, Info
from suffuse.weights.pixel import PixelModel
from suffuse.weights.score_scheduler import read_process

DDPMPP: dict[str, Any] = {
    "embedding": "positional",
    "fir": False,
    "input_pyramid": "none",
    "divide_by_label": False,
    "unit_range": False,
}


def tiny(sde: str, **changes: Any) -> PixelModel[NCSNpp]:
    """A network for 8 x 8 with fresh weights; `sde` is Vp, SubVp or Ve."""
    shape: dict[str, Any] = {"size": 8, "width": 8, "multiples": (1, 2), "blocks": 1}
    family = {} if sde == "Ve" else DDPMPP
    config = NCSNppConfig(**{**shape, "attention": (4,), **family, **changes})
    scheduler = {"_class_name": f"ScoreSde{sde}Scheduler", "num_train_timesteps": 60}
    ends = {"sigma_max": 20.0} if sde == "Ve" else {}
    return PixelModel(
        NCSNpp(config).eval(),
        config,
        Info("tiny", "test"),
        scheduler={**scheduler, **ends},
        size=(config.size, config.size),
        defaults=Defaults(steps=30),
    )


class Normal(NCSNpp):
    """Knows that every number of an image is normal; what it is told is turned into the time."""

    def __init__(self, model: PixelModel[NCSNpp], mean: float, deviation: float) -> None:
        assert isinstance(model.config, NCSNppConfig)
        super().__init__(model.config)
        self.sde = read_process(model.scheduler).sde
        self.mean, self.deviation = mean, deviation

    def forward(self, x: Tensor, label: Tensor, context: None = None) -> Tensor:
        sde, told = self.sde, label.double()
        t = (told / sde.sigma_min).log() / sde._growth if isinstance(sde, VE) else told / 999
        level = sde.at(t)
        variance = (level.alpha * self.deviation) ** 2 + level.sigma**2
        score = -(x.double() - level.alpha * self.mean) / variance
        found = score if self.config.divide_by_label else -level.sigma * score
        return found.to(x.dtype)


def normal(sde: str, mean: float, deviation: float, **changes: Any) -> ScoreSDE:
    """The system around such a network."""
    model = tiny(sde, **changes)
    return ScoreSDE(model).holding(Normal(model, mean, deviation).eval())


def moments(pictures: Any) -> tuple[float, float]:
    """Mean and deviation of pictures in [-1, 1]."""
    import numpy as np

    levels = torch.from_numpy(np.stack([np.asarray(p) for p in pictures])).double() / 127.5 - 1
    return float(levels.mean()), float(levels.std())
