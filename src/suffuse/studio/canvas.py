"""Pictures and masks as other programs mean them, made into what a `Request` takes.

Our masks are white where the picture is repainted and have the picture's size. OpenAI's clients
say the same with transparent pixels, A1111's with a mask of any size.
"""

from __future__ import annotations

from PIL import Image, ImageChops, ImageFilter, ImageOps, ImageStat

from suffuse.studio.problems import Problem
from suffuse.studio.settings import Limits

Size = tuple[int, int]  # width, height in pixels


def holes(picture: Image.Image) -> Image.Image | None:
    """A mask (L) that is white where the picture is transparent, by half or more; None where it
    has no such pixel."""
    if "A" not in picture.getbands():
        return None
    mask = crisp(ImageChops.invert(picture.getchannel("A")))
    return mask if mask.getbbox() else None


def crisp(mask: Image.Image) -> Image.Image:
    """A mask (L) of white and black alone, as it will be taken."""
    return mask.point(lambda level: 255 * (level >= 128))


def bleed(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture (RGB) with its masked part replaced by what surrounds it, ever more blurred.

    A model that starts from it does not see what was there: neither an object to be removed nor
    the black or white behind transparent pixels.
    """
    white = crisp(mask)
    kept = picture.convert("RGB").convert("RGBA")
    kept.putalpha(ImageChops.invert(white))
    weighted = kept.convert("RGBa")  # blurred colours must not hold those of masked pixels
    found = Image.new("RGBA", kept.size, _mean(picture, white))
    radius = max(kept.size) / 4
    while radius >= 1:
        around = weighted.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        found = Image.alpha_composite(found, around)
        radius /= 4
    return Image.alpha_composite(found, kept).convert("RGB")


def _mean(picture: Image.Image, white: Image.Image) -> tuple[int, ...]:
    known = ImageChops.invert(white)
    seen = known if known.getbbox() else None  # all is masked: then of all
    return (*(round(level) for level in ImageStat.Stat(picture.convert("RGB"), seen).mean), 255)


def check_size(size: Size, limits: Limits) -> None:
    """Raises Problem where a side is longer than what may be drawn, before anything is resized."""
    for name, side, most in zip(("width", "height"), size, (limits.width, limits.height)):
        if side > most:
            raise Problem(f"{name} {side} is too much: at most {most} pixels", field=name)


def fitted(picture: Image.Image, size: Size, crop: bool = False) -> Image.Image:
    """The picture at this size, by Lanczos: stretched, or cropped about its middle."""
    if picture.size == size:
        return picture
    if crop:
        return ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
    return picture.resize(size, Image.Resampling.LANCZOS)
