"""A running studio as the tests see it."""

import json
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

PATIENCE = 300  # seconds, for machines that have much else to do


@dataclass
class Studio:
    """A running studio."""

    url: str  # without a slash at its end
    process: subprocess.Popen
    data: Path
    log: Path

    def client(self, **options) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE, **options)

    def lines(self) -> list[dict]:
        """What it has logged."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def lines_of(self, request: str) -> list[dict]:
        """What it has logged of the request with that id, once that is anything."""
        end = time.monotonic() + PATIENCE
        while not (found := [x for x in self.lines() if x.get("request_id") == request]):
            assert time.monotonic() < end
            time.sleep(0.05)
        return found

    def end(self, number=signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


def wait_for(client: httpx.Client, job: dict) -> dict:
    """The job when it has ended."""
    end = time.monotonic() + PATIENCE
    while job["state"] in ("queued", "running"):
        assert time.monotonic() < end, job
        time.sleep(0.05)
        job = client.get(f"/api/jobs/{job['id']}").json()
    return job
