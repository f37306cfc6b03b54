"""From the bytes of a file to a picture."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from suffuse.errors import SuffuseError

PAPER = (255, 255, 255)  # what shows through where a picture is transparent


class BrokenPicture(Exception):
    """A picture that cannot be read; the text says why."""


def read(path: Path) -> bytes:
    """The bytes of a file.

    Raises BrokenPicture for a file we may not read, and SuffuseError where it has vanished or the
    disk is in trouble: skipping would then quietly train on less and less.
    """
    try:
        return path.read_bytes()
    except (PermissionError, IsADirectoryError) as error:
        raise BrokenPicture(str(error.strerror).lower()) from None
    except FileNotFoundError:
        raise SuffuseError(
            f"'{path}' was there when the data were listed and has vanished: "
            "put it back, or begin anew without it"
        ) from None
    except OSError as error:
        raise SuffuseError(f"cannot read '{path}': {error.strerror or error}") from None


def decode(data: bytes) -> Image.Image:
    """The picture as RGB, upright, on white where it is transparent. Raises BrokenPicture."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return upright(image)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise what they like: SyntaxError, struct.error …
        raise BrokenPicture(reason(error)) from None


def open_file(path: Path) -> Image.Image:
    """The picture of a file, as `decode` gives it; one that has vanished is broken too.

    Raises BrokenPicture.
    """
    try:
        return decode(path.read_bytes())
    except OSError as error:
        raise BrokenPicture(str(error.strerror or error).lower()) from None


def size_of(data: bytes | Path) -> tuple[int, int]:
    """(width, height) in pixels of a file or its bytes, from the header alone.

    Raises BrokenPicture.
    """
    try:
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
            width, height = image.size
            # Of a PNG, the orientation may stand behind the pixels, and hardly ever does.
            turned = image.format != "PNG" and image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            return (height, width) if turned else (width, height)
    except MemoryError:
        raise
    except Exception as error:
        raise BrokenPicture(reason(error)) from None


def upright(image: Image.Image) -> Image.Image:
    """The picture as RGB, turned as its EXIF says, on white where it is transparent."""
    return to_rgb(ImageOps.exif_transpose(image))


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture as RGB, on white where it is transparent."""
    if image.mode == "RGB":
        return image
    if image.mode == "I" or image.mode.startswith("I;16"):  # 16 bits of grey; pillow would clip
        levels = np.asarray(image).astype(np.int64) >> 8
        return Image.fromarray(levels.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        ink = image.convert("RGBA")
        paper = Image.new("RGBA", ink.size, (*PAPER, 255))
        return Image.alpha_composite(paper, ink).convert("RGB")
    return image.convert("RGB")


def reason(error: Exception) -> str:
    """Why a picture cannot be read, in a few words."""
    if isinstance(error, UnidentifiedImageError):
        return "not a picture"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else text[:119] + "…"
