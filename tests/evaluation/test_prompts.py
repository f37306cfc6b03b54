"""The matcher finds what real scenes show, also blurred and noisy, and is not fooled."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from suffuse.data.emoji import COLOURS, World, held_out_background, held_out_pair
from suffuse.errors import SuffuseError
from suffuse.evaluation.matching import background_name, find
from suffuse.evaluation.prompts import Prompt, evaluate, held_out_prompts, score

WORLD = World(objects=24)
PROMPTS = held_out_prompts(WORLD, 40)


def drawn(prompts: list[Prompt]) -> list[np.ndarray]:
    return [prompt.scene.draw() for prompt in prompts]


def spoiled(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blurred and noisy, about 24 dB from the original: what a small autoencoder gives back."""
    blurred = gaussian_filter(image.astype(np.float32), (1, 1, 0))
    return np.clip(blurred + rng.normal(0, 14, image.shape), 0, 255).astype(np.uint8)


def test_prompts_are_held_out_different_and_always_the_same() -> None:
    assert held_out_prompts(World(objects=24), 40) == PROMPTS
    assert len({prompt.text for prompt in PROMPTS}) == 40
    assert [prompt.scene.kind for prompt in PROMPTS] == ["single"] * 20 + ["pair"] * 20
    for prompt in PROMPTS:
        first, *rest = prompt.scene.things
        if rest:
            assert held_out_pair(first, prompt.scene.relation, rest[0])
        else:
            assert held_out_background(first, prompt.scene.background.top)
    korean = held_out_prompts(WORLD, 40, "ko")
    assert [prompt.scene for prompt in korean] == [prompt.scene for prompt in PROMPTS]


def test_real_scenes_are_right() -> None:
    scores = score(drawn(PROMPTS), PROMPTS, WORLD)
    assert scores.object_accuracy >= 0.97
    assert scores.pair_accuracy >= 0.97
    assert scores.background_accuracy == 1
    assert scores.explained > 0.9


def test_spoiled_scenes_are_right() -> None:
    rng = np.random.default_rng(0)
    scores = score([spoiled(image, rng) for image in drawn(PROMPTS)], PROMPTS, WORLD)
    assert scores.object_accuracy >= 0.93
    assert scores.pair_accuracy >= 0.93
    assert scores.background_accuracy >= 0.97


def test_pictures_of_something_else_are_wrong() -> None:
    images = drawn(PROMPTS)
    turned = images[7:20] + images[:7] + images[27:] + images[20:27]
    scores = score(turned, PROMPTS, WORLD)
    assert scores.object_accuracy <= 0.15
    assert scores.pair_accuracy <= 0.1
    assert scores.background_accuracy <= 0.4


def test_the_relation_counts() -> None:
    pairs = PROMPTS[20:26]
    images = [image[::-1, ::-1] for image in drawn(pairs)]  # half a turn: every relation is wrong
    upright = [np.ascontiguousarray(image) for image in images]
    scores = score(upright, pairs, WORLD)
    assert scores.pair_accuracy == 0


def test_an_empty_picture_shows_nothing() -> None:
    blank = np.full((128, 128, 3), COLOURS["green"].rgb, np.uint8)
    assert find(blank, WORLD, 2) == []
    assert background_name(blank) == "green"


def test_what_is_found_stands_where_it_was_put() -> None:
    for prompt in PROMPTS[:5] + PROMPTS[20:25]:
        found = find(prompt.scene.draw(), WORLD, prompt.scene.count)
        places = {item.thing.en: (item.x, item.y, item.size) for item in found}
        for item in prompt.scene.placed:
            assert np.abs(np.subtract(places[item.thing.en], (item.x, item.y, item.size))).max() < 8


def test_a_picture_of_another_size_or_number_is_refused_or_resized() -> None:
    with pytest.raises(SuffuseError, match="uint8"):
        find(np.zeros((64, 64, 3), np.uint8), WORLD)
    with pytest.raises(SuffuseError, match="1 pictures"):
        score(drawn(PROMPTS[:1]), PROMPTS, WORLD)
    large = Image.fromarray(PROMPTS[0].scene.draw()).resize((256, 256))
    assert score([large], PROMPTS[:1], WORLD).object_accuracy == 1
    with pytest.raises(SuffuseError, match="too few for 500"):
        held_out_prompts(WORLD, 1000)


@dataclass
class Illustrator:
    """A system that knows the world: it draws the scene that a prompt describes."""

    seeds: list[int] = field(default_factory=list)

    def generate(
        self,
        prompt: str,
        *,
        seed: int,
        steps: int | None,
        guidance: float | None,
        sampler: str | None,
    ) -> list[Image.Image]:
        self.seeds.append(seed)
        scenes = {known.text: known.scene for known in PROMPTS}
        return [Image.fromarray(scenes[prompt].draw())]


def test_evaluating_a_system() -> None:
    illustrator, kept, seen = Illustrator(), [], []
    with pytest.raises(KeyError):
        evaluate(illustrator, World(objects=60), 4)
    illustrator.seeds.clear()
    scores = evaluate(
        illustrator,
        WORLD,
        40,
        seed=100,
        progress=lambda i, verdict: seen.append(verdict.things_right),
        keep=lambda i, prompt, image: kept.append(image.size),
    )
    assert illustrator.seeds == list(range(100, 140))
    assert scores.object_accuracy >= 0.97 and len(scores.verdicts) == 40
    assert seen == [verdict.things_right for verdict in scores.verdicts]
    assert kept == [(128, 128)] * 40
    assert math.isnan(score([], [], WORLD).pair_accuracy)
