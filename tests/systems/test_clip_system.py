"""CLIP in use: pictures of every kind, texts of any length."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TOKENIZER

from suffuse import Clip, load_clip
from suffuse.errors import SuffuseError

ARCHIVE = Path(__file__).parents[1] / "parity" / "clip" / "openai_vit" / "archive.pt"
ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def clip() -> Clip:
    return load_clip(ARCHIVE, "cpu", "float32", tokenizer=TOKENIZER)


def picture(seed: int = 0, size: tuple[int, int] = (40, 33)) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(small).resize(size)


def test_points_have_length_one_and_come_in_order(clip: Clip) -> None:
    pictures = [picture(i) for i in range(70)]  # more than go through the tower together
    found = clip.images(pictures)
    assert found.shape == (70, clip.width) == (70, 48) and found.dtype == torch.float32
    assert torch.allclose(found.norm(dim=1), torch.ones(70), atol=1e-6)
    assert torch.allclose(found[[3, 69]], clip.images([pictures[3], pictures[69]]), atol=1e-5)
    words = clip.texts(["a cat", "two dogs"])
    assert words.shape == (2, 48) and not torch.allclose(words[0], words[1], atol=1e-3)
    assert clip.images([]).shape == clip.texts([]).shape == (0, 48)
    assert clip.scale == pytest.approx(clip.parts.model.logit_scale.exp().item())


def test_pictures_of_any_mode_and_rotation(clip: Clip) -> None:
    plain = picture()
    (want,) = clip.images([plain])
    turned = plain.transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[ORIENTATION] = 6  # to be turned back when shown
    opaque = plain.convert("RGBA")
    assert torch.equal(clip.images([turned])[0], want)
    assert torch.equal(clip.images([opaque])[0], want)
    grey = plain.convert("L")
    same = clip.images([grey, grey.convert("RGB"), grey.convert("LA")])
    assert torch.allclose(same, same[:1].expand(3, -1), atol=1e-6)
    clear = opaque.copy()
    clear.putalpha(0)
    white = Image.new("RGB", plain.size, "white")
    assert torch.equal(clip.images([clear])[0], clip.images([white])[0])
    for mode in ("1", "P", "CMYK", "I;16", "YCbCr"):
        made = Image.new("I;16", (20, 30), 9) if mode == "I;16" else plain.convert(mode)
        assert clip.images([made]).isfinite().all(), mode
    for size in ((1, 1), (3, 500), (700, 2)):
        assert clip.images([picture(size=size)]).isfinite().all()


def test_a_long_text_is_cut_and_says_where(clip: Clip) -> None:
    long = " ".join(map(str, range(60)))  # a token for each digit
    lines: list[str] = []
    got = clip.texts(["a cat", long], lines.append)
    (line,) = lines
    said = re.fullmatch(r"a text is .* the 75 tokens .* cut after '…(.*)', before '(.*)…'", line)
    assert said is not None, line
    end = long.index(said[1]) + len(said[1])
    assert long[end:].lstrip().startswith(said[2])
    assert len(clip.parts.tokenizer.encode(long[:end])) == 75
    assert torch.allclose(got[1], clip.texts([long[:end]], pytest.fail)[0], atol=1e-6)
    with pytest.warns(UserWarning, match="cut after"):
        clip.texts([long])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clip.texts(["a cat", ""])


def test_what_cannot_be_loaded() -> None:
    with pytest.raises(SuffuseError, match="unknown dtype 'float8'"):
        load_clip(ARCHIVE, "cpu", "float8")
