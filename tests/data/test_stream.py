"""The emoji stream, and broken pictures as they are told."""

from __future__ import annotations

import numpy as np
import pytest

from suffuse.data.emoji import World
from suffuse.data.stream import Broken, EmojiStream
from suffuse.errors import SuffuseError

WORLD = World(objects=6)


def test_a_step_is_a_part_of_the_endless_sequence() -> None:
    stream = EmojiStream(WORLD, "both")
    pictures, captions, _ = WORLD.batch(12, 4, "both", seed=5)
    batch = stream.batch(3, 4, 5)
    np.testing.assert_array_equal(batch.pictures, pictures)
    assert batch.captions == captions


@pytest.mark.parametrize("rows", [slice(0, 2), slice(2, 4), slice(1, None, 2), slice(4, None)])
def test_a_process_draws_its_own_rows_alone(rows) -> None:
    if rows == slice(4, None):
        assert EmojiStream(WORLD).batch(1, 4, 0, rows).captions == []
        return
    whole = EmojiStream(WORLD).batch(1, 4, 0)
    part = EmojiStream(WORLD).batch(1, 4, 0, rows)
    np.testing.assert_array_equal(part.pictures, whole.pictures[rows])
    assert part.captions == whole.captions[rows]


def test_what_it_does_not_know_is_refused() -> None:
    with pytest.raises(SuffuseError, match="en, ko or both, not in 'fr'"):
        EmojiStream(WORLD, "fr")
    with pytest.raises(SuffuseError, match="unknown split 'all'"):
        EmojiStream(WORLD, split="all")


def test_broken_pictures_are_told_once_and_named() -> None:
    there, here = Broken(), Broken()
    assert here.notice() is None
    there.add("a.png", "truncated")
    here.hear(there.tell())
    assert there.tell() == {}
    for name in "bcde":
        there.add(f"{name}.png", "not a picture")
    there.add("a.png", "truncated")
    here.hear(there.tell())
    assert here.found == there.found
    assert here.notice(2) == (
        "skipped 5 broken pictures: a.png (truncated), b.png (not a picture) and 3 more"
    )
