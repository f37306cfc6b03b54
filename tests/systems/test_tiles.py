"""Tiles: what they cover, and that a picture does not show them."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from suffuse.diffusion.schedule import Level
from suffuse.errors import SuffuseError
from suffuse.systems.tiles import Group, Tiling, jointly

LEVEL = Level(torch.tensor(0.8), torch.tensor(0.6), torch.tensor(3))


@settings(deadline=None)
@given(
    height=st.integers(2, 60), width=st.integers(2, 60), side=st.integers(2, 16),
    overlap=st.integers(0, 15), step=st.sampled_from([1, 2, 4]),
)  # fmt: skip
def test_tiles_cover_the_picture(
    height: int, width: int, side: int, overlap: int, step: int
) -> None:
    height, width, side = height * step, width * step, side * step
    overlap = min(overlap * step, side - step)
    boxes = Tiling(side, overlap).boxes(height, width, step)
    seen = torch.zeros(height, width)
    for box in boxes:
        assert (box.height, box.width) == (min(side, height), min(side, width))
        assert box.top % step == box.left % step == 0
        assert box.top + box.height <= height and box.left + box.width <= width
        box.cut(seen).add_(1)
    assert seen.min() >= 1
    if overlap:  # tiles that are neighbours share pixels
        tops, lefts = sorted({b.top for b in boxes}), sorted({b.left for b in boxes})
        assert all(b - a < side for at in (tops, lefts) for a, b in pairwise(at))
    if max(height, width) <= side:
        assert len(boxes) == 1


def pointwise(x: Tensor, level: Level, group: Group) -> Tensor:
    """What sees no neighbours cannot tell a tile from the whole."""
    return torch.cat([x.tanh() * level.alpha, x.square()], dim=1)


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_a_pointwise_answer_is_the_same_tiled_and_whole(at_once: int) -> None:
    x = torch.randn(2, 3, 20, 28, generator=torch.manual_seed(0))
    sizes: list[int] = []

    def answer(part: Tensor, level: Level, group: Group) -> Tensor:
        assert len(part) == len(group)
        for tile, (row, box) in zip(part, group):
            assert torch.equal(tile, box.cut(x[row]))
        sizes.append(len(part))
        return pointwise(part, level, group)

    boxes = Tiling(8, 3).boxes(20, 28, 4)
    got = jointly(answer, boxes, at_once)(x, LEVEL)
    assert torch.allclose(got, pointwise(x, LEVEL, []), atol=1e-6)
    assert max(sizes) <= at_once and sum(sizes) == 2 * len(boxes)


def test_answers_that_disagree_are_blended_and_show_no_edge() -> None:
    """A tile answers with its number: from one to the next there is no jump."""
    boxes = Tiling(16, 12).boxes(16, 64, 1)

    def answer(part: Tensor, level: Level, group: Group) -> Tensor:
        numbers = torch.tensor([float(boxes.index(box)) for _, box in group])
        return numbers.view(-1, 1, 1, 1).expand(part.shape)

    got = jointly(answer, boxes, 4)(torch.zeros(1, 3, 16, 64), LEVEL)[0, 0, 8]
    steps = got.diff()
    assert got[0] == 0 and got[-1] == pytest.approx(len(boxes) - 1, abs=1e-4)
    assert steps.min() > -1e-5 and steps.max() < 0.45  # of the 1 between two neighbours


def test_one_tile_is_the_whole_untouched() -> None:
    x = torch.randn(3, 3, 8, 12, generator=torch.manual_seed(1))
    boxes = Tiling(12, 3).boxes(8, 12, 4)
    assert torch.equal(jointly(pointwise, boxes, 1)(x, LEVEL), pointwise(x, LEVEL, []))


@pytest.mark.parametrize(
    ("side", "overlap", "at_once", "message"),
    [(8, 8, 1, "tiles of 8 pixels overlap by 0 to 7, not 8"), (8, 2, 0, "at least 1 tile")],
)
def test_refused(side: int, overlap: int, at_once: int, message: str) -> None:
    with pytest.raises(SuffuseError, match=message):
        Tiling(side, overlap, at_once)
