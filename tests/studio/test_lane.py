"""Workers that do not come up."""

from suffuse.studio.lane import LONGEST_PAUSE, pause_after


def test_pauses_grow_and_stay_bounded_however_long_a_worker_fails():
    pauses = [pause_after(failures) for failures in (1, 2, 3, 4, 5, 1023, 1024, 10**6)]
    assert pauses == [2, 4, 8, 16, *[LONGEST_PAUSE] * 4]
