"""From a picture of any size to the pixels a network is trained on.

Published scores hang on these choices (2104.11222), so they have a name, and `Preprocess.save`
leaves them with the model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

from suffuse.data.buckets import Buckets
from suffuse.errors import SuffuseError

FILE = "preprocessing.json"

Filter = Literal["bicubic", "bilinear", "lanczos", "box", "nearest"]
Crop = Literal["center", "random", "stretch"]


@dataclass(frozen=True)
class Preprocess:
    """How a picture is brought to size.

    size: the side of the square in pixels; with buckets, the root of their area
    filter: how pixels are weighed
    antialias: whether the filter grows with the reduction, as it must to leave nothing out. Without
        it, "bilinear" is the default of OpenCV's resize, and of papers that used it
    halve: halve by averaging while more than twice too large, then filter: ADM's training
        (guided-diffusion/image_datasets.py), which its published FID was measured with
    crop: of what is left over, keep the "center", a "random" part, or "stretch" to the shape
    flip: how often the picture is mirrored, 0..1; captions with left and right want 0
    buckets: shapes to choose from; else a square
    """

    size: int = 256
    filter: Filter = "bicubic"
    antialias: bool = True
    halve: bool = False
    crop: Crop = "center"
    flip: float = 0.0
    buckets: Buckets | None = None

    def __post_init__(self) -> None:
        if self.size < 1:
            raise SuffuseError(f"size must be at least 1 pixel, not {self.size}")
        _one_of("filter", self.filter, get_args(Filter))
        _one_of("crop", self.crop, get_args(Crop))
        if not 0 <= self.flip <= 1:
            raise SuffuseError(f"flip must be between 0 and 1, not {self.flip}")
        if not self.antialias and self.filter not in ("bilinear", "nearest"):
            raise SuffuseError(f"without antialias the filter is bilinear, not {self.filter}")
        if self.buckets is not None:
            self.buckets.shapes(self.size)  # refuses a size that does not fit

    def shape(self, width: int, height: int) -> tuple[int, int]:
        """The (width, height) that a picture of this size is brought to."""
        if self.buckets is None:
            return self.size, self.size
        return self.buckets.choose(width, height, self.size)

    def apply(
        self, image: Image.Image, rng: np.random.Generator, shape: tuple[int, int] | None = None
    ) -> np.ndarray:
        """`image` (RGB) as (H, W, 3) uint8; `rng` places a random crop and tosses for the flip.

        shape: (width, height) in place of the picture's own
        """
        width, height = shape or self.shape(*image.size)
        if self.crop == "stretch":
            image = self._resize(image, (width, height), (width, height))
        else:
            scale = max(width / image.width, height / image.height)
            sides = round(image.width * scale), round(image.height * scale)
            grown = max(width, sides[0]), max(height, sides[1])
            image = self._resize(image, grown, (width, height))
        x, y = self._corner(rng, image.width - width, image.height - height)
        pixels = np.asarray(image)[y : y + height, x : x + width]
        if self.flip and rng.random() < self.flip:
            pixels = pixels[:, ::-1]
        return np.ascontiguousarray(pixels)  # (H, W, 3)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """The reverse of `to_dict`. Raises SuffuseError for what it does not know."""
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise SuffuseError(f"preprocessing has no {', '.join(unknown)}: {', '.join(known)}")
        buckets = values.get("buckets")
        try:
            made = None if buckets is None else Buckets(**buckets)
            return cls(**{**values, "buckets": made})
        except TypeError as error:
            raise SuffuseError(f"preprocessing is not as it should be: {error}") from None

    def save(self, folder: Path) -> None:
        """Writes preprocessing.json into the folder of a model."""
        path = folder / FILE
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)

    @classmethod
    def load(cls, folder: Path) -> Preprocess | None:
        """What `save` wrote; None where a model says nothing. Raises SuffuseError."""
        path = folder / FILE
        if not path.exists():
            return None
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SuffuseError(f"cannot read '{path}': {error}") from None
        if not isinstance(values, dict):
            raise SuffuseError(f"'{path}' does not hold a preprocessing")
        return cls.from_dict(values)

    def _corner(self, rng: np.random.Generator, right: int, below: int) -> tuple[int, int]:
        """Where the kept part begins, given how many pixels are too many."""
        if self.crop == "random":
            return int(rng.integers(right + 1)), int(rng.integers(below + 1))
        return right // 2, below // 2

    def _resize(
        self, image: Image.Image, sides: tuple[int, int], shape: tuple[int, int]
    ) -> Image.Image:
        if self.halve:
            while image.width >= 2 * shape[0] and image.height >= 2 * shape[1]:
                half = image.width // 2, image.height // 2
                image = image.resize(half, Image.Resampling.BOX)
        if image.size == sides:
            return image
        method = Image.Resampling[self.filter.upper()]
        if self.antialias:
            return image.resize(sides, method)
        # An affine map reads the pixels about a point however far apart the points are.
        across, down = image.width / sides[0], image.height / sides[1]
        data = (across, 0.0, 0.0, 0.0, down, 0.0)
        return image.transform(sides, Image.Transform.AFFINE, data, resample=method)


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise SuffuseError(f"unknown {name} {value!r}: choose one of {', '.join(known)}")
