"""Studios as users meet them: processes that answer over HTTP."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from running import Studio

PROGRAM = Path(__file__).with_name("served.py")


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
