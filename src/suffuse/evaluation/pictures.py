"""Sets of pictures to be measured: a folder, or the arrays of a public .npz."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from suffuse.data.decode import BrokenPicture, decode, read
from suffuse.data.emoji import OBJECTS, World
from suffuse.data.listing import list_files, list_pictures
from suffuse.data.preprocess import Crop, Preprocess
from suffuse.data.stream import Broken
from suffuse.errors import SuffuseError
from suffuse.evaluation.statistics import read_arrays
from suffuse.systems.metadata import read_parameters

ARRAY = "arr_0"  # as ADM's sample batches call theirs


class Pictures(Protocol):
    """Pictures that can be gone through more than once: (H, W, 3) uint8, of any size."""

    broken: Broken

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[np.ndarray]: ...


@dataclass
class FolderPictures:
    """Every picture of a folder, in the order of names; broken ones are left out and noted."""

    root: Path
    names: list[str]
    captions: list[str]  # "" where a picture has none
    broken: Broken = field(default_factory=Broken)

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (np.asarray(image) for image, _ in self.pairs())

    def pairs(self, captioned: bool = False) -> Iterator[tuple[Image.Image, str]]:
        """Each picture (RGB) with its caption: what is said beside it, or its own prompt.

        captioned: leave out those without any
        """
        for name, caption in zip(self.names, self.captions):
            path = self.root / name
            caption = caption or _prompt(path)
            if captioned and not caption:
                continue
            try:
                image = decode(read(path))
            except BrokenPicture as error:
                self.broken.add(name, str(error))
                continue
            yield image, caption


@dataclass
class ArrayPictures:
    """The pictures of an array (N, H, W, 3) uint8."""

    pixels: np.ndarray
    broken: Broken = field(default_factory=Broken)

    def __len__(self) -> int:
        return len(self.pixels)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.pixels)


def open_folder(path: Path, limit: int | None = None) -> FolderPictures:
    """The first `limit` pictures of a folder. Raises SuffuseError where there are none."""
    if not path.is_dir():
        raise SuffuseError(f"there is no folder '{path}'")
    listing = list_pictures(path, list_files(path))
    if not listing.names:
        raise SuffuseError(f"'{path}' holds no pictures")
    captions = [said[0] if said else "" for said in listing.captions]
    return FolderPictures(path, listing.names[:limit], captions[:limit])


def open_pictures(path: Path, limit: int | None = None) -> Pictures | None:
    """The pictures of a folder or an .npz; None for an .npz without any. Raises SuffuseError."""
    if path.suffix.lower() != ".npz":
        return open_folder(path, limit)
    pixels = read_arrays(path, (ARRAY,)).get(ARRAY)
    if pixels is None:
        return None
    if pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.dtype != np.uint8:
        raise SuffuseError(
            f"'{path}': {ARRAY} {pixels.shape} {pixels.dtype} is not (N, H, W, 3) uint8"
        )
    return ArrayPictures(pixels[:limit])


@dataclass(frozen=True)
class Given:
    """What an autoencoder is measured on.

    batches: of at most so many pictures, (B, H, W, 3) uint8
    prepared: how they were brought to size, for reports
    """

    batches: Callable[[int], Iterator[np.ndarray]]
    count: int
    prepared: dict[str, Any]
    broken: Broken


def emoji_scenes(n: int, objects: int | None = None, seed: int = 0) -> Given:
    """Scenes that training never shows. Raises SuffuseError."""
    if objects is not None and not 1 <= objects <= len(OBJECTS):
        raise SuffuseError(f"objects must be between 1 and {len(OBJECTS)}, not {objects}")
    world = World() if objects is None else World(objects=objects)

    def batches(size: int) -> Iterator[np.ndarray]:
        for start in range(0, n, size):
            yield world.batch(start, min(size, n - start), seed=seed, split="test")[0]

    prepared = {"objects": world.objects, "split": "test", "seed": seed}
    return Given(batches, n, prepared, Broken())


def folder_squares(
    pictures: FolderPictures, trained: Preprocess | None = None, size: int | None = None
) -> Given:
    """Pictures prepared as they were for training, without what training leaves to chance.

    The middle is kept, nothing is mirrored, and all are squares, of `size` pixels where it says so.
    """
    preprocess = trained or Preprocess()
    crop: Crop = "center" if preprocess.crop == "random" else preprocess.crop
    size = size or preprocess.size
    calm = replace(preprocess, size=size, crop=crop, flip=0.0, buckets=None)

    def batches(batch: int) -> Iterator[np.ndarray]:
        rng = np.random.default_rng(0)  # asked for, and never drawn from
        ready = (calm.apply(image, rng) for image, _ in pictures.pairs())
        while group := list(islice(ready, batch)):
            yield np.stack(group)

    return Given(batches, len(pictures), calm.to_dict(), pictures.broken)


def to_levels(images: Tensor) -> Tensor:
    """(B, 3, H, W) in [-1, 1] -> (B, 3, H, W) uint8, as a picture file would keep them."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def to_range(levels: Tensor) -> Tensor:
    """(B, 3, H, W) uint8 -> the same in [-1, 1]."""
    return levels.float() / 127.5 - 1


def _prompt(path: Path) -> str:
    """The prompt that a picture of ours carries, "" for others."""
    try:
        return read_parameters(path).parameters.prompt or ""
    except SuffuseError:
        return ""
