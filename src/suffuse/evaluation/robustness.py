"""What is done to pictures to see how much of it a model can take.

Five kinds in five severities, as 1903.12261 has them: its Gaussian noise, blur and JPEG
compression, then two that take away what a class may be known by: `sketch` the colours and
surfaces (a pencil drawing), `texture` the surface alone (1811.12231: another one is laid over it).
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

NOISE = (0.08, 0.12, 0.18, 0.26, 0.38)  # standard deviation, of levels from 0 to 1
BLUR = (1.0, 2.0, 3.0, 4.0, 6.0)  # standard deviation in pixels of a picture 224 pixels wide
QUALITY = (25, 18, 15, 10, 7)  # of JPEG
SKETCH = (0.2, 0.4, 0.6, 0.8, 1.0)  # how much of the drawing there is
TEXTURE = (0.15, 0.3, 0.45, 0.6, 0.75)  # how much of the other surface
SEVERITIES = (1, 2, 3, 4, 5)

Corruption = Callable[[Image.Image, int, np.random.Generator], Image.Image]


def noise(image: Image.Image, severity: int, rng: np.random.Generator) -> Image.Image:
    """Gaussian noise."""
    levels = _levels(image)
    return _image(levels + rng.normal(0, NOISE[severity - 1], levels.shape))


def blur(image: Image.Image, severity: int, rng: np.random.Generator) -> Image.Image:
    """A Gaussian blur, as wide for a large picture as for a small one."""
    radius = BLUR[severity - 1] * min(image.size) / 224
    return image.filter(ImageFilter.GaussianBlur(radius))


def sketch(image: Image.Image, severity: int, rng: np.random.Generator) -> Image.Image:
    """Pencil lines where brightness changes: the grey picture divided by a blurred one."""
    grey = image.convert("L")
    smooth = grey.filter(ImageFilter.GaussianBlur(max(1.0, min(image.size) / 40)))
    bright, around = (np.asarray(one, np.float32) / 255 for one in (grey, smooth))
    drawn = np.clip((bright + 0.02) / (around + 0.02), 0, 1)[..., None]  # (H, W, 1)
    share = SKETCH[severity - 1]
    return _image((1 - share) * _levels(image) + share * drawn)


def texture(image: Image.Image, severity: int, rng: np.random.Generator) -> Image.Image:
    """A woven pattern of two colours over everything, its directions and colours drawn anew."""
    share, levels = TEXTURE[severity - 1], _levels(image)
    height, width = levels.shape[:2]
    y, x = np.mgrid[:height, :width] / max(1, min(image.size))
    wave = np.ones((height, width))
    for angle in rng.uniform(0, np.pi, size=2):
        along = np.cos(angle) * x + np.sin(angle) * y
        wave *= np.sin(2 * np.pi * rng.uniform(8, 20) * along + rng.uniform(0, 2 * np.pi))
    one, other = rng.uniform(size=(2, 3))
    woven = np.where(wave[..., None] > 0, one, other)  # (H, W, 3)
    return _image((1 - share) * levels + share * woven)


def compression(image: Image.Image, severity: int, rng: np.random.Generator) -> Image.Image:
    """JPEG at a low quality."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY[severity - 1])
    with Image.open(file) as opened:
        return opened.convert("RGB")


CORRUPTIONS: dict[str, Corruption] = {
    "noise": noise,
    "blur": blur,
    "sketch": sketch,
    "texture": texture,
    "compression": compression,
}


def corrupt(image: Image.Image, kind: str, severity: int, seed: int, i: int) -> Image.Image:
    """Picture `i` (RGB), corrupted; the same for the same numbers, whatever was done before.

    What is drawn at random is one for all severities, so that they differ in strength alone.
    """
    rng = np.random.default_rng((seed, i))
    return CORRUPTIONS[kind](image, severity, rng)


def _levels(image: Image.Image) -> np.ndarray:
    """(H, W, 3) from 0 to 1."""
    return np.asarray(image, np.float32) / 255


def _image(levels: np.ndarray) -> Image.Image:
    return Image.fromarray((np.clip(levels, 0, 1) * 255).round().astype(np.uint8))
