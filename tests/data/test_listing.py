"""Folders of pictures and what is said of them."""

from __future__ import annotations

import csv
import json

import pyarrow
import pyarrow.parquet
import pytest
from pictures import encoded, folder

from suffuse.data.listing import captions_of, list_files, list_pictures
from suffuse.errors import SuffuseError


def listing(path, caption=None):
    return list_pictures(path, list_files(path), caption)


def test_metadata_and_side_cars_say_the_same(tmp_path) -> None:
    one = listing(folder(tmp_path / "one", 3))
    other = listing(folder(tmp_path / "other", 3, metadata=False))
    assert one.names == other.names == ["001.png", "002.png", "003.png"]
    assert one.captions == other.captions == [["number 1"], ["number 2"], ["number 3"]]


def test_it_reads_what_imagefolder_reads(tmp_path, monkeypatch) -> None:
    """`datasets` reads the same folder, and its answer is the same."""
    from datasets import load_dataset

    place = folder(tmp_path / "pictures", 4)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    rows = load_dataset(
        "imagefolder", data_dir=str(place), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert [[text] for text in rows["text"]] == listing(place).captions


def test_folders_within_and_hidden_ones(tmp_path) -> None:
    folder(tmp_path / "all" / "b", 1)
    folder(tmp_path / "all" / "a" / "c", 1)
    folder(tmp_path / "all" / ".cache", 1)
    (tmp_path / "all" / "b" / ".DS_Store.png").write_bytes(b"")
    (tmp_path / "all" / "z.JPG").write_bytes(encoded(1, kind="JPEG"))
    found = listing(tmp_path / "all")
    assert found.names == ["a/c/001.png", "b/001.png", "z.JPG"]
    assert found.captions == [["number 1"], ["number 1"], []]


def test_links_are_followed_and_circles_are_not(tmp_path) -> None:
    folder(tmp_path / "far", 1)
    place = folder(tmp_path / "all", 1)
    (place / "linked").symlink_to(tmp_path / "far")
    (place / "twice").symlink_to(tmp_path / "far")
    (place / "circle").symlink_to(place)
    (place / "linked" / "back").symlink_to(place)
    names = listing(place).names
    assert names == ["001.png", "linked/001.png"]


def test_metadata_of_a_folder_above(tmp_path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(encoded(1))
    rows = [
        {"file_name": "./images/a.png", "prompt": " two\n lines ", "url": "x"},
        {"file_name": "images/a.png", "prompt": ["and", "more"], "url": "x"},
        {"file_name": "images/gone.png", "prompt": "gone", "url": "x"},
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    found = listing(tmp_path)
    assert found.captions == [["two lines", "and", "more"]]
    assert found.problems == {"images/gone.png": "named in metadata.jsonl, but not there"}
    assert listing(tmp_path, "url").captions == [["x", "x"]]


def test_metadata_in_other_forms(tmp_path) -> None:
    rows = [{"file_name": "a.png", "text": "쉼표, 하나"}]
    for form in ("csv", "parquet"):
        place = tmp_path / form
        place.mkdir()
        (place / "a.png").write_bytes(encoded(1))
        if form == "csv":
            with (place / "metadata.csv").open("w", newline="", encoding="utf-8") as opened:
                writer = csv.DictWriter(opened, rows[0])
                writer.writeheader()
                writer.writerows(rows)
        else:
            table = pyarrow.Table.from_pylist(rows)
            pyarrow.parquet.write_table(table, place / "metadata.parquet")
        assert listing(place).captions == [["쉼표, 하나"]], form


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "line 2 is not JSON"),
        (b"[1]", "line 2 names no picture: it needs a file_name"),
        (b'{"text": "x"}', "line 2 names no picture"),
        (b'{"file_name": "a.png", "text": "\xff"}', "cannot read"),
    ],
)
def test_bad_metadata_is_named_with_its_line(line, message, tmp_path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(1))
    first = b'{"file_name": "a.png", "text": "fine"}\n'
    (tmp_path / "metadata.jsonl").write_bytes(first + line + b"\n")
    with pytest.raises(SuffuseError, match=message):
        listing(tmp_path)


def test_bad_captions_are_named(tmp_path) -> None:
    folder(tmp_path / "all", 1)
    with pytest.raises(SuffuseError, match="line 1 has no 'title': it has file_name, text"):
        listing(tmp_path / "all", "title")
    (tmp_path / "a.png").write_bytes(encoded(1))
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(SuffuseError, match=r"a\.txt' is not text in UTF-8"):
        listing(tmp_path)


def test_captions_of_whatever_a_column_holds() -> None:
    assert captions_of(" a  b ") == ["a b"]
    assert captions_of("한국".encode()) == ["한국"]
    assert captions_of([{"caption": "x"}, "y"]) == ["x", "y"]
    assert captions_of({"width": 3}) == captions_of(None) == captions_of(3) == []
    assert captions_of("") == [""]
