"""How a CLIP takes pictures: resized, cropped to the middle, normalised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from suffuse.errors import SuffuseError
from suffuse.weights.folder import read_json

PREPROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"
_STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
_STRIP = 16  # a picture so many times longer than wide is looked at in its middle only


@dataclass(frozen=True)
class ClipInput:
    """How a CLIP takes pictures; the defaults are OpenAI's.

    size: what the shorter side is brought to, bicubic;  crop: the side of the middle that is kept
    rounded: whether the corner of that middle is the nearest pixel, as in torchvision, by which
        OpenAI and open_clip crop; else the one before, as in transformers
    """

    size: int = 224
    crop: int = 224
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    spread: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)
    rounded: bool = False

    @classmethod
    def load(cls, folder: Path, image: int = 224) -> ClipInput:
        """What the folder says; OpenAI's way to `image` pixels where it says nothing.

        Raises SuffuseError.
        """
        path, raw = _said(folder)
        try:
            size, crop = raw.get("size", image), raw.get("crop_size", image)
            made = cls(
                int(size["shortest_edge"] if isinstance(size, dict) else size),
                int(crop["height"] if isinstance(crop, dict) else crop),
                tuple(map(float, raw.get("image_mean", cls.mean))),
                tuple(map(float, raw.get("image_std", cls.spread))),
            )
        except (ValueError, KeyError, TypeError, OverflowError) as wrong:
            line = " ".join(str(wrong).split())
            raise SuffuseError(f"{path}: is not a CLIP's preprocessing ({line})") from None
        skipped = [name for name in _STEPS if raw.get(name) is False]
        if raw.get("rescale_factor") is not None and raw["rescale_factor"] != 1 / 255:
            raise SuffuseError(f"{path}: rescale_factor must be 1/255, as for every CLIP")
        if raw.get("resample", 3) != Image.Resampling.BICUBIC or made.crop > made.size or skipped:
            raise SuffuseError(f"{path}: only bicubic resizing, then a smaller crop, is supported")
        numbers = (*made.mean, *made.spread)
        if (len(made.mean), len(made.spread)) != (3, 3) or not all(map(isfinite, numbers)):
            raise SuffuseError(f"{path}: image_mean and image_std must be three numbers each")
        if min(made.crop, *made.spread) <= 0:
            raise SuffuseError(
                f"{path}: is not a CLIP's preprocessing (sizes and image_std are above 0)"
            )
        return made

    def json(self) -> dict[str, object]:
        """The `preprocessor_config.json` that `load` and transformers read."""
        return {
            "image_processor_type": "CLIPImageProcessor",
            "do_convert_rgb": True,
            "do_resize": True,
            "size": {"shortest_edge": self.size},
            "resample": int(Image.Resampling.BICUBIC),
            "do_center_crop": True,
            "crop_size": {"height": self.crop, "width": self.crop},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.spread),
        }

    def prepare(self, image: Image.Image) -> Tensor:
        """An RGB picture of any size -> (3, crop, crop); for other modes see `data.decode`."""
        width, height = image.size
        short = min(width, height)
        if max(width, height) > _STRIP * short:  # resized whole, it could fill the memory
            image = _middle(image, min(width, _STRIP * short), min(height, _STRIP * short))
            width, height = image.size
        sides = (self.size * width // short, self.size * height // short)
        image = image.resize(sides, Image.Resampling.BICUBIC)
        image = _middle(image, self.crop, self.crop, self.rounded)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255  # (3, H, W)
        mean, spread = (torch.tensor(row)[:, None, None] for row in (self.mean, self.spread))
        return (pixels - mean) / spread

    def batch(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB pictures -> (B, 3, crop, crop)."""
        return torch.stack([self.prepare(image) for image in images])


def _said(folder: Path) -> tuple[Path, dict[str, Any]]:
    """What a folder says about pictures, and in which file; nothing if there is none.

    transformers 5 saves it inside `processor_config.json`, and looks there first.
    """
    whole = folder / PROCESSOR
    if whole.is_file() and isinstance(found := read_json(whole).get("image_processor"), dict):
        return whole, found
    path = folder / PREPROCESSOR
    return path, read_json(path) if path.is_file() else {}


def _middle(image: Image.Image, width: int, height: int, rounded: bool = False) -> Image.Image:
    x, y = (image.width - width) / 2, (image.height - height) / 2
    x, y = (round(x), round(y)) if rounded else (int(x), int(y))
    return image.crop((x, y, x + width, y + height))
