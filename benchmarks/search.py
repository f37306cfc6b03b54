"""Search in stored embeddings on one core, beside numpy; and what limits indexing.

    python benchmarks/search.py [--embeddings 100000] [--pictures 200] [--clip SOURCE] [--threads 2]

The first part searches an index of random points as long as CLIP ViT-B/32's and ViT-L/14's, read
from disk as `suffuse search` reads its own. The second indexes a folder of photographs' size (640 x
480, JPEG) and takes the same work apart: reading and preparing alone, the picture tower alone, and
both as the index does it. Told is processor time, which other programs on the machine disturb less,
and the time on the clock, which is the same where nothing else runs. Without --clip the tower is
ViT-B/32 with random weights.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from sd15 import machine

from suffuse.data.decode import open_file
from suffuse.networks import clip as networks
from suffuse.networks.clip import ClipText, ClipTextConfig
from suffuse.networks.clip_vision import ClipVision, ClipVisionConfig
from suffuse.systems.clip import Clip, load_clip
from suffuse.systems.looking import _ahead
from suffuse.systems.search import Index, require_faiss
from suffuse.text.openai import openai_clip_tokenizer
from suffuse.weights.clip import ClipParts
from suffuse.weights.clip_input import ClipInput

QUESTIONS = 51


def random_clip(width: int) -> Clip:
    """ViT-B/32 with random weights, and embeddings of so many numbers."""
    words = ClipTextConfig(width=512, layers=1, heads=8, intermediate=512, projection=width)
    sight = ClipVisionConfig(projection=width)
    model = networks.Clip(ClipText(words), ClipVision(sight)).eval()
    return Clip(ClipParts(model, openai_clip_tokenizer(), ClipInput()))


def points(count: int, width: int, seed: int) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def searching(count: int, width: int, folder: Path) -> None:
    """Milliseconds of a question, without embedding it."""
    clip = random_clip(width)
    made = Index(folder, clip, folder / "index")
    made.stamps = {f"{i:07d}.jpg": (1, i) for i in range(count)}
    made.vectors = points(count, width, 0)
    made.save()
    begun = time.perf_counter()
    index = Index.open(folder, clip, folder / "index")
    index.search(torch.from_numpy(points(1, width, 1))[0])
    loaded = time.perf_counter() - begun
    ours, theirs, waited = [], [], []
    for question in points(QUESTIONS, width, 2):
        begun = time.process_time()
        wall = time.perf_counter()
        hits = index.search(torch.from_numpy(question), 10)
        waited.append(time.perf_counter() - wall)
        ours.append(time.process_time() - begun)
        begun = time.process_time()
        scores = index.vectors @ question
        best = np.argpartition(-scores, 10)[:10]
        order = best[np.argsort(-scores[best])]
        theirs.append(time.process_time() - begun)
        assert [hit.name for hit in hits] == [made_name(i) for i in order]
    one, other, all_told = (1000 * median(times) for times in (ours, theirs, waited))
    print(
        f"{count} x {width}: {one:.1f} ms of the core ({all_told:.1f} on the clock), numpy "
        f"{other:.1f} ms, {one / other:.2f} of its time; opened from disk in {loaded:.2f} s"
    )


def made_name(i: int) -> str:
    return f"{i:07d}.jpg"


def indexing(count: int, clip: Clip, folder: Path) -> None:
    """Pictures a second, each part alone and together."""
    rng = np.random.default_rng(0)
    for i in range(count):
        small = Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8))
        small.resize((640, 480), Image.Resampling.BICUBIC).save(folder / f"{i}.jpg", quality=90)
    names = sorted(folder.glob("*.jpg"))
    clip.embed(torch.stack([clip.prepare(open_file(names[0]))] * 32))
    begun = time.perf_counter()
    ready = list(_ahead(lambda i: clip.prepare(open_file(names[i])), range(count), 64))
    read = count / (time.perf_counter() - begun)
    begun = time.perf_counter()
    for group in torch.stack(ready).split(32):
        clip.embed(group)
    tower = count / (time.perf_counter() - begun)
    begun = time.perf_counter()
    Index.open(folder, clip).update()
    both = count / (time.perf_counter() - begun)
    print(
        f"indexing with {clip.info.name}: {both:.1f} pictures/s; the tower alone {tower:.1f}, "
        f"reading alone {read:.1f}: {both / tower:.2f} of what the tower allows"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--embeddings", type=int, default=100_000)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clip", help="else ViT-B/32's shape")
    asked = parser.parse_args()
    print(f"{machine(torch.device('cpu'))}, faiss {require_faiss().__version__}")
    torch.set_num_threads(1)
    require_faiss().omp_set_num_threads(1)
    for width in (512, 768):
        with tempfile.TemporaryDirectory() as place:
            searching(asked.embeddings, width, Path(place))
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as place:
        clip = random_clip(512) if asked.clip is None else load_clip(asked.clip, device="cpu")
        indexing(asked.pictures, clip, Path(place))


if __name__ == "__main__":
    main()
