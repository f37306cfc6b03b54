"""Where the pictures of a training run come from.

A stream gives the batch of a step, and that batch depends on the seed and the step alone. So any
number of worker processes may prepare batches in any order, and a run that was stopped goes on
exactly where it was with nothing but the number of its step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from suffuse.data.captions import LANGUAGES
from suffuse.data.emoji import SPLITS, World
from suffuse.errors import SuffuseError


class Examples(NamedTuple):
    """Pictures with their captions.

    pictures: (B, H, W, 3) uint8
    captions: B sentences; "" where a picture has none
    """

    pictures: np.ndarray
    captions: list[str]


class Stream(Protocol):
    """What a stage takes its pictures from."""

    def batch(self, step: int, size: int, seed: int, rows: slice | None = None) -> Examples:
        """The `size` examples of `step`; of these only `rows`, the share of one process."""


@runtime_checkable
class Telling(Protocol):
    """A stream that learns things on the way: in a worker process it tells, in ours it hears.

    `suffuse.data.loader.batches` carries what is told along with the batches.
    """

    def tell(self) -> dict[str, Any]:
        """What is new since it was last asked; small, and made of plain values."""

    def hear(self, told: dict[str, Any]) -> None:
        """Takes over what the same stream told in another process."""


@dataclass
class Broken:
    """Pictures that could not be read, by name, with the reason; each was replaced by another."""

    found: dict[str, str] = field(default_factory=dict)
    _untold: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, why: str) -> None:
        if name not in self.found:
            self.found[name] = self._untold[name] = why

    def tell(self) -> dict[str, str]:
        told, self._untold = self._untold, {}
        return told

    def hear(self, told: dict[str, str]) -> None:
        self.found.update(told)

    def notice(self, shown: int = 3) -> str | None:
        """One line for people, or None where nothing is broken."""
        if not self.found:
            return None
        named = [f"{name} ({why})" for name, why in list(self.found.items())[:shown]]
        more = f" and {len(self.found) - shown} more" if len(self.found) > shown else ""
        noun = "picture" if len(self.found) == 1 else "pictures"
        return f"skipped {len(self.found)} broken {noun}: {', '.join(named)}{more}"


@dataclass(frozen=True)
class EmojiStream:
    """Emoji scenes, drawn when they are asked for; none comes twice.

    language: of the captions, "en", "ko" or "both" (each with even chance)
    """

    world: World
    language: str = "en"
    split: str = "train"

    def __post_init__(self) -> None:
        if self.language not in (*LANGUAGES, "both"):
            raise SuffuseError(f"captions are in en, ko or both, not in {self.language!r}")
        if self.split not in SPLITS:
            raise SuffuseError(f"unknown split {self.split!r}: the splits are {', '.join(SPLITS)}")

    @property
    def identity(self) -> str:
        """Two streams of one identity give the same pictures."""
        return repr(self)

    def batch(self, step: int, size: int, seed: int, rows: slice | None = None) -> Examples:
        wanted = range(step * size, (step + 1) * size)[rows or slice(None)]
        if wanted.step == 1:
            drawn = self.world.batch(wanted.start, len(wanted), self.language, seed, self.split)
            return Examples(drawn[0], drawn[1])
        one = [self.world.batch(i, 1, self.language, seed, self.split) for i in wanted]
        return Examples(np.concatenate([d[0] for d in one]), [d[1][0] for d in one])
