"""The pictures of docs/ddpm.md, adm.md and score-sde.md, drawn with models of the presets digits.

    pip install "suffuse[docs,sde]"
    python docs/figures.py runs/digits/model [--output docs/images]       # train ddpm
    python docs/figures.py runs/adm/model --classifier runs/judge/model   # train adm, classifier
    python docs/figures.py runs/sde/model                                 # train score-sde

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
from suffuse.systems.generate import pixels, to_tensor
from suffuse.systems.score_sde import ScoreSDE

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


def held_out(system: DDPM | ScoreSDE, count: int) -> Tensor:
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


def judged(system: DDPM, classifier: Path, path: Path) -> None:
    """The same five digits, guided by the gradient of a classifier at the scales of `SCALES`; the
    model itself is told no class."""
    rows = []
    for digit in (1, 3, 5, 7, 9):
        drawn = []
        for scale in SCALES:
            asked = {"classifier": str(classifier), "classifier_scale": scale, "guidance": 0.0}
            drawn += system.generate(str(digit), seed=0, n=2, steps=100, **asked)
        rows.append(torch.cat([to_tensor(picture, 1) for picture in drawn]))
    sheet(rows, path)


def diffused(system: ScoreSDE, path: Path) -> None:
    """A real digit along the SDE; then two draws back along the reverse SDE; then, from the same
    two starts, along the flow without noise."""
    x0, times = held_out(system, 1), torch.linspace(0, 1, FRAMES).clamp_min(1e-5)
    eps = Noise([0], (1, 8, 8))()
    levels = [system.process.sde.at(t) for t in times]
    rows = [torch.cat([level.alpha * x0 + level.sigma * eps for level in levels]).float()]
    for sampler in ("euler_maruyama", "ode"):
        noise = Noise([1, 2], (1, 8, 8))
        start, grid = noise(), system.grid(1000 if sampler != "ode" else FRAMES - 1)
        x = start * grid.start
        states = torch.stack([x, *(s.x.clone() for s in system.sample(x, noise, grid, sampler))])
        shown = torch.linspace(0, len(states) - 1, FRAMES).round().long()
        rows += list(states[shown].transpose(0, 1))
    sheet([row[:, :1] for row in rows], path)


def main() -> None:
    parser = argparse.ArgumentParser(description="The pictures of docs/*.md.")
    parser.add_argument("model", type=Path, help="of a preset digits")
    parser.add_argument("--classifier", type=Path, help="that guides an ADM")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "images")
    options = parser.parse_args()
    system, output = suffuse.load(options.model, device="cpu", dtype="float32"), options.output
    with torch.inference_mode():
        if isinstance(system, ScoreSDE):
            diffused(system, output / "score-sde-film.png")
            return
        assert isinstance(system, DDPM), "not a model of digits"
        if options.classifier is None:
            film(system, output / "ddpm-film.png")
            guidance(system, output / "ddpm-guidance.png")
            bound(system, output / "ddpm-bound.png")
    if options.classifier is not None:
        judged(system, options.classifier, output / "adm-classifier.png")


if __name__ == "__main__":
    main()
