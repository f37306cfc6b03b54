"""The feature network that comes with the package: it knows its world and orders what it sees."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate

from suffuse.data.emoji import World
from suffuse.training.autoencoder import to_tensor
from suffuse.training.features import labels
from suffuse.weights.perceptual import BUNDLED, open_features, open_perceptual

WORLD = World()


@pytest.fixture(scope="module")
def held_out():
    pictures, _, scenes = WORLD.batch(0, 48, split="test")
    return to_tensor(pictures), scenes


def test_it_is_small_and_says_what_it_is():
    assert BUNDLED.stat().st_size <= 4e6
    assert "Suffuse's own feature network" in open_perceptual().source


@torch.inference_mode()
def test_it_sees_the_things_and_the_background(held_out):
    """Of the questions it was taught, on scenes that were held out."""
    images, scenes = held_out
    told = labels(scenes, WORLD).bool()
    answered = open_features()(images) > 0
    assert (answered & told).sum() >= 0.7 * told.sum()  # what is there is seen
    assert (answered & ~told).sum() <= 0.2 * told.sum()  # and little that is not


@torch.inference_mode()
def test_the_more_is_lost_the_farther_it_is(held_out):
    images, _ = held_out
    perceptual = open_perceptual()
    distances = [torch.zeros(len(images))]
    for cell in (2, 4, 8):
        coarse = interpolate(avg_pool2d(images, cell), scale_factor=cell, mode="nearest")
        distances.append(perceptual(coarse, images))
    distances.append(perceptual(images.roll(1, 0), images))  # another scene altogether
    apart = torch.stack(distances).diff(dim=0)
    assert (apart > 0).float().mean() >= 0.95
