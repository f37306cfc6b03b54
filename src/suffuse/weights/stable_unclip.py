"""Stable unCLIP's folders: Stable Diffusion 2.1 that reads CLIP image embeddings.

StableUnCLIPImg2ImgPipeline varies pictures, StableUnCLIPPipeline has Karlo's prior before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from suffuse.diffusion.schedule import Schedule
from suffuse.errors import SuffuseError
from suffuse.weights.containers import find_weights, open_tensors
from suffuse.weights.folder import check_index, open_components
from suffuse.weights.mapping import complain
from suffuse.weights.parts import Hints, Parts, Place
from suffuse.weights.unclip import (
    PriorParts,
    Towers,
    check_widths,
    open_image_tower,
    open_prior,
    open_sampling,
    open_towers,
)

VARIATIONS, FROM_TEXT = "StableUnCLIPImg2ImgPipeline", "StableUnCLIPPipeline"
STABLE = (VARIATIONS, FROM_TEXT)


@dataclass(frozen=True, eq=False)
class StableUnclipParts:
    """A stable unCLIP taken apart; its networks are in evaluation mode.

    Raises SuffuseError when the parts do not fit together.
    """

    base: Parts
    towers: Towers
    mean: Tensor  # (D,), of image embeddings
    std: Tensor  # (D,)
    noising: Schedule  # of the noise that embeddings get
    prior: PriorParts | None = None

    def __post_init__(self) -> None:
        vector, where = self.base.unet_config.vector, str(self.base.info.path)
        widths = {"image normalizer": len(self.mean), "half of what the U-Net reads": vector // 2}
        check_widths(self.towers, self.prior, widths, where)


def open_stable_unclip(folder: Path, place: Place, name: str | None = None) -> StableUnclipParts:
    """The parts of a folder; `name` where the folder's own says nothing.

    Raises SuffuseError naming the file and what is wrong with it.
    """
    check_index(folder, STABLE)
    base = open_components(folder, Hints(), place, name, vector=True)
    prior, noising = None, open_sampling(folder / "image_noising_scheduler").schedule
    if (folder / "prior").is_dir():
        towers, prior = open_towers(folder, place, "prior_"), open_prior(folder, place)
    else:
        image, prepare = open_image_tower(folder, place)
        towers = Towers(image=image, prepare=prepare)
    return StableUnclipParts(base, towers, *_statistics(folder, place), noising, prior)


def _statistics(folder: Path, place: Place) -> tuple[Tensor, Tensor]:
    """Mean and deviation of embeddings, (D,) each."""
    file = open_tensors(find_weights(folder / "image_normalizer"))
    complain(file, [n for n in ("mean", "std") if n not in file], [])
    mean, std = (file.read(n, torch.float32).flatten().to(place.device) for n in ("mean", "std"))
    if len(mean) != len(std):
        raise SuffuseError(f"{file.path}: a mean of {len(mean)} and a deviation of {len(std)}")
    return mean, std
