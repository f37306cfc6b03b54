"""Streams whose captions are class names: digits, the emoji world, folders of folders."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from suffuse.data.emoji import World
from suffuse.data.folder import FolderStream
from suffuse.data.listing import list_files, list_pictures
from suffuse.data.preprocess import Preprocess
from suffuse.data.stream import Examples
from suffuse.data.table import Table
from suffuse.errors import SuffuseError

DIGITS = tuple("0123456789")
HELD_OUT_DIGITS = 300


@dataclass(frozen=True)
class DigitsStream:
    """The handwritten digits that come with scikit-learn: 1,797 of 8 x 8 pixels in 17 greys.

    Every epoch of the 1,497 for training has an order of its own; the other 300 keep theirs.
    """

    split: str = "train"
    preprocess: Preprocess = field(default_factory=lambda: Preprocess(size=8))

    def batch(self, step: int, size: int, seed: int, rows: slice | None = None) -> Examples:
        pictures, labels = digits(self.split)
        wanted = range(step * size, (step + 1) * size)[rows or slice(None)]
        held = self.split == "test"
        chosen = [i % len(labels) if held else _place(i, len(labels), seed) for i in wanted]
        grey = np.repeat(pictures[chosen][..., None], 3, axis=-1)  # (B, 8, 8, 3)
        return Examples(_sized(grey, self.preprocess, seed), [DIGITS[k] for k in labels[chosen]])


@lru_cache(maxsize=2)
def digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (N, 8, 8) uint8, ink white on black, and labels (N,). Raises SuffuseError."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise SuffuseError(
            "the digits come with scikit-learn: pip install 'suffuse[train]'"
        ) from None
    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    rows = order[:HELD_OUT_DIGITS] if split == "test" else order[HELD_OUT_DIGITS:]
    pictures = (found.images[rows] * (255 / 16)).round().astype(np.uint8)
    return pictures, found.target[rows].astype(np.int64)


def _place(i: int, count: int, seed: int) -> int:
    """Which picture is number `i` of the endless sequence of epochs."""
    return int(_order(i // count, count, seed)[i % count])


@lru_cache(maxsize=2)
def _order(epoch: int, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(count)


@dataclass(frozen=True)
class EmojiClasses:
    """Single things of the emoji world on their backgrounds; a class is the thing's English name.

    The test split has backgrounds that training never shows behind a thing.
    """

    world: World
    preprocess: Preprocess
    split: str = "train"

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(thing.en for thing in self.world.things)

    def batch(self, step: int, size: int, seed: int, rows: slice | None = None) -> Examples:
        world = replace(self.world, kinds=(1.0, 0.0, 0.0, 0.0))
        wanted = range(step * size, (step + 1) * size)[rows or slice(None)]
        drawn = [world.batch(i, 1, seed=seed, split=self.split) for i in wanted]
        pictures = np.concatenate([pictures for pictures, _, _ in drawn])
        names = [scenes[0].things[0].en for _, _, scenes in drawn]
        return Examples(_sized(pictures, self.preprocess, seed), names)


def _sized(pictures: np.ndarray, preprocess: Preprocess, seed: int) -> np.ndarray:
    """(B, H, W, 3) at the preprocessing's size; one that draws lots is for stored pictures."""
    if pictures.shape[1:3] == (preprocess.size, preprocess.size):
        return pictures
    rng = np.random.default_rng(seed)
    return np.stack([preprocess.apply(Image.fromarray(p), rng) for p in pictures])


def class_folders(where: str, preprocess: Preprocess) -> tuple[FolderStream, tuple[str, ...]]:
    """The pictures of a folder whose own folders are classes, ImageNet's layout, and their names.

    Raises SuffuseError for pictures that lie in none of them.
    """
    root = Path(where)
    if not root.is_dir():
        raise SuffuseError(f"there is no folder '{where}' with a folder for each class")
    listing = list_pictures(root, list_files(root))
    loose = [name for name in listing.names if "/" not in name]
    if loose or not listing.names:
        what = f"'{loose[0]}' lies in none" if loose else "there is no picture"
        raise SuffuseError(f"'{where}' needs a folder for each class: {what}; or use --no-labels")
    listing.captions = [[name.split("/")[0]] for name in listing.names]
    classes = tuple(sorted({caption for (caption,) in listing.captions}))
    return FolderStream(Table.of_folder(listing), preprocess), classes
