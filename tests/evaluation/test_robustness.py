"""Corruptions: stronger ones change more, and chance is in the numbers alone."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from suffuse.data.emoji import World
from suffuse.evaluation.robustness import CORRUPTIONS, SEVERITIES, corrupt

SCENE = Image.fromarray(World(objects=8).scene_at(3).draw())


def distance(image, other=SCENE):
    return np.abs(np.asarray(image, float) - np.asarray(other, float)).mean()


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_every_severity_changes_more(kind):
    found = [corrupt(SCENE, kind, severity, 0, 0) for severity in SEVERITIES]
    assert {image.size for image in found} == {SCENE.size}
    assert {image.mode for image in found} == {"RGB"}
    changes = [distance(image) for image in found]
    assert changes[-1] > changes[0] > 0.3
    if kind != "compression":  # whose colours jump from one quality to the next
        assert changes == sorted(changes)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_chance_is_in_the_numbers(kind):
    image = corrupt(SCENE, kind, 3, 7, 2)
    assert image.tobytes() == corrupt(SCENE, kind, 3, 7, 2).tobytes()
    by_chance = kind in ("noise", "texture")
    for numbers in ((7, 1), (8, 2)):
        other = corrupt(SCENE, kind, 3, *numbers)
        assert (image.tobytes() != other.tobytes()) == by_chance


def test_a_sketch_has_no_colours_and_keeps_the_edges():
    drawn = np.asarray(corrupt(SCENE, "sketch", 5, 0, 0))
    assert (drawn[..., 0] == drawn[..., 1]).all() and (drawn[..., 1] == drawn[..., 2]).all()
    assert drawn.min() < 128  # lines
    assert (drawn > 240).mean() > 0.5  # on paper


def test_a_blur_is_as_wide_for_a_large_picture():
    large = SCENE.resize((512, 512), Image.Resampling.LANCZOS)
    one = corrupt(SCENE, "blur", 3, 0, 0)
    other = corrupt(large, "blur", 3, 0, 0).resize(SCENE.size, Image.Resampling.BOX)
    assert distance(other, one) < 0.2 * distance(one)
