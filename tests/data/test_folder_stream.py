"""Pictures by number: every epoch goes through all, and a batch depends on its step alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encoded, folder

from suffuse.data.buckets import Buckets
from suffuse.data.folder import FolderStream
from suffuse.data.preprocess import Preprocess
from suffuse.data.sources import Source, open_stream
from suffuse.errors import SuffuseError

PLAIN = Preprocess(16)


def numbers(batch) -> list[int]:
    """The number that each picture carries, which its caption names too."""
    found = [int(n) for n in batch.pictures[:, 1, 1, 0]]
    assert batch.captions == [f"number {n}" for n in found]
    return found


@pytest.fixture(scope="module")
def seven(tmp_path_factory):
    return open_stream(str(folder(tmp_path_factory.mktemp("data") / "seven", 7)), PLAIN)


def test_every_epoch_has_every_picture_in_an_order_of_its_own(seven) -> None:
    seen = [n for step in range(14) for n in numbers(seven.batch(step, 2, 0))]
    epochs = [tuple(seen[i : i + 7]) for i in range(0, 28, 7)]
    assert all(sorted(epoch) == list(range(1, 8)) for epoch in epochs)
    assert len(set(epochs)) == 4
    other = [n for step in range(14) for n in numbers(seven.batch(step, 2, 1))]
    assert other != seen


@given(st.integers(0, 30), st.integers(1, 9), st.integers(0, 3), st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_a_process_reads_its_own_rows_alone(seven, step, size, seed, cut) -> None:
    whole = seven.batch(step, size, seed)
    parts = [seven.batch(step, size, seed, part) for part in (slice(0, cut), slice(cut, size))]
    np.testing.assert_array_equal(np.concatenate([p.pictures for p in parts]), whole.pictures)
    assert [caption for part in parts for caption in part.captions] == whole.captions


def test_batches_do_not_depend_on_what_was_read_before(seven) -> None:
    again = FolderStream(seven.table, PLAIN)
    assert numbers(again.batch(9, 3, 4)) == numbers(seven.batch(9, 3, 4))
    assert again.identity == seven.identity
    assert FolderStream(seven.table, Preprocess(8)).identity != seven.identity


def test_a_broken_picture_is_replaced_named_and_never_fatal(tmp_path) -> None:
    place = folder(tmp_path / "data", 6)
    (place / "002.png").write_bytes(b"no picture")
    (place / "005.png").write_bytes(encoded(5)[:300])
    first, second = (open_stream(str(place), PLAIN) for _ in range(2))
    seen = [numbers(first.batch(step, 3, 0)) for step in range(8)]
    assert {n for batch in seen for n in batch} == {1, 3, 4, 6}
    # The second has met none of the broken ones when it is asked for the last batch.
    assert numbers(second.batch(7, 3, 0)) == seen[7]
    assert set(first.broken.found) == {"002.png", "005.png"}
    assert first.broken.found["002.png"] == "not a picture"
    assert first.broken.notice().startswith("skipped 2 broken pictures: 00")


def test_a_folder_of_nothing_but_broken_pictures_is_an_error(tmp_path) -> None:
    place = folder(tmp_path / "data", 2)
    for path in place.glob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(SuffuseError, match="64 pictures in a row could not be read"):
        open_stream(str(place), PLAIN).batch(0, 1, 0)
    with pytest.raises(SuffuseError, match=r"none of the pictures of .* can be read"):
        open_stream(str(place), Preprocess(64, buckets=Buckets(32)))


def test_a_picture_that_vanished_is_an_error_that_names_it(tmp_path) -> None:
    place = folder(tmp_path / "data", 2)
    stream = open_stream(str(place), PLAIN)
    (place / "001.png").unlink()
    with pytest.raises(SuffuseError, match=r"001\.png' was there when the data were listed"):
        stream.batch(0, 2, 0)


def test_one_of_several_captions_is_drawn_and_none_is_empty(tmp_path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(1))
    stream = open_stream(str(tmp_path), PLAIN)
    assert stream.batch(0, 2, 0).captions == ["", ""]
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": ["x", "y"]}\n')
    stream = open_stream(str(tmp_path), PLAIN)
    assert set(stream.batch(0, 20, 0).captions) == {"x", "y"}


SIZES = [(40, 40)] * 5 + [(80, 40)] * 3 + [(40, 80), (30, 70)]


@pytest.fixture
def mixed(tmp_path):
    for i, size in enumerate(SIZES, 1):
        (tmp_path / f"{i:03}.png").write_bytes(encoded(i, *size))
        (tmp_path / f"{i:03}.txt").write_text(str(i))
    return tmp_path


def test_buckets_make_batches_of_one_shape_and_leave_no_picture_out(mixed) -> None:
    how = Preprocess(32, buckets=Buckets(8, 2.0))
    told: list[tuple[int, int]] = []
    stream = open_stream(str(mixed), how, progress=lambda *numbers: told.append(numbers))
    assert told == [(10, 10)]
    epoch = [stream.batch(step, 2, 0) for step in range(3 + 2 + 1)]
    shapes = [batch.pictures.shape[1:3] for batch in epoch]
    assert set(shapes) == {(32, 32), (24, 40), (40, 24)} and shapes != sorted(shapes)
    seen = [int(caption) for batch in epoch for caption in batch.captions]
    assert len(seen) == 12 and set(seen) == set(range(1, 11))
    for batch in epoch:
        kinds = {(SIZES[int(c) - 1][0] > 40, SIZES[int(c) - 1][1] > 40) for c in batch.captions}
        assert len(kinds) == 1
    later = [stream.batch(step, 2, 0).captions for step in range(6, 12)]
    assert later != [batch.captions for batch in epoch]
    again = open_stream(str(mixed), how)
    assert [again.batch(step, 2, 0).captions for step in (11, 6, 0)] == [
        *(later[5], later[0], epoch[0].captions),
    ]


def test_a_broken_picture_is_replaced_by_one_of_its_shape(mixed) -> None:
    data = (mixed / "006.png").read_bytes()
    (mixed / "006.png").write_bytes(data[: len(data) // 2])  # its header is fine
    (mixed / "001.png").write_bytes(b"no picture")
    stream = open_stream(str(mixed), Preprocess(32, buckets=Buckets(8, 2.0)))
    assert set(stream.broken.found) == {"001.png"}
    seen = {c for step in range(20) for c in stream.batch(step, 2, 0).captions}
    assert seen == {"2", "3", "4", "5", "7", "8", "9", "10"}
    assert set(stream.broken.found) == {"001.png", "006.png"}


def test_an_empty_folder_is_refused(tmp_path) -> None:
    with pytest.raises(SuffuseError, match=r"holds no pictures, no \.parquet and no \.tar files"):
        Source(str(tmp_path)).table()
