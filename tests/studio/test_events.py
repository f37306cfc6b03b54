"""Subscriptions: what is heard, in which order, and how it ends."""

import threading
from datetime import datetime, timezone

import pytest

from suffuse.studio.events import MOST_PREVIEWS, MOST_STEPS, Hub
from suffuse.studio.views import JobView


def view(state):
    return JobView(
        id="j",
        state=state,
        model="m",
        request={},
        priority=0,
        client="c",
        film=False,
        explain=False,
        preview=0,
        created=datetime(2026, 1, 1, tzinfo=timezone.utc),
        started=None,
        finished=None,
        attempts=0,
        place=None,
        progress=None,
        images=[],
        error=None,
    )


def heard(subscription):
    found = []
    while (event := subscription.get(0)) is not None:
        found.append(event)
    return found


def test_the_state_comes_first_and_the_end_last_with_rising_numbers():
    hub = Hub()
    hearing = hub.subscribe("j")
    hub.publish("j", "step", {"step": 1})  # before its state is known
    assert hearing.get(0) is None
    hearing.begin(view("running"))
    hub.publish("j", "image", {"image": 1})
    hub.publish("j", "done", {"job": 1})
    hub.publish("j", "step", {"step": 2})  # too late
    events = heard(hearing)
    assert [event.kind for event in events] == ["state", "step", "image", "done"]
    assert [event.id for event in events] == [1, 2, 3, 4]
    assert hearing.ended
    assert hearing.get() is None


@pytest.mark.parametrize("state", ["done", "failed", "cancelled"])
def test_a_job_that_has_ended_says_so_once(state):
    hub = Hub()
    hearing = hub.subscribe("j")
    hub.publish("j", state, {})
    hearing.begin(view(state))
    assert [event.kind for event in heard(hearing)] == ["state", state]
    hearing = hub.subscribe("j")
    hearing.begin(view(state))
    hub.publish("j", state, {})
    assert [event.kind for event in heard(hearing)] == ["state", state]
    assert hearing.ended


def test_a_slow_reader_misses_steps_and_nothing_else():
    hub = Hub()
    hearing = hub.subscribe("j")
    hearing.begin(view("running"))
    for i in range(10 * MOST_STEPS):
        hub.publish("j", "step", {"step": i})
    for i in range(3):
        hub.publish("j", "image", {"image": i})
    hub.publish("j", "done", {})
    events = heard(hearing)
    kinds = [event.kind for event in events]
    assert kinds == ["state", *["step"] * MOST_STEPS, *["image"] * 3, "done"]
    assert events[MOST_STEPS].data == {"step": 10 * MOST_STEPS - 1}


def test_the_previews_that_wait_for_a_slow_reader_are_bounded():
    hub = Hub()
    hearing = hub.subscribe("j")
    hearing.begin(view("running"))
    preview = "p" * (MOST_PREVIEWS // 4 + 1)
    for i in range(10):
        hub.publish("j", "step", {"step": i, "preview": preview})
    hub.publish("j", "image", {"image": 0})
    found = [event.data.get("step") for event in heard(hearing)]
    assert found == [None, 7, 8, 9, None]
    hub.publish("j", "step", {"step": 10, "preview": 5 * preview})  # the last one is told always
    assert [event.data["step"] for event in heard(hearing)] == [10]


def test_get_waits_until_something_happens_in_another_thread():
    hub = Hub()
    hearing = hub.subscribe("j")
    hearing.begin(view("running"))
    hearing.get(0)
    threading.Timer(0.05, hub.publish, ("j", "done", {})).start()
    assert hearing.get(30).kind == "done"


def test_closing_ends_waiting_and_the_hub_forgets():
    hub = Hub()
    hearing = hub.subscribe("j")
    hearing.begin(view("running"))
    hearing.get(0)
    threading.Timer(0.05, hub.close).start()
    assert hearing.get(30) is None
    assert hearing.ended
    assert not hub.heard("j")


def test_a_listener_is_woken_and_one_whose_loop_is_gone_is_let_go():
    woken = threading.Event()
    hub = Hub()
    hub.subscribe("j", woken.set).begin(view("running"))
    assert woken.is_set()

    def gone():
        raise RuntimeError("Event loop is closed")

    lost = hub.subscribe("k", gone)
    lost.begin(view("running"))
    assert not hub.heard("k")
