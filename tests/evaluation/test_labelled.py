"""Pictures with classes, from folders and from the emoji world."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sight import clip, picture

from suffuse.data.emoji import World, held_out_background
from suffuse.errors import SuffuseError
from suffuse.evaluation.labelled import UNKNOWN, emoji_singles, open_classes, see, world_of

CLIP = clip()


@pytest.fixture
def folder(tmp_path):
    for name, count in (("big_dog", 4), ("cat", 5)):
        (tmp_path / name).mkdir()
        for i in range(count):
            picture(10 * count + i).save(tmp_path / name / f"{i}.png")
    (tmp_path / "cat" / "broken.png").write_text("no")
    return tmp_path


def test_folders_are_classes(folder):
    given = open_classes(folder)
    assert given.names == {"en": ("big dog", "cat")} and len(given) == 10
    seen = see(CLIP, given, batch=3)
    assert seen.labels.tolist() == [0] * 4 + [1] * 5
    assert list(given.broken.found) == ["cat/broken.png"]
    assert torch.allclose(seen.vectors[4], CLIP.images([picture(50)])[0], atol=1e-5)
    assert open_classes(folder, ("개", "고양이"), "ko").names == {"ko": ("개", "고양이")}
    assert open_classes(folder, limit=2).labels.tolist() == [0, 0, 1, 1]


def test_halves_share_nothing_and_have_every_class(folder):
    given = open_classes(folder)
    one, other = given.halves(seed=3)
    titles = [{part.title(i) for i in range(len(part))} for part in (one, other)]
    assert titles[0] | titles[1] == {given.title(i) for i in range(len(given))}
    assert not titles[0] & titles[1]
    for part in (one, other):
        assert all(
            part.title(i).startswith(given.names["en"][label].split()[0])
            for i, label in enumerate(part.labels)
        )
        assert set(part.labels.tolist()) == {0, 1}
    (folder / "fox").mkdir()
    picture(0).save(folder / "fox" / "0.png")
    with pytest.raises(SuffuseError, match="the class 'fox' has one picture"):
        open_classes(folder).halves()


def test_loose_pictures_need_names(folder, tmp_path):
    loose = tmp_path / "cat"
    assert set(open_classes(loose, ("a", "b", "c")).labels.tolist()) == {UNKNOWN}
    for root, names, said in (
        (loose, (), "needs a folder for each class, and '0.png' lies in none"),
        (folder, ("a", "b", "c"), "has 2 folders of classes, not 3"),
        (folder / "none", (), "there is no folder"),
    ):
        with pytest.raises(SuffuseError, match=said):
            open_classes(root, names)
    for file in loose.iterdir():
        file.unlink()
    with pytest.raises(SuffuseError, match="holds no pictures"):
        open_classes(loose)
    (loose / "broken.png").write_text("no")
    with pytest.raises(SuffuseError, match="no picture that can be read: skipped 1 broken picture"):
        see(CLIP, open_classes(loose, ("a", "b")))


def test_scenes_show_one_thing_on_a_background_of_their_split():
    world = world_of(8)
    test, train = emoji_singles(world, 12), emoji_singles(world, 12, split="train")
    assert test.names["ko"] == tuple(thing.ko for thing in world.things)
    alone = World(objects=8, kinds=(1.0, 0.0, 0.0, 0.0))
    for split, given in (("test", test), ("train", train)):
        for i, label in enumerate(given.labels):
            scene = alone.scene_at(i, 0, split)
            assert np.array_equal(np.asarray(given.picture(i)), scene.draw())
            assert world.things[label] == scene.things[0]
            held = held_out_background(scene.things[0], scene.background.top)
            assert held == (split == "test") or scene.background.bottom is not None
    with pytest.raises(SuffuseError, match="1 to 260 emoji objects, not 0"):
        world_of(0)
