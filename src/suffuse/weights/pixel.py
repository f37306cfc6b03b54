"""What a checkpoint of a pixel-space model comes down to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar

from torch import nn

from suffuse.errors import SuffuseError
from suffuse.networks.classifier import ClassifierConfig
from suffuse.networks.ncsnpp import NCSNppConfig
from suffuse.networks.pixel import ADMConfig, DDPMConfig, SR3Config
from suffuse.weights.parts import Defaults, Info
from suffuse.weights.scheduler import Sampling, from_config


@dataclass(frozen=True)
class Inference:
    """The noise schedule that pictures are drawn with, `steps` long, where it is not the one of
    training (2104.07636, section 2.4); `kind`, `start` and `end` are those of `schedule.betas`."""

    steps: int = 100
    kind: str = "linear"
    start: float = 1e-4
    end: float = 0.1


@dataclass(frozen=True)
class Enlarging:
    """How an upscaler is used: the network sees x beside the low resolution, brought to size.

    factor: how many times a side grows
    filter: what brings the low resolution to size
    residual: 0 where x is the picture; else x is this many times what the brought-up picture lacks
    inference: the schedule to draw with; None takes steps of the training's
    """

    factor: int = 4
    filter: Literal["bicubic", "bilinear"] = "bicubic"
    residual: float = 0.0
    inference: Inference | None = None

    def __post_init__(self) -> None:
        if self.factor < 2:
            raise SuffuseError(f"the factor of an upscaler is at least 2, not {self.factor}")
        if self.residual < 0:
            raise SuffuseError(f"residual must be 0 or more, not {self.residual}")


Net = TypeVar("Net", bound=nn.Module)
PixelConfig = ADMConfig | DDPMConfig | SR3Config | NCSNppConfig | ClassifierConfig


@dataclass(frozen=True, eq=False)
class PixelModel(Generic[Net]):
    """A network over pixels in evaluation mode, its configuration, and what came with it.

    `published` names the row of `adm_presets` or `ncsnpp.PUBLISHED` whose network it has;
    `scheduler` is diffusers' `scheduler_config.json` where the folder has one; `size` the height
    and width that it was trained at and `classes` the names of its classes, where these are told.
    `enlarging` makes it an upscaler.
    """

    unet: Net
    config: PixelConfig
    info: Info
    published: str | None = None
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    classes: tuple[str, ...] = ()
    defaults: Defaults = field(default_factory=Defaults)
    enlarging: Enlarging | None = None

    @cached_property
    def sampling(self) -> Sampling:
        """What `scheduler` means; DDPM's own where there is none. Raises SuffuseError."""
        try:
            return from_config(self.scheduler or {"_class_name": "DDPMScheduler"})
        except SuffuseError as problem:
            raise SuffuseError(f"{self.info.path or self.info.name}: {problem}") from None


def check_groups(channels: tuple[int, ...], groups: int, where: str) -> None:
    """Raise SuffuseError if some width does not divide into norm groups."""
    for width in channels:
        if groups < 1 or width % groups:
            raise SuffuseError(f"{where}: {width} channels do not divide into {groups} norm groups")
