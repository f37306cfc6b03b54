"""Pictures of single objects: glyphs of the Noto Color Emoji font, and plain coloured shapes."""

from __future__ import annotations

import math
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from suffuse.data.colours import COLOURS
from suffuse.errors import SuffuseError

FONT_FILE = "NotoColorEmoji.ttf"
FONT_SIZE = 109  # the only size of the font's bitmaps; any other raises in FreeType
_GLYPH_BOX = (136, 128)
_USUAL_PLACES = (
    Path("/usr/share/fonts/truetype/noto") / FONT_FILE,
    Path("/usr/share/fonts/noto") / FONT_FILE,
    Path("/usr/share/fonts/google-noto-emoji") / FONT_FILE,
)
MARGIN = 1 / 16  # of a sprite left free at its edge, so that neighbours never touch
SHAPES = ("circle", "square", "triangle", "star", "heart")


@dataclass(frozen=True)
class Look:
    """What is drawn: a glyph of the font, or one of `SHAPES` in a named colour."""

    drawn: str
    colour: str | None = None


@dataclass(frozen=True, eq=False)
class Sprite:
    """An object at one size, ready to be laid over a picture.

    premultiplied: (size, size, 3) float32, 0..255, colour times alpha
    alpha: (size, size, 1) float32, 0..1
    box: (x0, y0, x1, y1), the ink within the square, in pixels, the end excluded
    """

    premultiplied: np.ndarray
    alpha: np.ndarray
    box: tuple[int, int, int, int]


@lru_cache(maxsize=1)
def font_path() -> Path:
    """The installed Noto Color Emoji font.

    Raises SuffuseError, naming the package to install, where there is none.
    """
    for path in _USUAL_PLACES:
        if path.is_file():
            return path
    try:
        command = ["fc-match", "--format=%{file}", "Noto Color Emoji"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        found = ""
    if Path(found).name == FONT_FILE and Path(found).is_file():
        return Path(found)
    raise SuffuseError(
        "the emoji world needs the Noto Color Emoji font, which is not installed: "
        "apt-get install fonts-noto-color-emoji"
    )


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont:
    # Every glyph is a single code point, so basic layout draws it and no Raqm is needed.
    try:
        return ImageFont.truetype(font_path(), FONT_SIZE, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise SuffuseError(
            f"{font_path()} cannot be read as a bitmap font ({error}): "
            "apt-get install --reinstall fonts-noto-color-emoji"
        ) from error


def _glyph(character: str) -> Image.Image:
    image = Image.new("RGBA", _GLYPH_BOX, (0, 0, 0, 0))
    ImageDraw.Draw(image).text((0, 0), character, font=_font(), embedded_color=True)
    if image.getbbox() is None:
        raise SuffuseError(
            f"{font_path()} has no picture of {character!r}: "
            "a newer fonts-noto-color-emoji is needed"
        )
    return image


def _outline(shape: str) -> list[tuple[float, float]]:
    """The corners of a shape within the unit square, y downwards."""
    turn = 2 * math.pi
    if shape == "square":
        return [(0, 0), (1, 0), (1, 1), (0, 1)]
    if shape == "triangle":
        return [(0.5, 0), (1, 0.87), (0, 0.87)]
    if shape == "star":
        radii = [(0.5, 0.2)[i % 2] for i in range(10)]
        angles = [turn * (i / 10 - 0.25) for i in range(10)]
        return [(0.5 + r * math.cos(t), 0.5 + r * math.sin(t)) for r, t in zip(radii, angles)]
    steps = [turn * i / 200 for i in range(200)]
    if shape == "circle":
        return [(0.5 + 0.5 * math.cos(t), 0.5 + 0.5 * math.sin(t)) for t in steps]
    # The familiar heart curve x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t.
    points = []
    for t in steps:
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((0.5 + x / 34, 0.45 - y / 34))
    return points


def _shape(shape: str, colour: str) -> Image.Image:
    side = 4 * FONT_SIZE  # drawn large: the reduction to a sprite's size smooths its edge
    image = Image.new("RGBA", (side, side), (*COLOURS[colour].rgb, 0))
    corners = [(x * (side - 1), y * (side - 1)) for x, y in _outline(shape)]
    ImageDraw.Draw(image).polygon(corners, fill=(*COLOURS[colour].rgb, 255))
    return image


@lru_cache(maxsize=1024)
def _picture(look: Look) -> Image.Image:
    """The object as large as it comes, trimmed to its ink."""
    image = _glyph(look.drawn) if look.colour is None else _shape(look.drawn, look.colour)
    return image.crop(image.getchannel("A").point(lambda alpha: 255 * (alpha > 8)).getbbox())


@lru_cache(maxsize=4096)
def sprite(look: Look, size: int) -> Sprite:
    """`look` centred in a square of `size` pixels, with `MARGIN` around its longer side."""
    picture = _picture(look)
    scale = (size - 2 * int(size * MARGIN)) / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    small = picture.resize((width, height), Image.Resampling.BICUBIC)
    x0, y0 = (size - width) // 2, (size - height) // 2
    square = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    square.paste(small, (x0, y0))
    pixels = np.asarray(square, dtype=np.float32)  # (size, size, 4)
    alpha = pixels[..., 3:] / 255
    return Sprite(pixels[..., :3] * alpha, alpha, (x0, y0, x0 + width, y0 + height))


@lru_cache(maxsize=65536)
def readable(look: Look, background: str, near: float = 64.0, most: float = 0.5) -> bool:
    """Whether `look` stands out from a plain background of that name.

    It does unless more than `most` of its ink lies within `near` levels of the background: a red
    apple on red is a caption nobody can check.
    """
    small = sprite(look, 40)
    alpha = small.alpha[..., 0]
    ink = alpha > 0.5
    colour = small.premultiplied[ink] / alpha[ink][:, None]  # (pixels, 3)
    distance = np.linalg.norm(colour - np.array(COLOURS[background].rgb, np.float32), axis=1)
    return float((distance < near).mean()) <= most
