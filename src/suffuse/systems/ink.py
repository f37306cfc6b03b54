"""What of a picture a network does not see: transparency, and that it is grey."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np

from suffuse.data.decode import to_rgb
from suffuse.systems.request import open_upright

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, eq=False)
class Ink:
    """A picture taken apart.

    colours: RGB, on white where it is transparent
    opacity: "L", None where all of it is opaque
    grey: whether it has no colours
    """

    colours: Image
    opacity: Image | None
    grey: bool

    @classmethod
    def of(cls, source: str | PathLike[str] | Image) -> Ink:
        """A file or a picture in memory. Raises SuffuseError as `open_picture` does."""
        found = open_upright(source, "image")
        clear = "A" in found.getbands() or "transparency" in found.info
        opacity = found.convert("RGBA").getchannel("A") if clear else None
        grey = found.mode in ("1", "L", "LA", "La", "F") or found.mode.startswith("I")
        return cls(to_rgb(found), opacity, grey)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.colours.size

    def onto(self, large: Image) -> Image:
        """`large` (RGB), an enlarged `colours`, as grey and as transparent as the picture was.

        The opacity is enlarged by a filter that makes no halos; what was seen of the white behind
        it is taken out.
        """
        from PIL import Image

        if self.opacity is None:
            return large.convert("L") if self.grey else large
        opacity = self.opacity.resize(large.size, Image.Resampling.HAMMING)
        share = np.asarray(opacity, np.float32)[..., None] / 255  # (H, W, 1)
        seen = np.asarray(large, np.float32)
        pure = (seen - 255 * (1 - share)) / np.maximum(share, 1 / 255)
        levels = np.where(share > 0, pure.clip(0, 255).round(), 255).astype(np.uint8)
        mixed = Image.fromarray(levels)
        mixed.putalpha(opacity)
        return mixed.convert("LA") if self.grey else mixed
