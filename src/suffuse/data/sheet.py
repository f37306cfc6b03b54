"""A contact sheet: some pictures of a data set with their captions, on one page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from suffuse.data.decode import BrokenPicture
from suffuse.data.table import Row, Table

CELL, TEXT, GAP, ACROSS = 160, 30, 8, 8  # pixels, and pictures in a row


def contact_sheet(table: Table, path: Path, count: int = 48, seed: int = 0) -> list[str]:
    """Writes `count` pictures, drawn at random by `seed`, to `path`; returns their names.

    Below each stands its caption, or its name where the caption has letters that the font has not.
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
    across, down = min(ACROSS, len(chosen)), -(-len(chosen) // ACROSS)
    width, height = CELL + GAP, CELL + TEXT + GAP
    page = Image.new("RGB", (across * width + GAP, down * height + GAP), "white")
    for i, (row, small) in enumerate(chosen):
        x, y = GAP + i % ACROSS * width, GAP + i // ACROSS * height
        page.paste(small, (x + (CELL - small.width) // 2, y + (CELL - small.height) // 2))
        _write(page, row, x, y + CELL + 2)
    temporary = path.with_name(f".{path.name}.tmp")
    page.save(temporary, "PNG")
    temporary.replace(path)
    return [row.name for row, _ in chosen]


def _write(page: Image.Image, row: Row, x: int, y: int) -> None:
    """Two lines, cut to the width of a cell."""
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    text = row.captions[0] if row.captions and row.captions[0].isascii() else row.name
    text = text.encode("ascii", "replace").decode()
    for line in range(2):
        kept = text
        while draw.textlength(kept, font) > CELL:
            kept = kept[:-1]
        if kept != text and " " in kept and line == 0:
            kept = kept[: kept.rindex(" ")]
        draw.text((x, y + 13 * line), kept, "black", font)
        text = text[len(kept) :].strip()
