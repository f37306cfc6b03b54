"""How well pictures are varied and edited: held-out scenes, judged by who knows every sprite.

Each scene shows one thing on a plain background. It is turned into its embedding and its noise,
and from these drawn again as it was, drawn with fresh noise, and drawn with the embedding turned
towards words that name another background or another thing, by turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any, Literal

import numpy as np
from PIL import Image

from suffuse.data.captions import plain
from suffuse.data.emoji import COLOURS, SIDE, Background, Scene, World
from suffuse.data.sprites import readable
from suffuse.evaluation.matching import background_name, find
from suffuse.systems.generate import fit
from suffuse.systems.manipulate import (
    HOW,
    Pair,
    System,
    Tick,
    decoded,
    difference,
    inverted,
    turned,
)
from suffuse.systems.manipulation import AMOUNT, ETA, How

Attribute = Literal["background", "object"]
SHOWN = 8  # rows of a sheet


@dataclass(frozen=True)
class Asked:
    """What is done with each scene.

    eta: of the variation;  amounts: of the edit, one after the other
    """

    how: How = HOW
    eta: float = ETA
    amounts: tuple[float, ...] = (AMOUNT,)
    seed: int = 0


@dataclass(frozen=True)
class Edited:
    """Whether an edit changed what it should, and left what it should."""

    changed: bool
    left: bool


@dataclass(frozen=True)
class Trial:
    """One scene.

    again, varied: decibels (PSNR) between the picture and itself drawn again, and its variation
    kept: the variation shows the same thing
    edits: of each amount
    """

    scene: Scene
    wanted: Scene
    attribute: Attribute
    again: float
    varied: float
    kept: bool
    edits: tuple[Edited, ...]


@dataclass(frozen=True)
class EditScore:
    """Shares, 0..1; NaN where nothing was asked.

    changed: that show what was asked for, of all, of backgrounds and of things
    left: that kept what was not asked about
    """

    changed: float
    background: float
    thing: float
    left: float


@dataclass(frozen=True)
class VariationScores:
    """Means over scenes.

    psnr, worst: of pictures drawn again, decibels
    kept: share of the variations that show the same thing, 0..1
    varied: PSNR of variations, decibels: the lower, the more differs
    edits: of each amount
    """

    psnr: float
    worst: float
    kept: float
    varied: float
    edits: tuple[EditScore, ...]
    trials: tuple[Trial, ...] = field(repr=False)


def evaluate_variations(
    system: System,
    world: World,
    n: int = 100,
    asked: Asked = Asked(),
    *,
    batch: int = 1,
    tick: Tick = lambda: None,
    keep: Callable[[int, list[Image.Image]], None] = lambda i, row: None,
) -> VariationScores:
    """Scores on `n` held-out scenes of which `batch` are drawn together.

    tick: called `work` times a batch, at each step
    keep: called with a scene's number and its pictures: itself, again, varied, each edit
    """
    trials: list[Trial] = []
    for start in range(0, n, batch):
        cases = [case(world, i, asked.seed) for i in range(start, min(start + batch, n))]
        rows = _drawn(system, cases, asked, start, tick)
        for (scene, wanted, attribute), row in zip(cases, rows):
            keep(len(trials), row)
            trials.append(_judged(scene, wanted, attribute, row, world))
    return summary(trials)


def work(n: int, asked: Asked, batch: int) -> int:
    """How many steps `n` scenes take, `batch` of them at a time."""
    return -(-n // batch) * asked.how.steps * (3 + len(asked.amounts))


def case(world: World, i: int, seed: int = 0) -> tuple[Scene, Scene, Attribute]:
    """Held-out scene i with one thing, and what an edit is to make of it: even ones change the
    background, odd ones the thing."""
    scene = replace(world, kinds=(1.0, 0.0, 0.0, 0.0)).scene_at(i, seed, "test")
    rng = np.random.default_rng((seed, i, 2))
    attribute: Attribute = "object" if i % 2 else "background"
    return scene, _other(world, scene, attribute, rng), attribute


def _other(world: World, scene: Scene, attribute: Attribute, rng: np.random.Generator) -> Scene:
    (item,), names = scene.placed, list(COLOURS)
    while True:
        if attribute == "background":
            colour = names[int(rng.integers(len(names)))]
            found = replace(scene, background=Background(colour))
        else:
            thing = world.things[int(rng.integers(len(world.things)))]
            found = replace(scene, placed=(replace(item, thing=thing),))
        told = plain(found, "en") != plain(scene, "en")
        if told and readable(found.things[0].look, found.background.top):
            return found


def _drawn(
    system: System,
    cases: Sequence[tuple[Scene, Scene, Attribute]],
    asked: Asked,
    start: int,
    tick: Tick,
) -> Iterator[list[Image.Image]]:
    """Of each scene: itself, again, varied, each edit."""
    size = system.decoder.size
    given = [Image.fromarray(scene.draw()) for scene, _, _ in cases]
    pair = inverted(system, [fit(picture, *size) for picture in given], asked.how, tick)
    seeds = [asked.seed + start + row for row in range(len(cases))]
    columns = [
        given,
        decoded(system, pair, asked.how, tick=tick),
        decoded(system, pair, asked.how, eta=asked.eta, seeds=seeds, tick=tick),
    ]
    words = [[plain(scene, "en") for scene in row[:2]] for row in cases]
    for amount in asked.amounts:
        z = pair.z.clone()
        for row, (before, after) in enumerate(words):
            direction = difference(system, before, after)
            z[row] = turned(pair.z[row : row + 1], direction, amount)[0]
        columns.append(decoded(system, Pair(z, pair.noise), asked.how, tick=tick))
    yield from map(list, zip(*columns))


def _judged(
    scene: Scene, wanted: Scene, attribute: Attribute, row: list[Image.Image], world: World
) -> Trial:
    given, again, varied, *edits = (np.asarray(fit(p.convert("RGB"), SIDE, SIDE)) for p in row)
    return Trial(
        scene,
        wanted,
        attribute,
        _psnr(again, given),
        _psnr(varied, given),
        _shows(varied, scene, world),
        tuple(_edited(edit, wanted, attribute, world) for edit in edits),
    )


def _edited(picture: np.ndarray, wanted: Scene, attribute: Attribute, world: World) -> Edited:
    thing = _shows(picture, wanted, world)
    ground = background_name(picture) == wanted.background.top
    return Edited(ground, thing) if attribute == "background" else Edited(thing, ground)


def _shows(picture: np.ndarray, scene: Scene, world: World) -> bool:
    """Whether the nearest of all sprites is the scene's thing."""
    return [found.thing.index for found in find(picture, world)] == [scene.things[0].index]


def _psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = float(np.square(one.astype(np.float64) - other).mean())
    return float(10 * np.log10(255**2 / max(error, 1e-3)))


def summary(trials: Sequence[Trial]) -> VariationScores:
    """The scores of many trials."""
    amounts = range(len(trials[0].edits))
    return VariationScores(
        psnr=fmean(trial.again for trial in trials),
        worst=min(trial.again for trial in trials),
        kept=fmean(trial.kept for trial in trials),
        varied=fmean(trial.varied for trial in trials),
        edits=tuple(_edit_score(trials, k) for k in amounts),
        trials=tuple(trials),
    )


def _edit_score(trials: Sequence[Trial], k: int) -> EditScore:
    def share(attribute: Attribute | None) -> float:
        asked = [t.edits[k].changed for t in trials if attribute in (None, t.attribute)]
        return fmean(asked) if asked else float("nan")

    left = fmean(trial.edits[k].left for trial in trials)
    return EditScore(share(None), share("background"), share("object"), left)


def told(trial: Trial) -> dict[str, Any]:
    """A trial as JSON has it."""
    return {
        "scene": plain(trial.scene, "en"),
        "asked": plain(trial.wanted, "en"),
        "attribute": trial.attribute,
        "psnr": trial.again,
        "varied_psnr": trial.varied,
        "kept": trial.kept,
        "changed": [edit.changed for edit in trial.edits],
        "left": [edit.left for edit in trial.edits],
    }
