"""What a checkpoint of a pixel-space model comes down to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from torch import nn

from suffuse.errors import SuffuseError
from suffuse.networks.classifier import ClassifierConfig
from suffuse.networks.ncsnpp import NCSNppConfig
from suffuse.networks.pixel import ADMConfig, DDPMConfig, SR3Config
from suffuse.weights.parts import Defaults, Info

Net = TypeVar("Net", bound=nn.Module)
PixelConfig = ADMConfig | DDPMConfig | SR3Config | NCSNppConfig | ClassifierConfig


@dataclass(frozen=True, eq=False)
class PixelModel(Generic[Net]):
    """A network over pixels in evaluation mode, its configuration, and what came with it.

    `published` names the row of `adm_presets` or `ncsnpp.PUBLISHED` whose network it has;
    `scheduler` is diffusers' `scheduler_config.json` where the folder has one; `size` the height
    and width that it was trained at and `classes` the names of its classes, where these are told.
    """

    unet: Net
    config: PixelConfig
    info: Info
    published: str | None = None
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    classes: tuple[str, ...] = ()
    defaults: Defaults = field(default_factory=Defaults)


def check_groups(channels: tuple[int, ...], groups: int, where: str) -> None:
    """Raise SuffuseError if some width does not divide into norm groups."""
    for width in channels:
        if groups < 1 or width % groups:
            raise SuffuseError(f"{where}: {width} channels do not divide into {groups} norm groups")
