"""Pictures a second from the loader alone, beside what a training step consumes.

    python benchmarks/loader.py [--workers 2] [--seconds 20] [--small] [--skip-sd] [--dtype auto]

Two runs are looked at. The emoji preset's autoencoder, on scenes drawn as they are needed and on
the same scenes as a folder of PNG files. And a U-Net of Stable Diffusion 1.5's size, on a folder of
photo-sized JPEG files brought to 512 x 512; its step is forward, backward and AdamW on latents of
that size, without the autoencoder and the text encoder, which would only slow it down. The goal is
a loader that delivers five times what the step consumes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from sd15 import SMALL, machine, ours

from suffuse.data.emoji import World
from suffuse.data.export import write_scenes
from suffuse.data.loader import batches
from suffuse.data.preprocess import Preprocess
from suffuse.data.sources import open_stream
from suffuse.data.stream import EmojiStream, Examples, Stream
from suffuse.diffusion.cond import Cond
from suffuse.networks.families import SDConfig
from suffuse.systems.latent import choose_device, choose_dtype
from suffuse.training import presets, stages

GOAL = 5.0
PHOTO = 640, 480  # pixels; what web data sets come in, about


def delivered(stream: Stream, size: int, workers: int, seconds: float) -> float:
    """Pictures a second of the loader, once its workers are under way."""
    make: Callable[[int], Examples] = partial(stream.batch, size=size, seed=0)
    arriving = batches(make, 0, 10**9, workers, stream=stream)
    for _ in range(2 * workers + 1):  # what was prepared while workers started does not count
        next(arriving)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        count += len(next(arriving).captions)
    rate = count / (time.perf_counter() - start)
    arriving.close()
    return rate


def consumed(step: Callable[[], None], size: int, seconds: float, device: torch.device) -> float:
    """Pictures a second of the median step, after one that does not count."""

    def timed() -> float:
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    timed()
    times = [timed()]
    while sum(times) < seconds:
        times.append(timed())
    return size / median(times)


def autoencoder_step(size: int) -> Callable[[], None]:
    """A step of stage one on scenes that are ready; the CPU, as in the loop without a GPU."""
    stage = stages.autoencoder_stage(presets.AUTOENCODERS["emoji"], 0)
    optimizer = torch.optim.AdamW(stage.nets.parameters(), lr=1e-4, fused=True)
    batch = stage.batch(0, size, 0)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        stage.loss(batch, torch.Generator().manual_seed(0))[0].backward()
        optimizer.step()

    return step


def unet_step(
    config: SDConfig, size: int, side: int, dtype: torch.dtype, device: torch.device
) -> Callable[[], None]:
    net = ours(config, dtype, device).train().requires_grad_(True)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-5, fused=True)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(size, config.in_channels, side, side, generator=generator)
    tokens = torch.randn(size, 77, config.context, generator=generator)
    x, tokens = x.to(device, dtype), tokens.to(device, dtype)
    x = x.to(memory_format=torch.channels_last)
    label = torch.randint(1000, (size,), generator=generator).to(device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        out = net(x, label, net.prepare(Cond(tokens=tokens)))
        (out - x).square().mean().backward()
        optimizer.step()

    return step


def write_photos(folder: Path, count: int) -> None:
    """JPEG files as large as photos are: smooth shapes under a little noise, about 100 kB each."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(count):
        coarse = rng.integers(0, 256, (12, 16, 3), np.uint8)
        pixels = np.asarray(Image.fromarray(coarse).resize(PHOTO, Image.Resampling.BICUBIC))
        noisy = pixels + rng.normal(0, 12, pixels.shape)
        picture = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        picture.save(folder / f"{i:04}.jpg", quality=90)
        (folder / f"{i:04}.txt").write_text(f"a photo, number {i}")


def report(name: str, rates: dict[str, float], wanted: float) -> None:
    print(f"{name}: the step consumes {wanted:.2f} pictures/s", flush=True)
    for source, rate in rates.items():
        ratio = f"{rate / wanted:8.1f} x  (goal {GOAL})"
        print(f"  {source:34}{rate:10.1f} pictures/s{ratio}", flush=True)


def emoji(place: Path, workers: int, seconds: float, size: int, files: int) -> None:
    scenes = EmojiStream(World(), "both")
    write_scenes(scenes, files, place / "scenes")
    folder = open_stream(str(place / "scenes"), Preprocess(128))
    rates = {
        "scenes drawn as they are needed": delivered(scenes, size, workers, seconds),
        "folder of PNG files": delivered(folder, size, workers, seconds),
    }
    wanted = consumed(autoencoder_step(size), size, seconds, torch.device("cpu"))
    report("emoji autoencoder, 128 x 128", rates, wanted)


def main() -> None:
    parser = argparse.ArgumentParser(description="The loader beside the training step.")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement, about")
    parser.add_argument("--batch", type=int, default=16, help="of the emoji preset")
    parser.add_argument("--sd-batch", type=int, default=1)
    parser.add_argument("--files", type=int, default=512, help="pictures in each folder")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto", choices=["auto", "bfloat16", "float32"])
    parser.add_argument("--skip-sd", action="store_true", help="without the large U-Net")
    parser.add_argument("--small", action="store_true", help="a small U-Net, to try this script")
    options = parser.parse_args()
    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, device)
    print(f"{machine(device)}, {options.workers} workers")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        emoji(place, options.workers, options.seconds, options.batch, options.files)
        if options.skip_sd:
            return
        write_photos(place / "photos", options.files)
        photos = open_stream(str(place / "photos"), Preprocess(512))
        width, height = PHOTO
        kind = f"JPEG files, {width} x {height} to 512"
        rates = {kind: delivered(photos, options.sd_batch, options.workers, options.seconds)}
        config = SMALL if options.small else SDConfig()
        step = unet_step(config, options.sd_batch, 64, dtype, device)
        wanted = consumed(step, options.sd_batch, options.seconds, device)
        report(f"Stable Diffusion 1.5's U-Net, 512 x 512, {dtype}", rates, wanted)


if __name__ == "__main__":
    main()
