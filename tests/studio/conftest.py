"""Studios as users meet them: processes that answer over HTTP."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

PROGRAM = Path(__file__).with_name("served.py")
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


@pytest.fixture(scope="module")
def start_studio(tmp_path_factory):
    """start_studio(**settings): a running Studio, ended with the module."""
    running = []

    def start(**settings):
        data = settings.pop("data", None) or tmp_path_factory.mktemp("studio")
        log = tmp_path_factory.mktemp("log") / "stderr"
        given = json.dumps({"data": str(data), "devices": ["cpu"], **settings})
        with open(log, "w") as errors:
            process = subprocess.Popen(
                [sys.executable, PROGRAM, given],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        running.append(process)
        url = process.stdout.readline().strip().rstrip("/")
        assert url, log.read_text()
        return Studio(url, process, Path(data), log)

    yield start
    for process in running:
        if process.poll() is None:
            process.terminate()
    for process in running:
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_for(client: httpx.Client, job: dict) -> dict:
    """The job when it has ended."""
    end = time.monotonic() + PATIENCE
    while job["state"] in ("queued", "running"):
        assert time.monotonic() < end, job
        time.sleep(0.05)
        job = client.get(f"/api/jobs/{job['id']}").json()
    return job
