"""Turns: nobody is passed over, nobody hogs, and batches are of one kind."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from suffuse.studio.queue import Turns, Waiting, places

jobs = st.builds(
    Waiting,
    seq=st.integers(0, 10**6),
    id=st.uuids().map(str),
    client=st.sampled_from("abc"),
    priority=st.integers(-1, 1),
    n=st.integers(1, 4),
    batch=st.sampled_from(("x", "y", None)),
)
queues = st.lists(jobs, max_size=30, unique_by=(lambda job: job.seq, lambda job: job.id))


def drained(waiting, most=4):
    """The batches in which a queue is worked off."""
    turns, batches, left = Turns(), [], list(waiting)
    while chosen := turns.choose(left, most):
        batches.append(chosen)
        left = [job for job in left if job not in chosen]
    assert not left
    return batches


@given(queues)
def test_every_job_has_its_turn_once(waiting):
    done = [job for batch in drained(waiting) for job in batch]
    assert Counter(job.id for job in done) == Counter(job.id for job in waiting)


@given(queues)
def test_a_batch_is_of_one_kind_and_fits(waiting):
    for batch in drained(waiting, most=4):
        assert len(batch) == 1 or ({job.batch for job in batch} != {None})
        assert len({job.batch for job in batch}) == 1
        assert len(batch) == 1 or sum(job.n for job in batch) <= 4


@given(queues)
def test_the_head_is_of_the_highest_priority_and_its_clients_oldest(waiting):
    left = list(waiting)
    for batch in drained(waiting):
        head = batch[0]
        assert head.priority == max(job.priority for job in left)
        own = [j.seq for j in left if (j.client, j.priority) == (head.client, head.priority)]
        assert head.seq == min(own)
        left = [job for job in left if job not in batch]


@given(queues)
def test_companions_are_as_many_as_fit(waiting):
    left = list(waiting)
    for batch in drained(waiting, most=4):
        left = [job for job in left if job not in batch]
        room = 4 - sum(job.n for job in batch)
        if batch[0].batch is not None:
            assert not any(job.batch == batch[0].batch and job.n <= room for job in left)


def waits(seq, client, n=1, priority=0, batch=None):
    return Waiting(seq, str(seq), client, priority, n, batch)


def order(waiting, most=1):
    return "".join(job.client for batch in drained(waiting, most) for job in batch)


def test_clients_take_turns_however_much_one_has_sent():
    sent = [waits(i, "a") for i in range(6)] + [waits(10, "b"), waits(11, "b"), waits(12, "c")]
    assert order(sent) == "abcabaaaa"


def test_a_turn_counts_its_pictures():
    sent = [waits(i, "a", n=3) for i in range(2)] + [waits(10 + i, "b") for i in range(4)]
    assert order(sent) == "abbbab"


def test_who_comes_later_neither_waits_for_ever_nor_owns_the_past():
    turns = Turns()
    left = [waits(i, "a") for i in range(100)]
    for _ in range(50):
        (job,) = turns.choose(left, 1)
        left.remove(job)
    left += [waits(200 + i, "b") for i in range(50)]
    seen = ""
    for _ in range(20):
        (job,) = turns.choose(left, 1)
        left.remove(job)
        seen += job.client
    assert seen.count("b") in (10, 11)


def test_places_count_who_stands_before_by_priority_and_age():
    sent = [waits(1, "a"), waits(2, "b"), waits(3, "c", priority=1)]
    assert places(sent) == {"3": 0, "1": 1, "2": 2}
