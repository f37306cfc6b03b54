"""A network that needs no weights, sampled by diffusers' own loop and by ours."""

from __future__ import annotations

import math
import warnings
from typing import Any

import diffusers
import torch
from torch import Tensor

from suffuse.diffusion.grid import make_grid
from suffuse.diffusion.prediction import diffuse, predict
from suffuse.diffusion.samplers import SAMPLERS
from suffuse.diffusion.schedule import Level
from suffuse.weights.scheduler import Sampling

SHAPE = (2, 4, 3, 5)

STABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def network(x: Tensor, t: float | Tensor) -> Tensor:
    """Smooth, bounded, different for every label, mixing pixels: (B, C, H, W) to the same."""
    t = torch.as_tensor(t, dtype=torch.float64)
    scale, shift = (0.6 + 0.4 * t / 1000).item(), (0.3 * torch.sin(t / 170)).item()
    return scale * torch.tanh(0.8 * x + shift) + 0.05 * x.flip(-1)


def start(seed: int = 0) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


IMAGE = torch.tanh(start(7))


def their_scheduler(config: dict[str, Any]) -> Any:
    cls = getattr(diffusers, config["_class_name"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cls.from_config(dict(config))


def theirs(
    config: dict[str, Any], steps: int, net: Any = network, strength: float | None = None
) -> Tensor:
    """The loop of every pipeline of diffusers; with `strength`, of image-to-image from `IMAGE`."""
    scheduler = their_scheduler(config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(1)
    takes_generator = "generator" in scheduler.step.__code__.co_varnames
    timesteps = scheduler.timesteps
    flow = hasattr(scheduler, "scale_noise")  # other names, and no scaling: see Stable Diffusion 3
    if strength is None:
        x = start() * (1 if flow else scheduler.init_noise_sigma)
    elif flow:
        first = int(max(steps - steps * strength, 0)) * scheduler.order
        timesteps = timesteps[first:]
        x = scheduler.scale_noise(IMAGE, timesteps[:1], start())
    else:
        first = (steps - int(steps * strength)) * scheduler.order
        timesteps = timesteps[first:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)
        x = scheduler.add_noise(IMAGE, start(), timesteps[:1])
    for t in timesteps:
        out = net(x if flow else scheduler.scale_model_input(x, t), t)
        more = {"generator": generator} if takes_generator else {}
        x = scheduler.step(out, t, x, **more).prev_sample
    return x


def twofold(x: Tensor, t: float | Tensor) -> Tensor:
    """`network` with a second half that says how uncertain it is, in [-1, 1]: (B, 2C, H, W)."""
    return torch.cat([network(x, t), torch.tanh(x.flip(1))], dim=1)


def ours(
    sampling: Sampling, steps: int, net: Any = network, strength: float | None = None
) -> Tensor:
    grid = make_grid(sampling.schedule, steps, sampling.grid)
    if strength is not None:
        grid = grid.tail(strength)
    generator = torch.Generator().manual_seed(1)

    def model(x: Tensor, level: Level) -> Tensor:
        return net(x, level.label)

    denoiser = sampling.bound(predict(model, sampling.kind, sampling.learned_var))
    x = start() * grid.start if strength is None else diffuse(IMAGE, start(), grid.level(0))
    noise = lambda: torch.randn(SHAPE, generator=generator)  # noqa: E731
    *_, last = SAMPLERS[sampling.sampler](denoiser, x, grid, noise, **sampling.options)
    return last.x


def apart(got: Tensor, want: Tensor) -> float:
    """The largest difference, relative to the largest number."""
    assert got.shape == want.shape and bool(torch.isfinite(want).all())
    difference = (got - want).abs().max() / want.abs().max()
    return math.inf if torch.isnan(difference) else float(difference)
