"""A contact sheet: some pictures of a data set with their captions, on one page."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from suffuse.data.decode import BrokenPicture

if TYPE_CHECKING:
    from suffuse.data.table import Row, Table

# With Korean letters, on Linux, Windows and macOS; pillow looks for them where fonts are.
_HANGUL = ("NanumGothic.ttf", "NotoSansCJK-Regular.ttc", "malgun.ttf", "AppleSDGothicNeo.ttc")
CELL, TEXT, GAP, ACROSS = 160, 30, 8, 8  # pixels, and pictures in a row


def contact_sheet(table: Table, path: Path, count: int = 48, seed: int = 0) -> list[str]:
    """Writes `count` pictures, drawn at random by `seed`, to `path`; returns their names.

    Below each stands its caption, or its name where the caption has letters that fonts may lack.
    """
    chosen: list[tuple[Row, Image.Image]] = []
    for index in np.random.default_rng(seed).permutation(len(table)):
        row = table.row(int(index))
        try:
            chosen.append((row, ImageOps.contain(row.picture(), (CELL, CELL))))
        except BrokenPicture:
            continue
        if len(chosen) == count:
            break
    write_sheet([(small, _caption(row)) for row, small in chosen], path)
    return [row.name for row, _ in chosen]


def write_sheet(pictures: Sequence[tuple[Image.Image, str]], path: Path) -> None:
    """Writes pictures of any size with what stands below each, as far as the font has its letters,
    to a PNG that is there as a whole or not at all."""
    across, down = min(ACROSS, len(pictures)), -(-len(pictures) // ACROSS)
    width, height = CELL + GAP, CELL + TEXT + GAP
    page = Image.new("RGB", (across * width + GAP, down * height + GAP), "white")
    for i, (picture, text) in enumerate(pictures):
        small = ImageOps.contain(picture, (CELL, CELL))
        x, y = GAP + i % ACROSS * width, GAP + i // ACROSS * height
        page.paste(small, (x + (CELL - small.width) // 2, y + (CELL - small.height) // 2))
        _write(page, text, x, y + CELL + 2)
    temporary = path.with_name(f".{path.name}.tmp")
    page.save(temporary, "PNG")
    temporary.replace(path)


def _caption(row: Row) -> str:
    return row.captions[0] if row.captions and row.captions[0].isascii() else row.name


@cache
def _font(plain: bool) -> ImageFont.FreeTypeFont | ImageFont.ImageFont | None:
    """pillow's own font, which has Latin letters alone, or one of the system's with Hangul too."""
    for name in () if plain else _HANGUL:
        with suppress(OSError):
            return ImageFont.truetype(name, 11)
    return ImageFont.load_default(11) if plain else None


def _write(page: Image.Image, text: str, x: int, y: int) -> None:
    """Two lines, cut to the width of a cell."""
    draw, font = ImageDraw.Draw(page), _font(text.isascii())
    if font is None:
        font, text = _font(True), text.encode("ascii", "replace").decode()
    for line in range(2):
        kept = text
        while draw.textlength(kept, font) > CELL:
            kept = kept[:-1]
        if kept != text and " " in kept and line == 0:
            kept = kept[: kept.rindex(" ")]
        text = text[len(kept) :].strip()
        shown = f"{kept[:-1]}…" if text and line == 1 else kept
        draw.text((x, y + 13 * line), shown, "black", font)
