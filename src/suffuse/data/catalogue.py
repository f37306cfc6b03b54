"""What a world holds: its objects with their names, in a fixed order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from suffuse.data.colours import COLOURS, SHAPE_COLOURS
from suffuse.data.language import plural
from suffuse.data.objects import OBJECTS, Row
from suffuse.data.sprites import SHAPES, Look
from suffuse.errors import SuffuseError

_SHAPE_NAMES_KO = {
    "circle": "원",
    "square": "사각형",
    "triangle": "삼각형",
    "star": "별",
    "heart": "하트",
}


@dataclass(frozen=True)
class Thing:
    """An object of a world: its place in the world's list, its names and its look."""

    index: int
    en: str
    en_plural: str
    ko: str
    ko_counter: str
    look: Look

    @property
    def is_shape(self) -> bool:
        return self.look.colour is not None


def _cldr(glyph: str, language: str) -> str:
    from emoji import EMOJI_DATA, config

    config.load_language(language)
    # Older symbols are listed with the selector that asks for their coloured picture.
    entry = EMOJI_DATA.get(glyph + "\ufe0f") or EMOJI_DATA[glyph]
    return str(entry[language]).strip(":").replace("_", " ")


def _emoji(index: int, row: Row) -> Thing:
    glyph, counter, en, ko = row
    name = en or _cldr(glyph, "en")
    return Thing(index, name, plural(name), ko or _cldr(glyph, "ko"), counter, Look(glyph))


def _shape(index: int, shape: str, colour: str) -> Thing:
    name = f"{colour} {shape}"
    korean = f"{COLOURS[colour].ko} {_SHAPE_NAMES_KO[shape]}"
    return Thing(index, name, plural(name), korean, "개", Look(shape, colour))


@lru_cache(maxsize=16)
def things(objects: int, shapes: bool) -> tuple[Thing, ...]:
    """The first `objects` emoji, then (with `shapes`) every shape in every shape colour.

    Raises SuffuseError for a number of objects that there is not.
    """
    if not 1 <= objects <= len(OBJECTS):
        raise SuffuseError(f"a world has 1 to {len(OBJECTS)} emoji objects, not {objects}")
    emoji = [_emoji(i, row) for i, row in enumerate(OBJECTS[:objects])]
    if not shapes:
        return tuple(emoji)
    pairs = [(shape, colour) for shape in SHAPES for colour in SHAPE_COLOURS]
    coloured = [_shape(objects + i, shape, colour) for i, (shape, colour) in enumerate(pairs)]
    return tuple(emoji + coloured)
