"""The named colours of backgrounds and shapes."""

from __future__ import annotations

from typing import NamedTuple


class Colour(NamedTuple):
    """A colour with its names: `ko` before a noun ("파란 배경"), `ko_noun` alone ("파란색")."""

    en: str
    ko: str
    ko_noun: str
    rgb: tuple[int, int, int]  # 0..255


# Far enough apart that the nearest name of a slightly wrong colour is still the right one: the
# smallest distance between two of them is 88 levels.
COLOURS: dict[str, Colour] = {
    colour.en: colour
    for colour in (
        Colour("red", "빨간", "빨간색", (222, 46, 46)),
        Colour("orange", "주황색", "주황색", (248, 138, 30)),
        Colour("yellow", "노란", "노란색", (252, 218, 66)),
        Colour("green", "초록색", "초록색", (52, 160, 72)),
        Colour("turquoise", "청록색", "청록색", (56, 196, 186)),
        Colour("sky blue", "하늘색", "하늘색", (150, 208, 250)),
        Colour("blue", "파란", "파란색", (40, 92, 214)),
        Colour("purple", "보라색", "보라색", (132, 62, 178)),
        Colour("pink", "분홍색", "분홍색", (250, 158, 196)),
        Colour("brown", "갈색", "갈색", (122, 76, 44)),
        Colour("gray", "회색", "회색", (146, 146, 150)),
        Colour("white", "하얀", "하얀색", (250, 250, 250)),
        Colour("black", "검은", "검은색", (24, 24, 28)),
    )
}

# Shapes come in fewer colours, so that no two shapes are alike at 40 pixels.
SHAPE_COLOURS = ("red", "yellow", "green", "blue", "purple", "pink", "black", "white")


def nearest(rgb: tuple[float, float, float]) -> str:
    """The name of the colour nearest to `rgb` (0..255), by plain distance."""

    def distance(colour: Colour) -> float:
        return sum((a - float(b)) ** 2 for a, b in zip(colour.rgb, rgb))

    return min(COLOURS.values(), key=distance).en
