"""Real worker processes: the order, errors, deaths, Ctrl-C."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest
import torch
from pictures import folder, tars

from suffuse.data.loader import batches
from suffuse.data.preprocess import Preprocess
from suffuse.data.sequence import SequenceStream
from suffuse.data.sources import Source, open_stream
from suffuse.errors import SuffuseError

PLAIN = Preprocess(16)


def test_the_order_is_exact_with_any_number_of_workers(tmp_path) -> None:
    stream = open_stream(str(folder(tmp_path / "data", 7)), PLAIN)

    def make(step: int) -> tuple[int, list[str], torch.Tensor]:
        if step % 3 == 0:
            time.sleep(0.02)  # so that workers overtake each other
        found = stream.batch(step, 3, 0)
        return os.getpid(), found.captions, torch.from_numpy(found.pictures)

    before = torch.get_rng_state()
    want = [make(step) for step in range(4, 16)]
    for workers in (0, 1, 3):
        got = list(batches(make, 4, 16, workers))
        assert [captions for _, captions, _ in got] == [captions for _, captions, _ in want]
        assert all(torch.equal(a, b) for (_, _, a), (_, _, b) in zip(got, want))
        processes = {process for process, _, _ in got}
        assert len(processes) == max(1, workers) and (os.getpid() in processes) == (workers == 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_to_do_starts_no_worker() -> None:
    assert list(batches(lambda step: step, 5, 5, 2)) == []
    with pytest.raises(SuffuseError, match="workers must be 0 or more, not -1"):
        next(batches(lambda step: step, 0, 1, -1))


def test_an_error_of_ours_stays_one_line(tmp_path) -> None:
    place = folder(tmp_path / "data", 4)
    stream = open_stream(str(place), PLAIN)
    (place / "003.png").unlink()
    with pytest.raises(SuffuseError) as caught:
        list(batches(lambda step: stream.batch(step, 2, 0), 0, 4, 2))
    assert "003.png' was there when the data were listed and has vanished" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_errors_come_through() -> None:
    def make(step: int) -> int:
        return 1 // (2 - step)

    with pytest.raises(ZeroDivisionError):
        list(batches(make, 0, 5, 2))


def test_a_worker_that_dies_is_said() -> None:
    def make(step: int) -> int:
        if step == 3:
            time.sleep(0.5)  # until what came before has been sent
            os.kill(os.getpid(), signal.SIGKILL)
        return step

    got = []
    with pytest.raises(SuffuseError, match="a process that prepares data died: out of memory"):
        for step in batches(make, 0, 6, 2):
            got.append(step)
            time.sleep(0.05)  # the news of a death must not arrive in the middle of a step
    assert got == [0, 1, 2]


def test_ctrl_c_is_for_the_trainer_alone() -> None:
    """A terminal sends it to the whole group: workers go on, so that the trainer can end well."""
    pids = set()
    for pid in batches(lambda step: os.getpid(), 0, 12, 2):
        if pid not in pids:
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
            pids.add(pid)
    assert len(pids) == 2
    for pid in pids:  # and none is left behind
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_broken_pictures_that_workers_met_are_known_here(tmp_path) -> None:
    place = folder(tmp_path / "data", 6)
    (place / "002.png").write_bytes(b"no picture")
    stream = open_stream(str(place), PLAIN)
    list(batches(lambda step: stream.batch(step, 3, 0), 0, 4, 2, stream=stream))
    assert stream.broken.found == {"002.png": "not a picture"}


def test_the_position_is_that_of_the_batch_last_handed_out(tmp_path) -> None:
    source = Source(str(tars(tmp_path / "data", [[1, 2, 3, 4, 5], [6, 7, 8, 9]])))
    stream = SequenceStream(source.sequence(), PLAIN, block=3)
    want = [stream.batch(step, 2, 0) for step in range(9)]
    for workers in (0, 2):
        stream = SequenceStream(source.sequence(), PLAIN, block=3)
        positions = []
        make = stream.batch
        for i, got in enumerate(
            batches(lambda step, m=make: m(step, 2, 0), 0, 9, workers, stream=stream)
        ):
            assert got.captions == want[i].captions
            np.testing.assert_array_equal(got.pictures, want[i].pictures)
            positions.append(stream.position()["start"])
        assert positions == [0, 3, 3, 6, 9, 9, 12, 15, 15], workers
