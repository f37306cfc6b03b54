"""The emoji world: pictures that are fully known, made on the fly, with captions.

A scene is drawn in well under a millisecond, so training sees new ones for ever and nothing is
stored. Sprites come in few sizes and stand in few places, on a lattice of 8 pixels, the factor of
the autoencoder: a caption then says nearly all there is to know of a latent, and small networks
learn the world quickly.

Some combinations are never drawn for training, by a rule that needs no list: a hash of (object,
background colour) and of (object, object, relation). The test split draws from these alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from itertools import combinations

import numpy as np

from suffuse.data import layout
from suffuse.data.catalogue import Thing, things
from suffuse.data.colours import COLOURS, nearest
from suffuse.data.objects import OBJECTS
from suffuse.data.scene import CELL, SIDE, Background, Placed, Scene
from suffuse.data.sprites import readable, sprite
from suffuse.errors import SuffuseError

__all__ = [
    "CELL",
    "COLOURS",
    "OBJECTS",
    "SIDE",
    "SPLITS",
    "Background",
    "Placed",
    "Scene",
    "Thing",
    "World",
    "held_out_background",
    "held_out_pair",
    "nearest",
    "sprite",
]

SPLITS = ("train", "test")
_HELD_OUT_PERCENT = 8
_PATIENCE = 10_000  # draws before a world is said to be too small for what is asked


@lru_cache(maxsize=1 << 20)
def _held_out(*names: str) -> bool:
    digest = blake2b("|".join(names).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % 100 < _HELD_OUT_PERCENT


def held_out_background(thing: Thing, colour: str) -> bool:
    """Whether training never shows `thing` on a background with `colour` in it."""
    return _held_out("background", thing.en, colour)


def held_out_pair(one: Thing, relation: str, other: Thing) -> bool:
    """Whether training never shows `one` left of, right of, above or below `other`.

    "A left of B" and "B right of A" are the same picture and get the same answer.
    """
    if relation in ("right", "below"):
        one, other = other, one
        relation = {"right": "left", "below": "above"}[relation]
    return _held_out(relation, one.en, other.en)


@dataclass(frozen=True)
class World:
    """Which scenes there are, and how often each kind is drawn.

    objects: how many emoji, from the front of `OBJECTS`
    shapes: whether plain coloured shapes are objects too
    shape_share: how many of the drawn things are shapes, 0..1
    gradients: how many of the backgrounds fade from one colour to another, 0..1
    kinds: the weights of single, many, pair and row
    wander: how many strides of 32 pixels a thing may stand off its usual place
    """

    objects: int = 64
    shapes: bool = True
    shape_share: float = 0.3
    gradients: float = 0.15
    kinds: tuple[float, float, float, float] = (0.5, 0.1, 0.35, 0.05)
    wander: int = 0

    @property
    def things(self) -> tuple[Thing, ...]:
        """Every object, emoji first, then shapes; a thing's index is its place here."""
        return things(self.objects, self.shapes)

    def scene(self, rng: np.random.Generator, split: str = "train") -> Scene:
        """Draws a scene. The test split has single, many and pair scenes on plain backgrounds.

        Raises SuffuseError for an unknown split or a world too small for it.
        """
        _number(split)
        for _ in range(_PATIENCE):
            scene = self._draw(rng, split)
            if self.allowed(scene, split):
                return scene
        raise SuffuseError(f"a world of {len(self.things)} objects is too small for {split} scenes")

    def scene_at(self, index: int, seed: int = 0, split: str = "train") -> Scene:
        """Scene number `index` of the endless sequence that `seed` starts."""
        return self.scene(np.random.default_rng((seed, index, _number(split))), split)

    def batch(
        self, start: int, count: int, language: str = "en", seed: int = 0, split: str = "train"
    ) -> tuple[np.ndarray, list[str], list[Scene]]:
        """Scenes `start` to `start + count` of a sequence: pictures (count, 128, 128, 3) uint8,
        captions in "en", "ko" or "both" (each with even chance), and the scenes themselves."""
        pictures = np.empty((count, SIDE, SIDE, 3), np.uint8)
        captions, scenes = [], []
        for i in range(count):
            rng = np.random.default_rng((seed, start + i, _number(split)))
            scene = self.scene(rng, split)
            spoken = ("en", "ko")[int(rng.integers(2))] if language == "both" else language
            captions.append(scene.caption(spoken, rng))
            pictures[i] = scene.draw()
            scenes.append(scene)
        return pictures, captions, scenes

    def rival(self, scene: Scene, rng: np.random.Generator, split: str = "train") -> Scene:
        """A scene that differs in a word: in its things, or in how they stand, or in what colour.

        Whoever learns to tell pictures by their captions learns little from strangers: the hard
        ones are those that share all but one word (2210.01936). Raises SuffuseError as `scene`
        does.
        """
        for _ in range(_PATIENCE):
            change = int(rng.integers(3))
            if change == 0:
                other = replace(scene, background=self._background(rng, split))
            elif change == 1:
                other = replace(scene, placed=self._replaced(scene, rng))
            else:
                other = self._rearranged(scene, rng)
            if _worded(other) != _worded(scene) and self.allowed(other, split):
                return other
        raise SuffuseError(f"{scene.things[0].en} has no rival in a world so small")

    def _replaced(self, scene: Scene, rng: np.random.Generator) -> tuple[Placed, ...]:
        """One of the things is another one."""
        old = scene.things[int(rng.integers(scene.count))]
        new = self._choose(rng, 1)[0]
        if new in scene.things:
            return scene.placed
        return tuple(
            replace(item, thing=new) if item.thing == old else item for item in scene.placed
        )

    def _rearranged(self, scene: Scene, rng: np.random.Generator) -> Scene:
        things, relation, size = list(scene.things), scene.relation, scene.size
        if scene.kind == "single":
            size = layout.SIZES[int(rng.integers(len(layout.SIZES)))]
            squares = layout.single(rng, size, self.wander)
        elif scene.kind == "many":
            things = things[:1] * int(rng.integers(2, 5))
            squares = layout.many(rng, len(things), self.wander)
        elif scene.kind == "pair":
            relation = layout.RELATIONS[int(rng.integers(4))]
            squares = layout.pair(rng, relation, self.wander)
        else:
            things = [things[i] for i in rng.permutation(len(things))]
            squares = layout.row(rng, self.wander)
        placed = tuple(Placed(thing, *square) for thing, square in zip(things, squares))
        return Scene(scene.kind, placed, scene.background, relation, size)

    def allowed(self, scene: Scene, split: str) -> bool:
        """Whether the scene is readable and belongs to the split."""
        colours = [(thing, name) for thing in scene.things for name in scene.background.names]
        if not all(readable(thing.look, name) for thing, name in colours):
            return False
        pairs = _pairs(scene)
        if split == "train":
            return not any(held_out_background(*pair) for pair in colours) and not any(
                held_out_pair(*pair) for pair in pairs
            )
        if scene.kind == "pair":
            return held_out_pair(*pairs[0])
        return held_out_background(*colours[0])

    def _draw(self, rng: np.random.Generator, split: str) -> Scene:
        weights = self.kinds if split == "train" else (*self.kinds[:3], 0.0)
        kind = layout.KINDS[_weighted(rng, weights)]
        relation = size = None
        if kind == "single":
            chosen = self._choose(rng, 1)
            size = layout.SIZES[_weighted(rng, layout.SIZE_WEIGHTS)]
            squares = layout.single(rng, size, self.wander)
        elif kind == "many":
            count = int(rng.integers(2, 5))
            chosen = self._choose(rng, 1) * count
            squares = layout.many(rng, count, self.wander)
        elif kind == "pair":
            chosen = self._choose(rng, 2)
            relation = layout.RELATIONS[int(rng.integers(4))]
            squares = layout.pair(rng, relation, self.wander)
        else:
            chosen = self._choose(rng, 3)
            squares = layout.row(rng, self.wander)
        placed = tuple(Placed(thing, *square) for thing, square in zip(chosen, squares))
        return Scene(kind, placed, self._background(rng, split), relation, size)

    def _choose(self, rng: np.random.Generator, count: int) -> list[Thing]:
        """`count` different things."""
        chosen: list[Thing] = []
        shapes = len(self.things) - self.objects
        while len(chosen) < count:
            if shapes and rng.random() < self.shape_share:
                thing = self.things[self.objects + int(rng.integers(shapes))]
            else:
                thing = self.things[int(rng.integers(self.objects))]
            if thing not in chosen:
                chosen.append(thing)
            elif len(self.things) < count:
                raise SuffuseError(f"a world of {len(self.things)} objects has no pairs and rows")
        return chosen

    def _background(self, rng: np.random.Generator, split: str) -> Background:
        names = list(COLOURS)
        top = names[int(rng.integers(len(names)))]
        bottom = None
        if split == "train" and rng.random() < self.gradients:
            others = [name for name in names if name != top]
            bottom = others[int(rng.integers(len(others)))]
        red, green, blue = (int(level) for level in rng.integers(-3, 4, size=3))
        return Background(top, bottom, (red, green, blue))


def _worded(scene: Scene) -> tuple[object, ...]:
    """All that captions can say of it; a tint or a step aside is none of that."""
    return scene.kind, scene.things, scene.relation, scene.size, scene.background.names


def _number(split: str) -> int:
    if split not in SPLITS:
        raise SuffuseError(f"unknown split {split!r}: the splits are {', '.join(SPLITS)}")
    return SPLITS.index(split)


def _weighted(rng: np.random.Generator, weights: tuple[float, ...]) -> int:
    """An index drawn in proportion to `weights`; `Generator.choice` is ten times slower."""
    left = rng.random() * sum(weights)
    for index, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return index
    return max(index for index, weight in enumerate(weights) if weight > 0)


def _pairs(scene: Scene) -> list[tuple[Thing, str, Thing]]:
    if scene.kind == "pair":
        return [(scene.things[0], scene.relation or "left", scene.things[1])]
    if scene.kind == "row":
        return [(one, "left", other) for one, other in combinations(scene.things, 2)]
    return []
