"""Streaming: shuffled in blocks, in an order that only the seed decides."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from pictures import folder, tars

from suffuse.data.buckets import Buckets
from suffuse.data.preprocess import Preprocess
from suffuse.data.sequence import SequenceStream
from suffuse.data.sources import Source, open_stream
from suffuse.errors import SuffuseError

PLAIN = Preprocess(16)
SHARDS = [[1, 2, 3, 4], [5, 6, 7], [8, 9, 10, 11, 12]]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tars(tmp_path_factory.mktemp("data") / "tars", SHARDS)


@pytest.fixture(params=["tars", "parquet", "saved"])
def source(request, place, tmp_path) -> Source:
    if request.param == "tars":
        return Source(str(place))
    rows = Source(str(folder(tmp_path / "data", 12))).table()
    import datasets

    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    found = [rows.row(i) for i in range(12)]
    data = {
        "image": [{"bytes": row.bytes(), "path": None} for row in found],
        "text": [row.captions[0] for row in found],
    }
    made = datasets.Dataset.from_dict(data, features=features)
    if request.param == "saved":
        made.save_to_disk(tmp_path / "saved")
        return Source(str(tmp_path / "saved"))
    (tmp_path / "parquet").mkdir()
    for i in range(3):
        made.shard(3, i).to_parquet(tmp_path / "parquet" / f"{i}.parquet")
    return Source(str(tmp_path / "parquet"))


def numbers(batch) -> list[int]:
    found = [int(n) for n in batch.pictures[:, 1, 1, 0]]
    assert batch.captions == [f"number {n}" for n in found]
    return found


def test_every_epoch_has_every_picture_in_an_order_of_its_own(source) -> None:
    stream = SequenceStream(source.sequence(), PLAIN, block=5)
    seen = [n for step in range(9) for n in numbers(stream.batch(step, 4, 0))]
    epochs = [tuple(seen[i : i + 12]) for i in range(0, 36, 12)]
    assert all(sorted(epoch) == list(range(1, 13)) for epoch in epochs)
    assert len(set(epochs)) == 3
    assert [n for step in range(3) for n in numbers(stream.batch(step, 4, 1))] != list(epochs[0])


def test_a_batch_depends_on_its_step_alone(place) -> None:
    def fresh() -> SequenceStream:
        return SequenceStream(Source(str(place)).sequence(), PLAIN, block=5)

    stream = fresh()
    seen = [numbers(stream.batch(step, 4, 3)) for step in range(8)]
    assert [numbers(stream.batch(step, 4, 3)) for step in (7, 2, 5)] == [seen[7], seen[2], seen[5]]
    assert numbers(fresh().batch(6, 4, 3)) == seen[6]
    assert numbers(fresh().batch(6, 4, 3, slice(1, 3))) == seen[6][1:3]
    copy = pickle.loads(pickle.dumps(stream))
    assert numbers(copy.batch(6, 4, 3)) == seen[6]


def test_a_position_spares_reading_what_came_before(place, monkeypatch) -> None:
    source = Source(str(place))
    stream = SequenceStream(source.sequence(), PLAIN, block=3)
    assert stream.position() is None
    seen, positions = [], []
    for step in range(12):
        seen.append(numbers(stream.batch(step, 3, 0)))
        positions.append(stream.position())
    for step in range(1, 12):
        again = SequenceStream(source.sequence(), PLAIN, block=3)
        again.seek(positions[step - 1])
        opened: list[int] = []
        read = again.sequence.read
        monkeypatch.setattr(
            again.sequence, "read", lambda shard, o=opened, r=read: o.append(shard) or r(shard)
        )
        assert numbers(again.batch(step, 3, 0)) == seen[step]
        assert len(opened) <= 3, "those that six pictures can lie in"
    # A position behind the batch, or of another seed, is no use and does no harm.
    again.seek(positions[11])
    assert numbers(again.batch(1, 3, 0)) == seen[1]
    again.seek(positions[4])
    assert numbers(again.batch(1, 3, 9)) == numbers(stream.batch(1, 3, 9))


def test_a_look_back_does_not_lose_the_place(place) -> None:
    stream = SequenceStream(Source(str(place)).sequence(), PLAIN, block=3)
    want = [numbers(stream.batch(step, 3, 0)) for step in range(6)]
    before = stream.position()
    samples = [numbers(stream.batch(0, 4, seed)) for seed in (0, 1, 0)]
    assert samples[0] == samples[2] != samples[1]
    assert samples[0][:3] == want[0]
    assert stream.position() == before
    assert numbers(stream.batch(5, 3, 0)) == want[5]


def test_a_broken_picture_is_replaced_by_one_of_its_block(tmp_path) -> None:
    from pictures import _add, encoded, tarfile

    tmp_path.joinpath("data").mkdir()
    with tarfile.open(tmp_path / "data" / "one.tar", "w") as tar:
        for n in range(1, 7):
            data = b"no picture" if n in (2, 3) else encoded(n, 16, 16)
            _add(tar, f"{n:03}.png", data)
            _add(tar, f"{n:03}.txt", f"number {n}".encode())
    sequence = Source(str(tmp_path / "data")).sequence()
    stream, other = (SequenceStream(sequence, PLAIN, block=6) for _ in range(2))
    seen = [numbers(stream.batch(step, 3, 0)) for step in range(4)]
    assert {n for batch in seen for n in batch} == {1, 4, 5, 6}
    assert numbers(other.batch(3, 3, 0)) == seen[3]
    assert stream.broken.found == {"002": "not a picture", "003": "not a picture"}


def test_an_archive_that_vanished_is_an_error(tmp_path) -> None:
    place = tars(tmp_path / "data", SHARDS)
    stream = open_stream(str(place), PLAIN, streaming=True)
    for path in place.iterdir():
        path.unlink()
    with pytest.raises(SuffuseError, match="cannot read on in"):
        stream.batch(0, 4, 0)


def test_what_cannot_be_streamed_is_said(tmp_path, place) -> None:
    with pytest.raises(SuffuseError, match="plain pictures: these are picked, not streamed"):
        open_stream(str(folder(tmp_path / "data", 2)), PLAIN, streaming=True)
    with pytest.raises(SuffuseError, match="buckets cannot be streamed"):
        open_stream(str(place), Preprocess(64, buckets=Buckets(32)), streaming=True)


def test_crops_differ_between_epochs(place) -> None:
    stream = SequenceStream(Source(str(place)).sequence(), Preprocess(8, crop="random"), block=12)
    first, second = (stream.batch(step, 12, 0) for step in range(2))
    one, other = (
        np.stack([batch.pictures[batch.captions.index(f"number {n}")] for n in range(1, 13)])
        for batch in (first, second)
    )
    assert one.shape == other.shape
