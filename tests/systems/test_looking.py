"""Pictures on their way to the tower: order, batches, broken ones, faults."""

from __future__ import annotations

import threading

import pytest
import torch
from sight import clip, picture

from suffuse.data.decode import BrokenPicture
from suffuse.systems.looking import look, look_at_all

CLIP = clip()
BROKEN = {0, 3, 4, 10}


def opened(i):
    if i in BROKEN:
        raise BrokenPicture(f"number {i}")
    return picture(i)


@pytest.mark.parametrize("batch", [1, 4, 7, 100])
def test_every_picture_once_and_in_order(batch):
    parts = list(look(CLIP, 11, opened, batch))
    assert all(len(part.which) == batch for part in parts[:-1])
    done = []
    which, vectors, broken = look_at_all(CLIP, 11, opened, batch, done.append)
    assert which == [i for i in range(11) if i not in BROKEN]
    assert broken == {i: f"number {i}" for i in BROKEN}
    assert done[-1] == 11 and done == sorted(done)
    assert torch.allclose(vectors, CLIP.images([picture(i) for i in which]), atol=1e-5)


def test_none_at_all():
    which, vectors, broken = look_at_all(CLIP, 0, opened)
    assert (which, broken, tuple(vectors.shape)) == ([], {}, (0, CLIP.width))


def test_other_faults_end_it_and_leave_no_thread():
    def faulty(i):
        if i == 5:
            raise RuntimeError("a fault of ours")
        return picture(i)

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="a fault of ours"):
        list(look(CLIP, 1000, faulty, 2))
    assert threading.active_count() == before
