"""Pictures of every mode; broken ones with a reason."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest
from PIL import Image

from suffuse.data.decode import BrokenPicture, decode, read, size_of
from suffuse.errors import SuffuseError


def stored(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def pixel(data: bytes) -> tuple[int, int, int]:
    image = decode(data)
    assert image.mode == "RGB"
    return image.getpixel((0, 0))


def test_every_mode_becomes_rgb() -> None:
    assert pixel(stored(Image.new("RGB", (2, 2), (1, 2, 3)))) == (1, 2, 3)
    assert pixel(stored(Image.new("L", (2, 2), 9))) == (9, 9, 9)
    assert pixel(stored(Image.new("1", (2, 2), 1))) == (255, 255, 255)
    assert pixel(stored(Image.new("RGBA", (2, 2), (9, 9, 9, 0)))) == (255, 255, 255)
    assert pixel(stored(Image.new("LA", (2, 2), (0, 51)))) == (204, 204, 204)
    assert pixel(stored(Image.new("P", (2, 2), 0), transparency=0)) == (255, 255, 255)
    sixteen = Image.fromarray(np.full((2, 2), 0x8040, np.uint16))
    assert pixel(stored(sixteen)) == (128, 128, 128)
    black = pixel(stored(Image.new("CMYK", (8, 8), (0, 0, 0, 255)), "JPEG"))
    assert max(black) < 4


def test_a_turned_photo_is_set_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    data = stored(Image.new("RGB", (30, 20)), "JPEG", exif=exif)
    assert decode(data).size == size_of(data) == (20, 30)


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0 no"])
def test_what_is_no_picture_is_broken(data) -> None:
    with pytest.raises(BrokenPicture):
        decode(data)
    with pytest.raises(BrokenPicture):
        size_of(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_a_truncated_picture_is_broken_with_one_line_that_says_why(kind) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = stored(Image.fromarray(pixels), kind)
    with pytest.raises(BrokenPicture) as caught:
        decode(data[: len(data) // 2])
    assert str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_vanished_is_an_error_and_one_we_may_not_read_is_broken(tmp_path) -> None:
    with pytest.raises(SuffuseError, match=r"dog\.png' was there .* vanished"):
        read(tmp_path / "dog.png")
    with pytest.raises(BrokenPicture, match="is a directory"):
        read(tmp_path)
    locked = tmp_path / "locked.png"
    locked.write_bytes(b"x")
    locked.chmod(0)
    if not os.access(locked, os.R_OK):
        with pytest.raises(BrokenPicture, match="permission denied"):
            read(locked)
