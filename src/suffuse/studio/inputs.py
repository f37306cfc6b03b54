"""Pictures that strangers send, from base64 or bytes to pixels, within limits.

Sizes are read from the header and judged before a single pixel is decoded, so that a picture that
is small as a file and huge in memory costs nothing.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import anyio
from anyio import to_thread

from suffuse.studio.problems import Problem

if TYPE_CHECKING:
    from PIL.Image import Image

    from suffuse.studio.settings import Limits

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
MOST_SCANS = 500  # of a progressive JPEG, each of which costs a pass over all pixels
_SPACE = re.compile(r"\s+")
# Decoding takes memory and a core: strangers get two at a time.
_DECODERS = anyio.CapacityLimiter(2)


P = ParamSpec("P")
Result = TypeVar("Result")


async def decoding(work: Callable[P, Result], *args: P.args, **options: P.kwargs) -> Result:
    """`work`, which decodes pictures, in one of the few threads for that. Who waits for its turn
    does so without a thread, so that those of everything else stay free."""
    return await to_thread.run_sync(partial(work, *args, **options), limiter=_DECODERS)


def picture(given: str | bytes, field: str, limits: Limits) -> Image:
    """The picture in `given`: base64, a data URL, or the bytes of a file.

    PNG, JPEG, WebP, or the first frame of a GIF; upright as its EXIF says; RGBA where it is
    transparent, else L or RGB. It is all in memory and knows no file. Raises Problem: 413 for one
    of more pixels than the limit, 400 for everything that is no picture. Call it by `decoding`.
    """
    data = base64_bytes(given, field) if isinstance(given, str) else given
    if not data:
        raise Problem(f"{field} is empty: send a picture", field=field)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pillow's own words on bombs, and on damaged EXIF
        return _decode(data, field, limits)


def base64_bytes(text: str, field: str) -> bytes:
    """The bytes of base64 text or of a `data:…;base64,` URL, strictly. Raises Problem."""
    body = text
    if text[:5].lower() == "data:":
        head, comma, body = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise Problem(f"{field} is a data URL without ';base64,'", field=field)
    elif text[:8].lower().startswith(("http://", "https://")):
        raise Problem(f"{field} is an address: send the picture itself, as base64", field=field)
    try:
        return base64.b64decode(_SPACE.sub("", body), validate=True)
    except (binascii.Error, ValueError):  # ValueError: letters beyond ASCII
        raise Problem(f"{field} is not valid base64", field=field) from None


def _decode(data: bytes, field: str, limits: Limits) -> Image:
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as file:
            _judge(file.size, data, file.format, field, limits)
            file.load()
            return _plain(ImageOps.exif_transpose(file))
    except Problem:
        raise
    except Image.DecompressionBombError:
        raise _too_large(field, limits) from None
    except MemoryError:
        raise Problem(f"{field} does not fit into memory", field=field, status=413) from None
    except Exception:  # decoders raise what they like: SyntaxError, struct.error, KeyError …
        names = ", ".join(FORMATS[:-1])
        raise Problem(f"{field} is not a {names} or GIF picture", field=field) from None


def _judge(
    size: tuple[int, int], data: bytes, form: str | None, field: str, limits: Limits
) -> None:
    if size[0] * size[1] > limits.pixels:
        raise _too_large(field, limits, size)
    if form == "JPEG" and data.count(b"\xff\xda") > MOST_SCANS:
        raise Problem(f"{field} is a JPEG of more than {MOST_SCANS} scans", field=field)


def _too_large(field: str, limits: Limits, size: tuple[int, int] | None = None) -> Problem:
    has = "too many" if size is None else f"{size[0]}x{size[1]}"
    return Problem(
        f"{field} has {has} pixels: at most {limits.pixels} are taken", field=field, status=413
    )


def _plain(image: Image) -> Image:
    """The picture as RGBA if it is transparent, else as L or RGB, and nothing but its pixels."""
    from PIL import Image as pil

    from suffuse.data.decode import to_rgb

    if "A" in image.getbands() or "transparency" in image.info:
        found = image.convert("RGBA")
    else:
        found = image.convert("L") if image.mode in ("1", "L") else to_rgb(image)
    bare = pil.new(found.mode, found.size)  # where and when it was taken is nobody's business
    bare.paste(found)
    return bare
