"""The index of a folder of pictures: what it finds, what it keeps, and what it refuses."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from sight import clip, picture, saved

from suffuse.errors import SuffuseError
from suffuse.systems import search
from suffuse.systems.clip import load_clip
from suffuse.systems.looking import Looked, look
from suffuse.systems.search import PLACE, Index

CLIP = clip()


@pytest.fixture
def folder(tmp_path):
    """Pictures of several modes, one turned by EXIF, one broken, one hidden."""
    root = tmp_path / "pictures"
    (root / "inner").mkdir(parents=True)
    for i in range(3):
        picture(i).save(root / f"{i}.png")
    picture(3).convert("L").save(root / "inner" / "grey.png")
    see_through = picture(4).convert("RGBA")
    see_through.putalpha(Image.linear_gradient("L").resize(see_through.size))
    see_through.save(root / "inner" / "see-through.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    picture(5, (60, 30)).save(root / "turned.jpg", exif=turned)
    (root / "broken.png").write_text("no picture")
    picture(6).save(root / ".hidden.png")
    (root / "notes.txt").write_text("nothing to see")
    return root


def updated(folder, model=CLIP, **options):
    index = Index.open(folder, model, **options)
    return index, index.update(batch=2)


def test_finds_what_brute_force_finds(folder):
    index, update = updated(folder)
    assert (update.new, update.changed, update.deleted) == (6, 0, 0)
    assert update.broken.found == {"broken.png": "not a picture"}
    names = ["0.png", "1.png", "2.png", "inner/grey.png", "inner/see-through.png", "turned.jpg"]
    cosines = CLIP.images([Image.open(folder / name) for name in names])
    question = CLIP.texts(["a red apple"])[0]
    wanted = sorted(zip((cosines @ question).tolist(), names), reverse=True)
    for hits, count in ((index.search(question, 4), 4), (index.search(question, 99), 6)):
        assert [hit.name for hit in hits] == [name for _, name in wanted[:count]]
        assert [hit.score for hit in hits] == pytest.approx(
            [s for s, _ in wanted[:count]], abs=1e-5
        )
    same = index.search(CLIP.images([Image.open(folder / "turned.jpg")])[0], 1)
    assert same[0].name == "turned.jpg" and same[0].score == pytest.approx(1, abs=1e-5)


def test_only_what_changed_is_read_again(folder):
    updated(folder)
    # Of the same size and time as before: whoever reads this one finds no picture.
    about = (folder / "0.png").stat()
    (folder / "0.png").write_bytes(bytes(about.st_size))
    os.utime(folder / "0.png", ns=(about.st_atime_ns, about.st_mtime_ns))
    (folder / "1.png").unlink()
    picture(9, (50, 50)).save(folder / "2.png")
    picture(7).save(folder / "new.png")
    index, update = updated(folder)
    assert (update.new, update.changed, update.deleted) == (1, 1, 1)
    assert set(update.broken.found) == {"broken.png"}
    found = {hit.name: hit.score for hit in index.search(CLIP.images([picture(9, (50, 50))])[0])}
    assert max(found, key=found.get) == "2.png" and "0.png" in found and "1.png" not in found
    # Nothing but the broken one is new, and the folder may move.
    moved = folder.rename(folder.with_name("moved"))
    index, update = updated(moved)
    assert (update.new, update.changed, update.deleted, len(index)) == (0, 0, 0, 6)
    kept = (moved / PLACE).stat().st_mtime_ns  # nothing was written, so nobody need be allowed to
    assert updated(moved)[1].broken.found.keys() == {"broken.png"}
    assert (moved / PLACE).stat().st_mtime_ns == kept
    (moved / "2.png").write_text("broken by now")
    index, update = updated(moved)
    assert (update.changed, len(index)) == (0, 5)
    assert set(update.broken.found) == {"2.png", "broken.png"}
    about = (moved / "broken.png").stat()
    picture(8, (8, 8)).save(moved / "mended.png")
    (moved / "mended.png").replace(moved / "broken.png")
    os.utime(moved / "broken.png", ns=(about.st_atime_ns, about.st_mtime_ns))
    assert (updated(moved)[1].new, len(Index.open(moved, CLIP))) == (1, 6)


def test_what_was_embedded_before_an_interruption_is_kept(folder):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Index.open(folder, CLIP).update(batch=2, progress=stop)
    index, update = updated(folder)
    assert (update.new, len(index)) == (4, 6)
    assert np.allclose(np.linalg.norm(index.vectors, axis=1), 1, atol=1e-5)
    assert [path.name for path in (folder / PLACE).parent.iterdir()] == [PLACE.name]


def test_another_model_is_refused_by_name(folder, tmp_path):
    one, other = (load_clip(saved(tmp_path / f"clip-{i}", i), "cpu") for i in (1, 2))
    updated(folder, one)
    with pytest.raises(SuffuseError) as caught:
        Index.open(folder, other)
    for model in (one, other):
        assert f"{model.info.name} ({model.info.hash()[:10]})" in str(caught.value)
    index, update = updated(folder, other, rebuild=True)
    assert update.new == 6
    assert torch.allclose(
        torch.from_numpy(index.vectors[:1]), other.images([picture(0)]), atol=1e-5
    )
    # The same weights under another name are the same model.
    shutil.copytree(tmp_path / "clip-2", tmp_path / "copy")
    assert len(Index.open(folder, load_clip(tmp_path / "copy", "cpu"))) == 6


def test_an_index_elsewhere_is_of_one_folder(folder, tmp_path):
    kept = tmp_path / "kept.index"
    assert len(updated(folder, path=kept)[0]) == 6
    assert not (folder / PLACE).exists()
    (tmp_path / "other").mkdir()
    picture(0).save(tmp_path / "other" / "a.png")
    with pytest.raises(SuffuseError, match=r"kept.index' is of '.*pictures', not of '.*other'"):
        Index.open(tmp_path / "other", CLIP, kept)
    assert len(updated(tmp_path / "other", path=kept, rebuild=True)[0]) == 1


def test_what_cannot_be_an_index_is_left_alone(folder, tmp_path):
    updated(folder)
    whole = (folder / PLACE).read_bytes()
    for content in (whole[:-9], b"", whole.replace(b"search index 1", b"search index 9")):
        (folder / PLACE).write_bytes(content)
        with pytest.raises(SuffuseError, match="is no search index"):
            Index.open(folder, CLIP)
    photo = tmp_path / "photo.png"
    picture(0).save(photo)
    before = photo.read_bytes()
    with pytest.raises(SuffuseError, match=r"photo.png' is no search index"):
        Index.open(folder, CLIP, photo, rebuild=True)
    assert photo.read_bytes() == before


def test_a_place_that_cannot_be_written_is_refused_before_the_work(folder):
    (folder / PLACE.parent).write_text("in the way")

    def never(done, total):
        raise AssertionError("looked at pictures in vain")

    with pytest.raises(SuffuseError, match=r"cannot keep the index .* name a file elsewhere"):
        Index.open(folder, CLIP).update(progress=never)


def test_empty_folders(tmp_path):
    with pytest.raises(SuffuseError, match=r"there is no folder '.*nowhere'"):
        Index.open(tmp_path / "nowhere", CLIP)
    with pytest.raises(SuffuseError, match="holds no pictures"):
        Index.open(tmp_path, CLIP).update()
    (tmp_path / "a.png").write_text("no")
    index, update = updated(tmp_path)
    assert list(update.broken.found) == ["a.png"] and index.search(CLIP.texts(["a"])[0]) == []


def test_an_index_stopped_between_rows_and_names_opens_again(folder, monkeypatch):
    class Stopped(Looked):
        @property
        def which(self):
            raise KeyboardInterrupt

    def stopping(*asked):
        yield from (Stopped(*found) for found in look(*asked))

    index = Index.open(folder, CLIP)
    monkeypatch.setattr(search, "look", stopping)
    with pytest.raises(KeyboardInterrupt):
        index.update(batch=2)
    monkeypatch.undo()
    again, update = updated(folder)
    assert update.new == len(again) == len(again.vectors) == 6
