"""Does a model draw what it is asked? Held-out prompts of the emoji world, and their score.

Half of the prompts ask for one thing on a background, half for two things in a relation; none of
the combinations is ever drawn for training. A single is right when the asked thing is the nearest
of all the world's sprites; a pair when the two nearest are the asked ones and stand as asked; a
background when the nearest named colour to the border's is the asked one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Protocol

import numpy as np
from PIL import Image

from suffuse.data import captions, layout
from suffuse.data.emoji import COLOURS, SIDE, Background, Placed, Scene, World, held_out_background
from suffuse.errors import SuffuseError
from suffuse.evaluation.matching import Found, background_name, find
from suffuse.systems.clip import load_clip
from suffuse.systems.latent import LatentDiffusion
from suffuse.systems.request import Request

_ENOUGH_DRAWS = 1000  # for each pair asked for, before a world is said to have too few


class System(Protocol):
    """What is measured: anything that generates pictures from a prompt."""

    def generate(
        self,
        prompt: str,
        *,
        seed: int,
        steps: int | None,
        guidance: float | None,
        sampler: str | None,
    ) -> list[Image.Image]: ...


class BestOf:
    """A system that draws `best_of` pictures of each prompt; its CLIP keeps one.

    clip: what that is opened from; None = the bundled one
    """

    def __init__(
        self, system: LatentDiffusion, best_of: int, clip: str | None, device: str = "auto"
    ) -> None:
        self._system, self._best_of = system, best_of
        self._judge = load_clip(clip, device=device)

    def generate(
        self,
        prompt: str,
        *,
        seed: int,
        steps: int | None,
        guidance: float | None,
        sampler: str | None,
    ) -> list[Image.Image]:
        request = Request(
            prompt,
            seed=seed,
            steps=steps,
            guidance=guidance,
            sampler=sampler,
            best_of=self._best_of,
        )
        return self._system.generate(request, judge=self._judge, together=self._best_of)


@dataclass(frozen=True)
class Prompt:
    """A sentence that asks for a held-out combination, and one scene that would be right."""

    text: str
    scene: Scene


@dataclass(frozen=True)
class Verdict:
    """One picture judged: what was found in it, and what of that is right."""

    prompt: Prompt
    found: tuple[Found, ...]
    background: str
    things_right: bool
    relation_right: bool
    background_right: bool


@dataclass(frozen=True)
class PromptScores:
    """Shares of right answers, 0..1; NaN where there was nothing to judge.

    object_accuracy: singles whose thing is the nearest of all sprites
    emoji_accuracy, shape_accuracy: the same for emoji and for plain coloured shapes alone
    pair_accuracy: pairs with both things right and in the asked relation
    pair_objects_accuracy: pairs with both things right, wherever they stand
    background_accuracy: backgrounds, over all prompts
    explained: mean share of the picture's departure from its background that the things found
        account for: 1 for perfect drawings, low for blots that merely are nearest to something
    verdicts: every picture's, in the order of the prompts
    """

    object_accuracy: float
    emoji_accuracy: float
    shape_accuracy: float
    pair_accuracy: float
    pair_objects_accuracy: float
    background_accuracy: float
    explained: float
    verdicts: tuple[Verdict, ...] = field(repr=False)


def held_out_prompts(world: World, n: int = 200, language: str = "en") -> list[Prompt]:
    """`n` different prompts, half singles and half pairs, the same on every machine.

    Raises SuffuseError where the world has not that many held-out combinations.
    """
    singles = _singles(world, n - n // 2)
    pairs = _pairs(world, n // 2)
    return [Prompt(captions.plain(scene, language), scene) for scene in singles + pairs]


def score(
    images: Sequence[np.ndarray | Image.Image], prompts: Sequence[Prompt], world: World
) -> PromptScores:
    """Judges one picture for each prompt: (H, W, 3) uint8 or PIL, resized to 128 x 128."""
    if len(images) != len(prompts):
        raise SuffuseError(f"{len(images)} pictures cannot answer {len(prompts)} prompts")
    return summary([judge(image, prompt, world) for image, prompt in zip(images, prompts)])


def judge(image: np.ndarray | Image.Image, prompt: Prompt, world: World) -> Verdict:
    """Finds as many things as were asked for, without being told which, then compares."""
    pixels = _pixels(image)
    scene = prompt.scene
    found = tuple(find(pixels, world, scene.count))
    colour = background_name(pixels)
    things_right = {item.thing.index for item in found} == {t.index for t in scene.things}
    return Verdict(
        prompt,
        found,
        colour,
        things_right,
        things_right and _stands(found, scene),
        colour == scene.background.top,
    )


def summary(verdicts: Sequence[Verdict]) -> PromptScores:
    """The scores of many verdicts."""
    singles = [v for v in verdicts if v.prompt.scene.kind == "single"]
    pairs = [v for v in verdicts if v.prompt.scene.kind == "pair"]
    return PromptScores(
        object_accuracy=_mean(v.things_right for v in singles),
        emoji_accuracy=_mean(
            v.things_right for v in singles if not v.prompt.scene.things[0].is_shape
        ),
        shape_accuracy=_mean(v.things_right for v in singles if v.prompt.scene.things[0].is_shape),
        pair_accuracy=_mean(v.relation_right for v in pairs),
        pair_objects_accuracy=_mean(v.things_right for v in pairs),
        background_accuracy=_mean(v.background_right for v in verdicts),
        explained=_mean(sum(item.explained for item in v.found) for v in verdicts),
        verdicts=tuple(verdicts),
    )


def evaluate(
    system: System,
    world: World,
    n: int = 200,
    language: str = "en",
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    sampler: str | None = None,
    progress: Callable[[int, Verdict], None] | None = None,
    keep: Callable[[int, Prompt, Image.Image], None] | None = None,
) -> PromptScores:
    """Generates a picture for each held-out prompt and scores it; prompt i uses seed + i.

    steps, guidance, sampler: None means the model's own
    progress: called with the number of the prompt and its verdict
    keep: called with every picture, to save or show it
    """
    verdicts = []
    for i, prompt in enumerate(held_out_prompts(world, n, language)):
        image = system.generate(
            prompt.text, seed=seed + i, steps=steps, guidance=guidance, sampler=sampler
        )[0]
        if keep is not None:
            keep(i, prompt, image)
        verdicts.append(judge(image, prompt, world))
        if progress is not None:
            progress(i, verdicts[-1])
    return summary(verdicts)


def _singles(world: World, n: int) -> list[Scene]:
    """Held-out singles, shapes in the share that the world draws as far as the emoji go round.

    A small world with fewer than `n` combinations is asked for some of them again, big or small.
    """
    normal = _singles_of_size(world, "normal")
    emoji = [scene for scene in normal if not scene.things[0].is_shape]
    shapes = [scene for scene in normal if scene.things[0].is_shape]
    few = min(len(shapes), max(round(n * world.shape_share), n - len(emoji)))
    chosen = emoji[: n - few] + shapes[:few]
    for size in ("big", "small"):
        chosen += _singles_of_size(world, size)[: n - len(chosen)]
    if len(chosen) < n:
        raise SuffuseError(
            f"a world of {len(world.things)} objects has {len(normal)} held-out singles, "
            f"too few for {n} prompts"
        )
    return chosen


def _singles_of_size(world: World, size: str) -> list[Scene]:
    """Every held-out single of one size, in a shuffled order that never changes."""
    rng = np.random.default_rng(0)
    scenes = [
        Scene("single", (Placed(thing, *square),), Background(colour), size=size)
        for thing in world.things
        for colour in COLOURS
        if held_out_background(thing, colour)
        for square in layout.single(rng, size, world.wander)
    ]
    scenes = [scene for scene in scenes if world.allowed(scene, "test")]
    return [scenes[i] for i in rng.permutation(len(scenes))]


def _pairs(world: World, n: int) -> list[Scene]:
    rng = np.random.default_rng(1)
    only_pairs = replace(world, kinds=(0.0, 0.0, 1.0, 0.0))
    scenes: dict[tuple[int, int, str | None], Scene] = {}
    for _ in range(_ENOUGH_DRAWS * n):
        if len(scenes) == n:
            return list(scenes.values())
        scene = only_pairs.scene(rng, "test")
        first, second = scene.things
        scenes.setdefault((first.index, second.index, scene.relation), scene)
    if len(scenes) == n:
        return list(scenes.values())
    raise SuffuseError(f"a world of {len(world.things)} objects has not {n} held-out pairs")


def _stands(found: tuple[Found, ...], scene: Scene) -> bool:
    """Whether the first thing asked for stands where it should; singles stand anywhere."""
    if scene.relation is None:
        return True
    centres = {item.thing.index: item.centre for item in found}
    (x0, y0), (x1, y1) = (centres[thing.index] for thing in scene.things)
    across, down = x1 - x0, y1 - y0
    if abs(across) > abs(down):
        return scene.relation == ("left" if across > 0 else "right")
    return scene.relation == ("above" if down > 0 else "below")


def _pixels(image: np.ndarray | Image.Image) -> np.ndarray:
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture = picture.convert("RGB")
    if picture.size != (SIDE, SIDE):
        picture = picture.resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(picture)


def _mean(values: Iterable[float]) -> float:
    listed = [float(value) for value in values]
    return fmean(listed) if listed else float("nan")
