"""Processes die and disks fill: nothing that was accepted is lost, nothing is delivered twice."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from working import ended, first_step, until, working

from suffuse.studio import disk
from suffuse.studio.settings import Settings
from suffuse.studio.views import Refused
from suffuse.systems.metadata import write_bytes
from suffuse.systems.request import Request


def kill_worker(service):
    (worker,) = service.status().workers
    os.kill(worker.pid, signal.SIGKILL)
    return worker.pid


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_worker_that_is_killed_harms_no_job_but_the_one_that_kills_it_twice(tmp_path):
    with working(Settings(data=tmp_path, devices=("cpu",))) as service:
        # One batch of three; the worker is killed in the midst of it.
        asked = [service.submit(Request(f"{i} cats", steps=25), client="me").id for i in range(3)]
        later = service.submit(Request("a dog", steps=2), client="me").id
        hearing = service.subscribe(asked[0])
        first_step(service, asked[0])
        assert service.status().queued == 1
        first = kill_worker(service)
        # They are tried again one by one, the worker dies of the first one once more.
        until(lambda: service.job(asked[0]).attempts == 1, "another try")
        until(lambda: service.job(asked[0]).progress, "a step of it")
        assert service.status().workers[0].pid != first
        assert service.status().queued == 3
        kill_worker(service)
        jobs = ended(service, *asked, later)
        assert [job.state for job in jobs] == ["failed", "done", "done", "done"]
        assert [job.attempts for job in jobs] == [2, 1, 1, 0]
        assert [len(job.images) for job in jobs] == [0, 1, 1, 1]
        assert jobs[0].error == "the worker died twice while making it"
        status = service.status()
        assert status.ready and status.restarts == 2
        assert (status.done, status.failed, status.images) == (3, 1, 3)
        kinds = []
        while (event := hearing.get(0)) is not None:
            kinds += [event.kind] if event.kind != "step" else []
        assert kinds == ["state", "state", "state", "state", "failed"]


def test_a_service_that_is_killed_goes_on_where_it_was(tmp_path):
    count = 50
    program = Path(__file__).with_name("queueing.py")
    command = [sys.executable, str(program), str(tmp_path), str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        told = json.loads(process.stdout.readline())
        images = tmp_path / "images"
        until(lambda: len(list(images.glob("*/*.png"))) >= 4, "a picture")
        process.kill()
    until(lambda: not alive(told["worker"]), "the orphan's end")
    with working(Settings(data=tmp_path, devices=("cpu",))) as service:
        before = {job.id: job for job in service.jobs(states=("done",), limit=count)}
        assert before  # and there was something left to do
        assert len(before) < count
        jobs = ended(service, *told["jobs"])
        assert [job.state for job in jobs] == ["done"] * count
        assert [job.attempts for job in jobs] == [0] * count
        assert [job.request["prompt"] for job in jobs] == [f"{i} stars" for i in range(count)]
        assert [(len(job.images), job.images[0].seed) for job in jobs] == [
            (1, i) for i in range(count)
        ]
        for id, job in before.items():
            assert service.job(id) == job  # not made a second time
        assert len(service.images(limit=2 * count)) == count
        hashes = {path.stem for path in images.glob("*/*.png")}
        assert hashes == {job.images[0].hash for job in jobs}
        again = service.submit(Request("0 stars", steps=2), client="client 0", key="0")
        assert again.id == told["jobs"][0]


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    """A folder on a disk of 2 MiB, and a function that fills it up or makes room."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "studio", str(place)]
    if os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0:
        yield place, lambda full: _fill(place, full)
        subprocess.run(["umount", "-l", str(place)], check=True)
        return
    full_now = []

    def write(content, path, *, overwrite=False):
        if full_now:
            (path.with_name(".half.tmp")).write_bytes(content[:100])
            path.with_name(".half.tmp").unlink()
            raise OSError(28, os.strerror(28))
        write_bytes(content, path, overwrite=overwrite)

    monkeypatch.setattr(disk, "write_bytes", write)
    yield place, lambda full: full_now.append(1) if full else full_now.clear()


def _fill(place, full):
    filler = place / "filler"
    if not full:
        filler.unlink()
        return
    with open(filler, "wb") as file:
        try:
            while True:
                os.write(file.fileno(), bytes(4096))
        except OSError:
            pass


def test_a_full_disk_makes_pictures_wait_for_room(small_disk):
    place, fill = small_disk
    with working(Settings(data=place, devices=("cpu",))) as service:
        (first,) = ended(service, service.submit(Request("a cat", steps=1), client="me").id)
        assert first.state == "done"
        slow = service.submit(Request("two cats", steps=60, n=2), client="me").id
        first_step(service, slow)
        fill(True)
        until(lambda: "the disk is full" in (service.status().trouble or ""), "trouble")
        assert not service.status().ready
        assert service.job(first.id).images == first.images  # reading goes on
        with pytest.raises(Refused, match="disk is full") as refused:
            service.submit(Request("a dog", steps=1, image=_noise()), client="me")
        assert refused.value.status == 503
        assert not list(place.glob("*/*/.*.tmp"))
        assert len(list(place.glob("images/*/*.png"))) == 1
        assert service.job(slow).state == "running"
        fill(False)
        (job,) = ended(service, slow)
        assert (job.state, len(job.images)) == ("done", 2)
        (last,) = ended(service, service.submit(Request("a dog", steps=1), client="me").id)
        assert last.state == "done"
        until(lambda: service.status().ready, "health")
        assert len(list(place.glob("images/*/*.png"))) == 4


def _noise():
    """A picture whose PNG is larger than any room left."""
    from PIL import Image

    return Image.frombytes("RGB", (128, 128), os.urandom(128 * 128 * 3))
