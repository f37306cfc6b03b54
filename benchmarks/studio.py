"""The studio under load, on this machine alone: 200 clients, 1,000 jobs, real HTTP, a real worker.

Each client posts a job, follows its events, fetches the picture, and posts the next. Meanwhile one
more client goes through the pages that people look at. At the end: whether every job ended and was
delivered once, how long the service's own answers took, and pictures a second in batches and one
by one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import contextmanager
from pathlib import Path

import httpx

LOOKED_AT = ("/", "/health", "/metrics", "/api/models", "/api/images?limit=50", "/api/jobs")
LONGEST = 3600  # seconds that anything may take


class Load:
    """Clients of one studio, and what they saw."""

    def __init__(self, url: str, steps: int) -> None:
        self._steps = steps
        # Shorter than the server's five seconds, or it may close a connection just as it is used.
        limits = httpx.Limits(
            max_connections=None, max_keepalive_connections=None, keepalive_expiry=2
        )
        self._http = httpx.AsyncClient(base_url=url, timeout=LONGEST, limits=limits)
        self.seconds: dict[str, list[float]] = defaultdict(list)  # by endpoint
        self.ends: Counter[str] = Counter()
        self.jobs: list[str] = []
        self.hashes: list[str] = []

    async def run(self, clients: int, jobs: int, ramp: float) -> float:
        """All jobs, shared out among the clients, who come in the first `ramp` seconds; the seconds
        they took."""
        left = iter(range(jobs))
        looking = asyncio.create_task(self._look())
        begun = time.monotonic()

        async def come(i: int) -> None:
            await asyncio.sleep(ramp * i / clients)
            await self._client(f"client-{i}", left)

        await asyncio.gather(*map(come, range(clients)))
        took = time.monotonic() - begun
        looking.cancel()
        await self._http.aclose()
        return took

    async def _client(self, name: str, left: object) -> None:
        headers = {"X-Client": name}
        for i in left:  # type: ignore[attr-defined]  # one iterator for all
            asked = {"prompt": f"{i % 9} red stars", "seed": i, "steps": self._steps}
            asked["negative"] = f"job {i}"  # so that no two pictures are the same file
            answer = await self._timed("POST /api/jobs", "/api/jobs", json=asked, headers=headers)
            job = answer.json()["id"]
            self.jobs.append(job)
            ended = await self._follow(job)
            self.ends[ended["state"]] += 1
            for image in ended["images"]:
                await self._timed("GET /api/images/….png", image["url"])
                self.hashes.append(image["hash"])

    async def _follow(self, job: str) -> dict:
        """The job's events to their end; what is timed is the first of them, which is the job."""
        begun, kind, first = time.monotonic(), "", True
        async with self._http.stream("GET", f"/api/jobs/{job}/events") as stream:
            async for line in stream.aiter_lines():
                if line.startswith("data:") and first:
                    self.seconds["GET /api/jobs/…/events"].append(time.monotonic() - begun)
                    first = False
                if line.startswith("event:"):
                    kind = line.removeprefix("event:").strip()
                elif line.startswith("data:") and kind in ("done", "failed", "cancelled"):
                    return json.loads(line.removeprefix("data:"))["job"]
        raise SystemExit(f"the events of job {job} stopped before its end")

    async def _look(self) -> None:
        while True:
            for path in LOOKED_AT:
                await self._timed(f"GET {path}", path, headers={"X-Client": "client-0"})
                await asyncio.sleep(0.1)

    async def _timed(self, name: str, path: str, **options: object) -> httpx.Response:
        begun = time.monotonic()
        method = name.split()[0]
        answer = await self._http.request(method, path, **options)  # type: ignore[arg-type]
        answer.raise_for_status()
        self.seconds[name].append(time.monotonic() - begun)
        return answer


@contextmanager
def studio(batch: int, workers: int):
    """A studio in a process of its own: its address."""
    with tempfile.TemporaryDirectory() as data:
        settings = {"data": data, "batch": batch, "devices": ["cpu"] * workers}
        command = [sys.executable, __file__, "--serve", json.dumps(settings)]
        errors = open(Path(data) / "log", "w")  # noqa: SIM115  (as long as the process)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            until_ready(url)
            yield url
        finally:
            process.terminate()
            process.wait()
            errors.close()


def until_ready(url: str) -> None:
    """Waits for the worker, which is warm once it has made a picture."""
    with httpx.Client(base_url=url, timeout=LONGEST) as http:
        job = http.post("/api/jobs", json={"prompt": "a star", "steps": 2}).json()
        while http.get(f"/api/jobs/{job['id']}").json()["state"] != "done":
            time.sleep(0.1)


def serve(settings: str) -> None:
    from suffuse.studio.guard import Door
    from suffuse.studio.serve import address, listen, serve
    from suffuse.studio.settings import Settings

    listening = listen("127.0.0.1", 0)
    told = Settings.model_validate_json(settings)
    serve(told, Door(), listening, lambda: print(address(listening), flush=True))


def judged(url: str, load: Load, jobs: int) -> None:
    """Prints what became of the jobs. Exits with 1 where one was lost or came twice."""
    print(f"  ends: {dict(load.ends)} of {jobs}; different pictures: {len(set(load.hashes))}")
    with httpx.Client(base_url=url, timeout=LONGEST) as http:
        seen, before = [], None
        while True:
            where = {"limit": 100} | ({"before": before} if before else {})
            page = http.get("/api/images", params=where)
            seen += [image["job"] for image in page.json()["images"]]
            before = page.json()["next"]
            if not before:
                break
    mine = Counter(job for job in seen if job in set(load.jobs))
    twice = [job for job, count in mine.items() if count > 1]
    print(f"  images in the gallery: {sum(mine.values())}; jobs with more than one: {len(twice)}")
    if load.ends != Counter(done=jobs) or len(mine) != jobs or twice:
        sys.exit(1)


def told(load: Load) -> None:
    """Prints how long answers took, in milliseconds."""
    every = [second for seconds in load.seconds.values() for second in seconds]
    rows = [*sorted(load.seconds.items()), ("all", every)]
    head = " ".join(f"{word:>8}" for word in ("count", "median", "99 %", "worst"))
    print(f"  {'milliseconds, seen by clients':32}{head}")
    for name, seconds in rows:
        high = sorted(seconds)[math.ceil(0.99 * len(seconds)) - 1]
        figures = (statistics.median(seconds), high, max(seconds))
        print(f"  {name:32}{len(seconds):8} " + " ".join(f"{1000 * f:8.1f}" for f in figures))


def machine() -> str:
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = re.search(r"model name\s*: (.*)", text)
    load = os.getloadavg()[0]
    return f"{name[1] if name else platform.machine()}, {os.cpu_count()} cores, load {load:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--alone", type=int, default=200, help="jobs of the run one by one")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--ramp", type=float, default=10, help="seconds in which clients come")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1, help="which share the cores")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    print(f"{machine()}; {options.clients} clients, {options.steps} steps")
    pace = {}
    for batch, jobs in ((options.batch, options.jobs), (1, options.alone)):
        with studio(batch, options.workers) as url:
            load = Load(url, options.steps)
            took = asyncio.run(load.run(min(options.clients, jobs), jobs, options.ramp))
            pace[batch] = jobs / took
            print(f"batches of {batch}: {jobs} jobs in {took:.1f} s, {pace[batch]:.2f} pictures/s")
            judged(url, load, jobs)
            told(load)
    print(f"batching: {pace[options.batch] / pace[1]:.2f} x")


if __name__ == "__main__":
    main()
