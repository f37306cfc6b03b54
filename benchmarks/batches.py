"""Requests as one batch beside one by one, on the bundled model; every picture compared.

    python benchmarks/batches.py [--threads 1 2] [--sizes 1 2 4 8] [--steps 10] [--processes 2]

Eight requests of different prompts and guidance. Told are pictures a second and the processor time
of one, which other programs on the machine disturb less; then the same by several processes of one
thread each; and in how many grey levels any picture differs from the one made alone.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sd15 import machine

import suffuse
from suffuse.systems import together
from suffuse.systems.registry import System
from suffuse.systems.request import Request

PROMPTS = (
    "a red apple on a blue background",
    "a dog left of a cat",
    "고양이 위에 사과",
    "three bananas",
    "a small car",
    "a big house on a green background",
    "두 마리 개",
    "a blue circle",
)


class Run(NamedTuple):
    seconds: float
    cpu: float  # seconds of all cores
    pictures: list[NDArray[np.uint8]]


@cache
def system() -> System:
    return suffuse.load(device="cpu")


def run(size: int, threads: int, steps: int) -> Run:
    """All requests in batches of this size."""
    torch.set_num_threads(threads)
    asked = [
        Request(prompt, seed=i, steps=steps, guidance=2.0 + i) for i, prompt in enumerate(PROMPTS)
    ]
    for _ in together.stream(system(), asked[:size]):  # weights are laid out at the first call
        break
    begun, cpu, pictures = time.perf_counter(), time.process_time(), []
    for first in range(0, len(asked), size):
        for _, step in together.stream(system(), asked[first : first + size]):
            if step.result is not None:
                pictures.append(np.asarray(step.result))
    return Run(time.perf_counter() - begun, time.process_time() - cpu, pictures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    print(machine(torch.device("cpu")))
    alone, count = run(1, 1, given.steps).pictures, len(PROMPTS)
    for threads in given.threads:
        for size in given.sizes:
            found = run(size, threads, given.steps)
            far = max(np.abs(a.astype(int) - b).max() for a, b in zip(alone, found.pictures))
            print(
                f"{threads} threads, batches of {size}: {count / found.seconds:.2f} pictures a "
                f"second, {found.cpu / count:.2f} s of a core each, {far} levels off",
                flush=True,
            )
    with ProcessPoolExecutor(given.processes, get_context("spawn")) as pool:
        warm = [pool.submit(run, 1, 1, 1) for _ in range(given.processes)]
        _ = [one.result() for one in warm]
        for size in given.sizes:
            jobs = [pool.submit(run, size, 1, given.steps) for _ in range(given.processes)]
            rate = sum(count / job.result().seconds for job in jobs)
            print(f"{given.processes} processes, batches of {size}: {rate:.2f} pictures a second")


if __name__ == "__main__":
    main()
