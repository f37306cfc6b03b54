"""The emoji world: what it draws is what it says, and the test split stays out of training."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from suffuse.data import sprites
from suffuse.data.captions import in_reading_order
from suffuse.data.emoji import (
    CELL,
    COLOURS,
    OBJECTS,
    SIDE,
    World,
    held_out_background,
    held_out_pair,
    nearest,
    sprite,
)
from suffuse.data.layout import sizes
from suffuse.errors import SuffuseError

WORLD = World(objects=64)
GOLDEN = [
    "an emoji of a white circle, gray fading to green",
    "two buses on a pink background",
    "a small pineapple on a gray background fading to brown",
]


def scenes(count: int, split: str = "train", world: World = WORLD) -> list:
    return [world.scene_at(i, seed=3, split=split) for i in range(count)]


def test_every_object_has_a_picture_and_names_of_its_own() -> None:
    things = World(objects=len(OBJECTS)).things
    assert len({thing.en for thing in things}) == len(things)
    assert len({thing.ko for thing in things}) == len(things)
    for thing in things:
        drawn = sprite(thing.look, 40)
        x0, y0, x1, y1 = drawn.box
        assert max(x1 - x0, y1 - y0) == 40 - 2 * int(40 * sprites.MARGIN), thing.en
        assert drawn.alpha.mean() > 0.08, thing.en


def test_no_two_objects_of_the_small_world_look_alike() -> None:
    def flat(look: sprites.Look) -> np.ndarray:
        drawn = sprite(look, 40)
        return np.concatenate([drawn.premultiplied, drawn.alpha * 255], axis=2).ravel()

    looks = {thing.en: flat(thing.look) for thing in WORLD.things if not thing.is_shape}
    for (one, a), (other, b) in combinations(looks.items(), 2):
        assert np.sqrt(np.mean((a - b) ** 2)) > 40, f"{one} and {other}"


def test_scenes_are_what_they_say() -> None:
    seen = set()
    for scene in scenes(200):
        seen.add(scene.kind)
        assert (
            scene.count
            in {"single": (1,), "many": (2, 3, 4), "pair": (2,), "row": (3,)}[scene.kind]
        )
        assert len(set(scene.things)) == (1 if scene.kind == "many" else scene.count)
        for item, (x0, y0, x1, y1) in zip(scene.placed, scene.boxes):
            assert item.x % CELL == item.y % CELL == 0
            assert item.size in sizes()
            assert 0 <= x0 < x1 <= SIDE and 0 <= y0 < y1 <= SIDE
        for a, b in combinations(scene.boxes, 2):
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], "overlap"
        if scene.kind == "pair":
            first, second = scene.boxes
            assert {
                "left": first[2] <= second[0],
                "right": second[2] <= first[0],
                "above": first[3] <= second[1],
                "below": second[3] <= first[1],
            }[scene.relation]
    assert seen == {"single", "many", "pair", "row"}


def test_things_wander_by_strides_when_they_may() -> None:
    def places(world: World) -> set[tuple[int, int]]:
        drawn = [world.scene_at(i) for i in range(150)]
        return {(s.placed[0].x, s.placed[0].y) for s in drawn if s.size == "normal"}

    assert places(WORLD) == {(32, 32)}
    steps = (0, 32, 64)
    assert places(World(objects=64, wander=1)) == {(x, y) for x in steps for y in steps}


def test_masks_and_boxes_fit_the_picture() -> None:
    for scene in scenes(20):
        picture, masks = scene.draw(), scene.masks()
        assert picture.shape == (SIDE, SIDE, 3) and picture.dtype == np.uint8
        for mask, (x0, y0, x1, y1) in zip(masks, scene.boxes):
            rows, columns = np.nonzero(mask > 16)
            assert x0 <= columns.min() and columns.max() < x1
            assert y0 <= rows.min() and rows.max() < y1
        bare = masks.max(0) == 0
        if scene.background.bottom is None:
            assert len(np.unique(picture[bare], axis=0)) == 1
            assert nearest(tuple(picture[bare][0])) == scene.background.top
        else:
            assert nearest(tuple(picture[0, 0])) == scene.background.top


def test_the_same_seed_gives_the_same_scene() -> None:
    pictures, captions, drawn = WORLD.batch(5, 4, "both", seed=9)
    again, captions_again, _ = World(objects=64).batch(6, 2, "both", seed=9)
    assert captions[1:3] == captions_again
    assert np.array_equal(pictures[1:3], again)
    assert drawn[0] == WORLD.scene_at(5, seed=9)
    assert len({scene.caption("en", np.random.default_rng(0)) for scene in scenes(50)}) > 40


def test_the_sequence_never_changes_under_a_trained_model() -> None:
    rng = np.random.default_rng(0)
    assert [scene.caption("en", rng) for scene in scenes(3)] == GOLDEN


def test_held_out_combinations_are_never_trained_on() -> None:
    for scene in scenes(400):
        for thing in scene.things:
            assert not any(held_out_background(thing, name) for name in scene.background.names)
        if scene.kind == "pair":
            assert not held_out_pair(scene.things[0], scene.relation, scene.things[1])
        if scene.kind == "row":
            for one, other in combinations(scene.things, 2):
                assert not held_out_pair(one, "left", other)
    for scene in scenes(60, "test"):
        if scene.kind == "pair":
            assert held_out_pair(scene.things[0], scene.relation, scene.things[1])
        else:
            assert held_out_background(scene.things[0], scene.background.top)


def test_about_one_in_twelve_combinations_is_held_out_from_either_side() -> None:
    pairs = list(combinations(WORLD.things, 2))
    share = np.mean([held_out_pair(one, "left", other) for one, other in pairs])
    assert 0.06 < share < 0.1
    grounds = [held_out_background(t, name) for t in WORLD.things for name in COLOURS]
    assert 0.06 < np.mean(grounds) < 0.1
    for one, other in pairs[:500]:
        assert held_out_pair(one, "left", other) == held_out_pair(other, "right", one)
        assert held_out_pair(one, "above", other) == held_out_pair(other, "below", one)


def test_things_stand_out_from_their_background() -> None:
    apple = WORLD.things[0].look
    assert not sprites.readable(apple, "red")
    assert sprites.readable(apple, "blue")
    assert not sprites.readable(sprites.Look("circle", "green"), "green")


def test_a_missing_font_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sprites, "_USUAL_PLACES", ())
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SuffuseError, match="apt-get install fonts-noto-color-emoji"):
        sprites.font_path.__wrapped__()


@pytest.mark.parametrize("objects", [0, len(OBJECTS) + 1])
def test_a_world_of_a_wrong_size_is_refused(objects: int) -> None:
    with pytest.raises(SuffuseError, match=f"1 to {len(OBJECTS)}"):
        _ = World(objects=objects).things


def test_an_unknown_split_and_a_lonely_world_are_refused() -> None:
    with pytest.raises(SuffuseError, match="train, test"):
        WORLD.scene_at(0, split="validation")
    lonely = World(objects=1, shapes=False, kinds=(0, 0, 1, 0))
    with pytest.raises(SuffuseError, match="no pairs"):
        lonely.scene_at(0)


def test_a_pair_is_told_in_reading_order() -> None:
    pairs = [scene for scene in scenes(200) if scene.kind == "pair"]
    assert {scene.relation for scene in pairs} == {"left", "right", "above", "below"}
    for scene in pairs:
        told = in_reading_order(scene)
        assert told.relation in ("left", "above") and in_reading_order(told) == told
        assert (told.draw() == scene.draw()).all()
        assert set(told.things) == set(scene.things)
        (x, y), (other_x, other_y) = ((item.x, item.y) for item in told.placed)
        assert x < other_x if told.relation == "left" else y < other_y
