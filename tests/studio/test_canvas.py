"""Masks as other programs mean them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from suffuse.studio import canvas
from suffuse.studio.problems import Problem
from suffuse.studio.settings import Limits


def test_what_is_half_transparent_or_more_is_a_hole():
    picture = Image.new("RGBA", (4, 1), "red")
    for x, alpha in enumerate((0, 127, 128, 255)):
        picture.putpixel((x, 0), (255, 0, 0, alpha))
    mask = canvas.holes(picture)
    assert [mask.getpixel((x, 0)) for x in range(4)] == [255, 255, 0, 0]


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_a_picture_without_holes_has_no_mask(mode):
    assert canvas.holes(Image.new(mode, (3, 3), "white")) is None


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.data())
def test_a_hole_takes_the_colours_around_it_and_nothing_else_changes(width, height, data):
    seen = np.full((height, width, 3), (200, 40, 90), np.uint8)
    hole = np.array(
        data.draw(st.lists(st.booleans(), min_size=width * height, max_size=width * height))
    )
    hole = hole.reshape(height, width)
    inside = seen.copy()
    inside[hole] = (0, 255, 0)  # what must not show
    found = np.asarray(canvas.bleed(Image.fromarray(inside), Image.fromarray(hole * np.uint8(255))))
    assert found.shape == seen.shape
    assert (found[~hole] == seen[~hole]).all()
    if not hole.all():
        assert np.abs(found[hole].astype(int) - seen[hole]).max(initial=0) <= 3


def test_the_nearest_colour_counts_most():
    picture = Image.new("RGB", (64, 64), "blue")
    picture.paste("red", (0, 0, 32, 64))
    mask = Image.new("L", picture.size)
    mask.paste(255, (8, 8, 56, 56))
    filled = canvas.bleed(picture, mask)
    left, right = filled.getpixel((9, 32)), filled.getpixel((54, 32))
    assert left[0] > left[2] and right[2] > right[0]


def test_stretched_or_cropped_about_the_middle():
    picture = Image.new("RGB", (30, 10), "white")
    picture.paste("black", (10, 0, 20, 10))
    assert canvas.fitted(picture, picture.size) is picture
    assert canvas.fitted(picture, (10, 10), crop=True).getcolors() == [(100, (0, 0, 0))]
    assert len(canvas.fitted(picture, (10, 10)).getcolors()) > 1


def test_sizes_are_judged_before_anything_is_resized():
    canvas.check_size((2048, 2048), Limits())
    with pytest.raises(Problem, match="height 2049 is too much: at most 2048 pixels"):
        canvas.check_size((2048, 2049), Limits())
