"""The pictures of docs/ddpm.md, drawn with a model that `suffuse train ddpm` left.

    pip install "suffuse[docs]"
    python docs/figures.py runs/digits/model [--output docs/images]

Matplotlib draws the curves: nobody needs it to make pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch import Tensor

import suffuse
from suffuse.data.classes import digits
from suffuse.diffusion.bound import bits_per_dim
from suffuse.diffusion.grid import make_grid
from suffuse.diffusion.guidance import bind
from suffuse.diffusion.noise import Noise
from suffuse.systems.ddpm import DDPM
from suffuse.systems.generate import pixels

matplotlib.use("Agg")
from matplotlib import pyplot

FRAMES = 11
CELL = 56  # pixels of a picture on a sheet
GAP = 4
SCALES = (0.0, 1.0, 2.0, 4.0, 8.0)


def sheet(rows: list[Tensor], path: Path) -> None:
    """Rows of images (n, 1, H, W), about [-1, 1], each drawn CELL wide, nothing smoothed."""
    height, width = len(rows), max(map(len, rows))
    canvas = Image.new("L", (width * (CELL + GAP) - GAP, height * (CELL + GAP) - GAP), 255)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            levels = ((image[0].clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
            small = Image.fromarray(levels).resize((CELL, CELL), Image.Resampling.NEAREST)
            canvas.paste(small, (j * (CELL + GAP), i * (CELL + GAP)))
    canvas.save(path)


def held_out(system: DDPM, count: int) -> Tensor:
    pictures = np.repeat(digits("test")[0][:count, ..., None], 3, axis=-1)
    return pixels(pictures, system.channels)


def film(system: DDPM, path: Path) -> None:
    """A real digit on its way to noise, then three draws on their way back, at the same levels."""
    x0, noise = held_out(system, 1), Noise([0], (1, 8, 8))
    chain = torch.cat([x0, *system.chain.forward(x0, noise)])  # (T + 1, 1, 8, 8)
    shown = torch.linspace(0, len(chain) - 1, FRAMES).round().long()
    rows = [chain[shown]]
    whole = make_grid(system.sampling.schedule, system.chain.T)  # every step of the chain
    start, none = Noise(range(1, 4), (1, 8, 8)), torch.full((3,), -1)
    x = start()
    steps = system.sample(x, start, whole, system.sampling, (none, none))
    states = torch.stack([x, *(step.x.clone() for step in steps)])  # (T + 1, 3, 1, 8, 8)
    rows += list(states[shown].transpose(0, 1))
    sheet(rows, path)


def guidance(system: DDPM, path: Path) -> None:
    """Five digits, one row each; from the left, the scales of `SCALES`, two draws of each."""
    grid, rows = make_grid(system.sampling.schedule, 100), []
    for digit in (1, 3, 5, 7, 9):
        drawn = []
        for scale in SCALES:
            noise, label = Noise([0, 1], (1, 8, 8)), torch.full((2,), digit)
            pair = (label, torch.full((2,), -1))
            *_, last = system.sample(noise(), noise, grid, system.sampling, pair, scale)
            drawn.append(last.x)
        rows.append(torch.cat(drawn))
    sheet(rows, path)


def bound(system: DDPM, path: Path) -> None:
    """The terms of the bound over t, and their sum up to t."""
    x0, noise = held_out(system, 100), Noise(range(100), (1, 8, 8))
    model = bind(system.unet, system.cond(torch.full((len(x0),), -1)))
    vb = bits_per_dim(model, system.reverse(limit=1.0), x0, noise).vb.mean(0)  # (T,)
    figure, (terms, sums) = pyplot.subplots(1, 2, figsize=(9, 3.2), constrained_layout=True)
    terms.semilogy(vb, linewidth=0.8)
    terms.set(xlabel="t", ylabel="$L_t$, bits/dim", title="each term")
    sums.plot(vb.cumsum(0))
    sums.set(xlabel="t", title=f"their sum up to t, {float(vb.sum()):.2f} in all")
    for axes in (terms, sums):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description="The pictures of docs/ddpm.md.")
    parser.add_argument("model", type=Path, help="of the preset digits")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "images")
    options = parser.parse_args()
    system = suffuse.load(options.model, device="cpu", dtype="float32")
    assert isinstance(system, DDPM), "not a DDPM"
    film(system, options.output / "ddpm-film.png")
    guidance(system, options.output / "ddpm-guidance.png")
    bound(system, options.output / "ddpm-bound.png")


if __name__ == "__main__":
    main()
