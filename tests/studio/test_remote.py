"""Workers behind Ray: the same pictures, from two actors on a cluster of this machine."""

import os
import signal

import psutil
import pytest
from running import wait_for
from working import until

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(monkeypatch):
    """Its processes' root is this process."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # 15 otherwise: other tests would starve it
    here = ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    monkeypatch.setenv("RAY_ADDRESS", here.address_info["gcs_address"])
    yield
    ray.shutdown()


def actors():
    family = psutil.Process().children(recursive=True)
    return [p.pid for p in family if "ray::Replica" in " ".join(p.cmdline())]


def test_two_replicas_draw_what_a_process_draws(start_studio, cluster):
    asked = {"prompt": "a red apple", "steps": 2, "seed": 7}
    with start_studio().client() as http:
        alone = wait_for(http, http.post("/api/jobs", json=asked).json())
    with start_studio(devices=["ray", "ray"], batch=4).client() as http:
        job = wait_for(http, http.post("/api/jobs", json=asked).json())
        assert job["state"] == "done", job
        assert job["images"][0]["hash"] == alone["images"][0]["hash"]
        until(lambda: http.get("/health").status_code == 200, "two replicas")
        slow = {**asked, "steps": 50, "n": 4}  # fills a batch: one on each
        jobs = [http.post("/api/jobs", json=slow).json() for _ in "ab"]
        progress = lambda job: http.get(f"/api/jobs/{job['id']}").json()["progress"]  # noqa: E731
        until(lambda: all(map(progress, jobs)), "a step of both")
        assert http.delete(f"/api/jobs/{jobs[0]['id']}").is_success
        assert wait_for(http, jobs[0])["state"] == "cancelled"
        assert len(actors()) == 2
        for pid in actors():
            os.kill(pid, signal.SIGKILL)
        again = wait_for(http, jobs[1])
        assert (again["state"], again["attempts"], len(again["images"])) == ("done", 1, 4)
