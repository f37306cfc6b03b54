"""Parquet, tars, saved data sets: whatever the pictures come in, they are the same."""

from __future__ import annotations

import os
import subprocess
import sys

import datasets
import numpy as np
import pytest
from pictures import encoded, folder, tars

from suffuse.data.preprocess import Preprocess
from suffuse.data.sources import Source, open_stream
from suffuse.errors import SuffuseError

PLAIN = Preprocess(16)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def rows(count: int = 5, images: bool = True) -> datasets.Dataset:
    data = {
        "id": list(range(1, count + 1)),
        "image": [{"bytes": encoded(n, 16, 16), "path": None} for n in range(1, count + 1)],
        "caption": [f"number {n}" for n in range(1, count + 1)],
    }
    made = datasets.Dataset.from_dict(data)
    return made.cast_column("image", datasets.Image()) if images else made


def contents(table) -> list[tuple[int, list[str]]]:
    found = [table.row(i) for i in range(len(table))]
    return sorted((row.picture().getpixel((0, 0))[0], row.captions) for row in found)


WANT = [(n, [f"number {n}"]) for n in range(1, 6)]


def test_a_plain_folder(tmp_path) -> None:
    assert contents(Source(str(folder(tmp_path / "data", 5))).table()) == WANT


@pytest.mark.parametrize("images", [True, False])
def test_parquet(images, tmp_path) -> None:
    rows(images=images).to_parquet(tmp_path / "some.parquet")
    table = Source(str(tmp_path / "some.parquet")).table()
    assert contents(table) == WANT
    assert table.row(0).name == "1"
    assert contents(Source(str(tmp_path)).table()) == WANT  # the folder that it is in


def test_splits_by_the_names_of_files(tmp_path) -> None:
    place = tmp_path / "data"
    place.mkdir()
    rows(3).to_parquet(place / "train-00000-of-00001.parquet")
    rows(2).to_parquet(place / "test-00000-of-00001.parquet")
    assert len(Source(str(place)).table()) == 3
    assert len(Source(str(place), split="test").table()) == 2
    with pytest.raises(SuffuseError, match=r"has no \.parquet files named after 'dev'"):
        Source(str(place), split="dev").table()


def test_webdataset_tars(tmp_path, monkeypatch) -> None:
    place = tars(tmp_path / "data", [[1, 2, 3], [4, 5]])
    # A file of the working directory with the name of one in the tar is not taken for it.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "001.png").write_bytes(b"another")
    table = Source(str(place)).table()
    assert contents(table) == WANT
    assert contents(Source(str(place / "shard-1.tar")).table()) == WANT[3:]
    assert table.row(0).name == "001"


def test_what_save_to_disk_wrote(tmp_path) -> None:
    rows().save_to_disk(tmp_path / "one")
    assert contents(Source(str(tmp_path / "one")).table()) == WANT
    datasets.DatasetDict(train=rows(3), test=rows(2)).save_to_disk(tmp_path / "two")
    assert len(Source(str(tmp_path / "two"), split="test").table()) == 2
    with pytest.raises(SuffuseError, match="has no split 'dev': it has train, test"):
        Source(str(tmp_path / "two"), split="dev").table()


def test_the_same_order_from_whatever_they_come_in(tmp_path) -> None:
    rows().to_parquet(tmp_path / "some.parquet")
    one = open_stream(str(tmp_path / "some.parquet"), PLAIN)
    other = open_stream(str(folder(tmp_path / "data", 5)), PLAIN)
    for step in range(3):
        a, b = one.batch(step, 4, 7), other.batch(step, 4, 7)
        np.testing.assert_array_equal(a.pictures, b.pictures)
        assert a.captions == b.captions
    assert one.identity != other.identity


def test_columns_can_be_named(tmp_path) -> None:
    path = tmp_path / "some.parquet"
    names = {"image": "left", "caption": "words"}
    rows().rename_columns(names).to_parquet(path)
    assert contents(Source(str(path), caption="words").table()) == WANT
    assert contents(Source(str(path)).table()) == [(n, []) for n in range(1, 6)]
    for source in (Source(str(path), image="right"), Source(str(path), caption="right")):
        with pytest.raises(SuffuseError, match="has no column 'right': it has id, left, words"):
            source.table()


def test_a_table_without_pictures_is_refused(tmp_path) -> None:
    datasets.Dataset.from_dict({"a": [1]}).to_parquet(tmp_path / "some.parquet")
    with pytest.raises(SuffuseError, match="has no column of pictures: it has a; name one"):
        Source(str(tmp_path / "some.parquet")).table()


def test_missing_pictures_are_broken_and_not_fatal(tmp_path) -> None:
    data = {"image": [None, {"bytes": encoded(1), "path": None}, {"bytes": b"x", "path": "b.png"}]}
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict(data, features=features).to_parquet(tmp_path / "some.parquet")
    stream = open_stream(str(tmp_path / "some.parquet"), PLAIN)
    assert stream.batch(0, 6, 0).captions == [""] * 6
    assert stream.broken.found == {"picture 0": "no picture", "b.png": "not a picture"}


@pytest.mark.parametrize("name", ["some.parquet", "some.tar"])
def test_a_damaged_archive_is_one_line(name, tmp_path) -> None:
    (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(SuffuseError, match=r"cannot open '.*some") as caught:
        Source(str(tmp_path / name)).table()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("nowhere/at/all", "there is no folder or file 'nowhere/at/all'"),
        ("nowhere.tar", "there is no folder or file 'nowhere.tar'"),
        ("notes.txt", "is neither a folder nor a .parquet or .tar file"),
    ],
)
def test_what_is_not_there_is_said(where, message, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(SuffuseError, match=message):
        Source(where).table()


def test_the_hub_out_of_reach_is_one_line(tmp_path) -> None:
    """In a process of its own: whether to use the network is read when the libraries start."""
    script = (
        "from suffuse.data.sources import Source\n"
        "from suffuse.errors import SuffuseError\n"
        "try:\n    Source('someone/something:small').table()\n"
        "except SuffuseError as error:\n    print(error)\n"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env)
    assert done.stdout.startswith("cannot open 'someone/something:small': "), done.stderr
    assert done.stdout.count("\n") == 1
