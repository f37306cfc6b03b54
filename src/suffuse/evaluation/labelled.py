"""Pictures whose class is known: scenes of one thing, or a folder with a folder for each class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from suffuse.data.decode import open_file
from suffuse.data.emoji import World
from suffuse.data.listing import is_picture, list_files
from suffuse.data.stream import Broken
from suffuse.errors import SuffuseError
from suffuse.systems.clip import Clip
from suffuse.systems.looking import BATCH, look_at_all

UNKNOWN = -1  # the class of a picture
Prepare = Callable[[Image.Image, int], Image.Image]  # of a picture and its number


@dataclass(frozen=True, eq=False)
class Labelled:
    """Pictures with their classes.

    picture: number i of them, RGB; called by threads, may raise BrokenPicture
    labels: (N,) int64, UNKNOWN where the class is not known
    names: of the classes, by language
    title: what picture i is called in messages
    """

    picture: Callable[[int], Image.Image]
    labels: np.ndarray
    names: Mapping[str, tuple[str, ...]]
    title: Callable[[int], str]
    broken: Broken = field(default_factory=Broken)

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, rows: np.ndarray) -> Labelled:
        """Only these of them; what is broken is noted in one place."""
        picture, title = self.picture, self.title
        return replace(
            self,
            picture=lambda i: picture(int(rows[i])),
            labels=self.labels[rows],
            title=lambda i: title(int(rows[i])),
        )

    def changed(self, change: Prepare) -> Labelled:
        """The same after something was done to the pictures."""
        picture = self.picture
        return replace(self, picture=lambda i: change(picture(i), i))

    def halves(self, seed: int = 0) -> tuple[Labelled, Labelled]:
        """Two halves of every class, drawn by `seed`. Raises SuffuseError for a class of one."""
        rng, first = np.random.default_rng(seed), []
        for label in np.unique(self.labels):
            rows = rng.permutation(np.flatnonzero(self.labels == label))
            if len(rows) < 2:
                (name, *_) = (names[label] for names in self.names.values())
                raise SuffuseError(f"the class {name!r} has one picture: a half needs one too")
            first.append(rows[: len(rows) // 2])
        rows = np.sort(np.concatenate(first))
        return self.part(rows), self.part(np.setdiff1d(np.arange(len(self)), rows))


@dataclass(frozen=True)
class Seen:
    """vectors: (N, D), unit length;  labels: (N,);  which: numbers of the pictures, (N,)"""

    vectors: Tensor
    labels: np.ndarray
    which: np.ndarray


def see(
    clip: Clip,
    given: Labelled,
    batch: int = BATCH,
    progress: Callable[[int], None] = lambda done: None,
) -> Seen:
    """Embeds all of them; broken ones are noted and left out. Raises SuffuseError if all are."""
    which, vectors, broken = look_at_all(clip, len(given), given.picture, batch, progress)
    for i, why in broken.items():
        given.broken.add(given.title(i), why)
    if not which:
        raise SuffuseError(f"there is no picture that can be read: {given.broken.notice()}")
    rows = np.array(which)
    return Seen(vectors, given.labels[rows], rows)


def world_of(objects: int | None) -> World:
    """The emoji world with so many objects. Raises SuffuseError."""
    world = World() if objects is None else World(objects=objects)
    _ = world.things  # refuses a number that there is not
    return world


def emoji_singles(world: World, n: int, seed: int = 0, split: str = "test") -> Labelled:
    """`n` scenes of one thing; those of the test split stand on backgrounds that training never
    shows behind them."""
    alone = replace(world, kinds=(1.0, 0.0, 0.0, 0.0))
    scenes = [alone.scene_at(i, seed, split) for i in range(n)]
    labels = np.array([scene.things[0].index for scene in scenes], np.int64)
    names = {
        "en": tuple(thing.en for thing in world.things),
        "ko": tuple(thing.ko for thing in world.things),
    }
    return Labelled(
        lambda i: Image.fromarray(scenes[i].draw()), labels, names, lambda i: f"scene {i}"
    )


def open_classes(
    root: Path, names: Sequence[str] = (), language: str = "en", limit: int | None = None
) -> Labelled:
    """A folder whose own folders are classes, or loose pictures whose class is not known.

    names: of the classes, in the order of the folders; else what these are called. Loose pictures
        need them.
    limit: at most so many pictures of a class
    Raises SuffuseError.
    """
    if not root.is_dir():
        raise SuffuseError(f"there is no folder '{root}'")
    files = [name for name in list_files(root) if is_picture(name)]
    if not files:
        raise SuffuseError(f"'{root}' holds no pictures")
    loose = [name for name in files if "/" not in name]
    folders = sorted({name.split("/")[0] for name in files if "/" in name})
    if loose and (folders or not names):
        raise SuffuseError(
            f"'{root}' needs a folder for each class, and '{loose[0]}' lies in none; pictures "
            "without folders need the names of classes (--name)"
        )
    if folders and names and len(names) != len(folders):
        raise SuffuseError(f"'{root}' has {len(folders)} folders of classes, not {len(names)}")
    known = {folder: i for i, folder in enumerate(folders)}
    chosen, labels = _limited(
        files, [known.get(name.split("/")[0], UNKNOWN) for name in files], limit
    )
    called = tuple(names) or tuple(" ".join(name.replace("_", " ").split()) for name in folders)
    return Labelled(
        lambda i: open_file(root / chosen[i]),
        np.array(labels, np.int64),
        {language: called},
        lambda i: chosen[i],
    )


def _limited(files: list[str], labels: list[int], limit: int | None) -> tuple[list[str], list[int]]:
    """The first `limit` of each class."""
    counts: dict[int, int] = {}
    rows = []
    for i, label in enumerate(labels):
        counts[label] = counts.get(label, 0) + 1
        if limit is None or counts[label] <= limit:
            rows.append(i)
    return [files[i] for i in rows], [labels[i] for i in rows]
