"""One scene: what stands where on which background; how it is drawn and described."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from suffuse.data import captions
from suffuse.data.catalogue import Thing
from suffuse.data.colours import COLOURS
from suffuse.data.sprites import sprite

SIDE = 128  # pixels; scenes are square
CELL = 8  # pixels; sprites stand on this lattice, the autoencoder's factor

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Placed:
    """A thing in a square of `size` pixels whose top-left corner is (x, y)."""

    thing: Thing
    x: int
    y: int
    size: int

    @property
    def box(self) -> Box:
        """(x0, y0, x1, y1) of its ink in pixels, the end excluded."""
        x0, y0, x1, y1 = sprite(self.thing.look, self.size).box
        return self.x + x0, self.y + y0, self.x + x1, self.y + y1


@dataclass(frozen=True)
class Background:
    """A plain named colour, or two: the first at the top fading to the second at the bottom."""

    top: str
    bottom: str | None = None
    shift: tuple[int, int, int] = (0, 0, 0)  # a few levels, so that colours are not memorised

    @property
    def names(self) -> tuple[str, ...]:
        return (self.top,) if self.bottom is None else (self.top, self.bottom)


@dataclass(frozen=True)
class Scene:
    """A picture that is fully known.

    kind: "single", "many" (two to four of the same), "pair" or "row" (three different)
    placed: the things, in the order in which the caption names them
    background: its named colours
    relation: for a pair, where the first stands: "left", "right", "above" or "below" the second
    size: for a single thing, "small", "normal" or "big"
    """

    kind: str
    placed: tuple[Placed, ...]
    background: Background
    relation: str | None = None
    size: str | None = None

    @property
    def things(self) -> tuple[Thing, ...]:
        return tuple(item.thing for item in self.placed)

    @property
    def boxes(self) -> tuple[Box, ...]:
        """(x0, y0, x1, y1) in pixels of every thing, the end excluded."""
        return tuple(item.box for item in self.placed)

    @property
    def count(self) -> int:
        return len(self.placed)

    def masks(self) -> np.ndarray:
        """Where each thing is: (count, 128, 128) uint8, its opacity as 0..255."""
        masks = np.zeros((self.count, SIDE, SIDE), np.uint8)
        for mask, item in zip(masks, self.placed):
            alpha = sprite(item.thing.look, item.size).alpha[..., 0]
            mask[item.y : item.y + item.size, item.x : item.x + item.size] = np.rint(alpha * 255)
        return masks

    def draw(self) -> np.ndarray:
        """The picture: (128, 128, 3) uint8."""
        picture = self._backdrop()
        for item in self.placed:
            drawn = sprite(item.thing.look, item.size)
            window = picture[item.y : item.y + item.size, item.x : item.x + item.size]
            window *= 1 - drawn.alpha
            window += drawn.premultiplied
        return np.rint(picture).astype(np.uint8)

    def caption(self, language: str, rng: np.random.Generator) -> str:
        """A description in "en" or "ko", by one of several sentence patterns."""
        return captions.describe(self, language, rng)

    def _backdrop(self) -> np.ndarray:
        picture = np.empty((SIDE, SIDE, 3), np.float32)
        shift = np.array(self.background.shift, np.float32)
        ends = [np.clip(COLOURS[name].rgb + shift, 0, 255) for name in self.background.names]
        if len(ends) == 1:
            picture[:] = ends[0]
        else:
            depth = np.linspace(0, 1, SIDE, dtype=np.float32)[:, None]
            picture[:] = (ends[0] + (ends[1] - ends[0]) * depth)[:, None]  # (128, 1, 3)
        return picture
