"""Folders of pictures to train on, made for the tests."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def picture(number: int, width: int = 24, height: int = 20) -> Image.Image:
    """A picture whose upper left corner has its number in it; a PNG keeps it."""
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
    pixels[:4, :4] = number
    return Image.fromarray(pixels)


def encoded(number: int, width: int = 24, height: int = 20, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    picture(number, width, height).save(out, kind)
    return out.getvalue()


def folder(path: Path, count: int, side: int = 16, metadata: bool = True) -> Path:
    """`count` square pictures, numbered from 1, with the caption "number n"."""
    path.mkdir(parents=True)
    for n in range(1, count + 1):
        (path / f"{n:03}.png").write_bytes(encoded(n, side, side))
        if not metadata:
            (path / f"{n:03}.txt").write_text(f"number {n}\n")
    if metadata:
        rows = [{"file_name": f"{n:03}.png", "text": f"number {n}"} for n in range(1, count + 1)]
        (path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def tars(path: Path, shards: list[list[int]], side: int = 16) -> Path:
    """WebDataset archives, each with its numbers."""
    path.mkdir(parents=True)
    for i, numbers in enumerate(shards):
        with tarfile.open(path / f"shard-{i}.tar", "w") as tar:
            for n in numbers:
                _add(tar, f"{n:03}.png", encoded(n, side, side))
                _add(tar, f"{n:03}.txt", f"number {n}".encode())
    return path


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
