"""What tests of the service have in common."""

import contextlib
import time

from suffuse.studio.service import Service

PATIENCE = 300  # seconds, for machines that have much else to do


@contextlib.contextmanager
def working(settings):
    """A service that runs."""
    service = Service(settings)
    service.start()
    try:
        yield service
    finally:
        service.stop()


def until(true, what="it"):
    """Waits for `true()` and returns it."""
    end = time.monotonic() + PATIENCE
    while not (found := true()):
        assert time.monotonic() < end, f"{what} did not come about"
        time.sleep(0.02)
    return found


def ended(service, *ids):
    """The jobs, once all have ended."""
    jobs = []
    for id in ids:
        hearing = service.subscribe(id)
        while not hearing.ended:
            hearing.get(PATIENCE)
        jobs.append(service.job(id))
    return jobs


def first_step(service, id):
    """Waits until the job has made a step."""
    hearing = service.subscribe(id)
    while not hearing.ended:
        event = hearing.get(PATIENCE)
        if event is not None and event.kind == "step":
            break
    hearing.close()
    return event
