"""Aspect-ratio buckets."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suffuse.data.buckets import Buckets
from suffuse.errors import SuffuseError


def test_the_buckets_of_stable_diffusion_at_512() -> None:
    assert Buckets(64, 2.0).shapes(512) == (
        *((384, 640), (448, 576), (512, 512), (576, 448), (640, 384)),
    )
    assert (256, 1024) in Buckets(64, 4.0).shapes(512)
    assert Buckets(64, 1.0).shapes(512) == ((512, 512),)


@given(st.sampled_from([8, 32, 64]), st.integers(1, 16), st.floats(1, 5))
def test_shapes_fit_the_area_and_come_in_both_directions(step, count, ratio) -> None:
    size = step * count
    shapes = Buckets(step, ratio).shapes(size)
    assert (size, size) in shapes
    for width, height in shapes:
        assert width % step == height % step == 0
        assert size * size * 0.4 < width * height <= size * size
        assert max(width, height) <= min(width, height) * ratio
        assert (height, width) in shapes


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_the_nearest_is_chosen(width, height) -> None:
    buckets = Buckets(64, 2.0)
    chosen = buckets.choose(width, height, 512)

    def apart(shape: tuple[int, int]) -> float:
        return abs(math.log(shape[0] / shape[1] * height / width))

    assert apart(chosen) == pytest.approx(min(map(apart, buckets.shapes(512))))


@pytest.mark.parametrize("options", [{"step": 0}, {"ratio": 0.5}, {"ratio": math.inf}])
def test_what_makes_no_sense_is_refused(options) -> None:
    with pytest.raises(SuffuseError):
        Buckets(**options)
