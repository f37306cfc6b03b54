"""The picture of README's "By meaning", drawn with the bundled models.

    python docs/unclip_figure.py [--output docs/images/unclip.png]

A blend from one picture to another, variations of a third, and a fourth changed by words.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from suffuse.data.emoji import Background, Placed, Scene, World
from suffuse.systems.manipulate import blend, draw, vary
from suffuse.systems.manipulation import How, Manipulation, evenly
from suffuse.systems.unclip_load import load_unclip

FRAMES, GAP = 9, 4
WORLD = World()


def scene(name: str, colour: str) -> Image.Image:
    thing = next(thing for thing in WORLD.things if thing.en == name)
    return Image.fromarray(Scene("single", (Placed(thing, 32, 32, 64),), Background(colour)).draw())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("docs/images/unclip.png"))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guidance", type=float, default=How().guidance)
    asked = parser.parse_args()
    system, how = load_unclip(), How(steps=asked.steps, guidance=asked.guidance)
    pig = scene("pig", "green")
    words = Manipulation(
        "edit",
        scene("hamburger", "pink"),
        before="a hamburger on a pink background",
        after="a robot on a blue background",
        shares=evenly(FRAMES, 0.8),
        how=how,
    )
    rows = [
        list(blend(system, scene("strawberry", "yellow"), scene("bus", "blue"), FRAMES, how=how)),
        [pig, *vary(system, pig, FRAMES - 1, seed=1, how=how)],
        list(draw(system, words)),
    ]
    side = rows[0][0].width
    sheet = np.full((len(rows) * (side + GAP) - GAP, FRAMES * (side + GAP) - GAP, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            y, x = i * (side + GAP), j * (side + GAP)
            sheet[y : y + side, x : x + side] = np.asarray(picture.convert("RGB"))
    Image.fromarray(sheet).save(asked.output)


if __name__ == "__main__":
    main()
