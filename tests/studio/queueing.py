"""A service in a process of its own, to be killed: `python queueing.py DATA JOBS`.

Queues the jobs, then prints a line of JSON with its worker's process and the jobs' ids, and works.
"""

import json
import sys
import time
from pathlib import Path

from suffuse.studio.service import Service
from suffuse.studio.settings import Settings
from suffuse.systems.request import Request


def main(data: str, count: int) -> None:
    service = Service(Settings(data=Path(data), devices=("cpu",)))
    service.start()
    jobs = [
        service.submit(Request(f"{i} stars", steps=2, seed=i), client=f"client {i % 7}", key=str(i))
        for i in range(count)
    ]
    (worker,) = service.status().workers
    print(json.dumps({"worker": worker.pid, "jobs": [job.id for job in jobs]}), flush=True)
    while True:
        time.sleep(1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
