"""The denoising as a strip: which steps are shown, and their pictures in one row."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def frame_steps(steps: int, most: int) -> set[int]:
    """At most so many steps, two or more, evenly spaced; the last is the finished picture's."""
    count = min(most, steps)
    return {round(k * (steps - 1) / max(count - 1, 1)) for k in range(count)}


def side_by_side(pictures: list[Image]) -> Image:
    """One row of pictures, each as high as the last."""
    from PIL import Image

    width, height = pictures[-1].size
    row = Image.new("RGB", (width * len(pictures), height))
    for i, picture in enumerate(pictures):
        row.paste(
            picture.resize((width, height)) if picture.size != (width, height) else picture,
            (i * width, 0),
        )
    return row
