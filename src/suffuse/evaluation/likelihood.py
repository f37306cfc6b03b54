"""Bits per dimension of pictures: DDPM's variational bound, a score SDE's exact likelihood."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from suffuse.data.classes import HELD_OUT_DIGITS, DigitsStream
from suffuse.data.stream import Broken
from suffuse.diffusion.bound import prior, vb_terms
from suffuse.diffusion.chain import Chain
from suffuse.diffusion.guidance import bind
from suffuse.diffusion.noise import Noise
from suffuse.errors import SuffuseError
from suffuse.evaluation.pictures import Given
from suffuse.systems.ddpm import DDPM
from suffuse.systems.encoders import NO_CLASS
from suffuse.systems.generate import pixels
from suffuse.systems.score_sde import ScoreSDE


@dataclass(frozen=True)
class Likelihood:
    """Means over the pictures, in bits per dimension (2006.11239, eq. 5); total is their sum.

    prior: L_T, how far the last step is from the noise that sampling starts with
    transitions: the sum of L_1 .. L_{T-1}
    decoder: L_0, the grey levels given the last step
    error: of the mean total, one standard error
    """

    count: int
    steps: int
    total: float
    prior: float
    transitions: float
    decoder: float
    error: float


@dataclass(frozen=True)
class ExactLikelihood:
    """The mean over the pictures in bits per dimension, and one standard error of it."""

    count: int
    total: float
    error: float


def held_out_digits(n: int | None) -> Given:
    """The first n of the digits that training never shows."""
    count = min(n or HELD_OUT_DIGITS, HELD_OUT_DIGITS)

    def batches(size: int) -> Iterator[np.ndarray]:
        for start in range(0, count, size):
            rows = slice(start, min(start + size, count))
            yield DigitsStream("test").batch(0, count, 0, rows).pictures

    return Given(batches, count, {"split": "test"}, Broken())


@torch.inference_mode()
def evaluate_likelihood(
    system: DDPM,
    given: Given,
    batch: int = 32,
    respacing: str | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Likelihood:
    """The bound on the pictures of `given`, of no class; picture i draws its noise from seed + i.

    respacing: of the chain, such as "100"; the bound of a shorter chain is looser
    progress: told how many of how many steps are done

    Raises SuffuseError for a respacing that cannot be read, and pictures of another size.
    """
    chain = system.chain
    if respacing is not None:
        chain = Chain.respaced(chain.schedule, respacing)
    reverse = replace(system.reverse(limit=1.0), chain=chain)
    groups = -(-given.count // batch)
    found: list[Tensor] = []
    for k, pictures in enumerate(given.batches(batch)):
        x0 = pixels(pictures, system.channels).to(system.device)  # (B,C,H,W)
        _check_size(system, x0)
        start = k * batch + seed
        noise = Noise(range(start, start + len(x0)), tuple(x0.shape[1:]), system.device)
        model = bind(system.unet, system.cond(torch.full((len(x0),), NO_CLASS)))
        parts = x0.new_zeros(3, len(x0))  # prior, transitions, decoder
        parts[0] = prior(chain, x0)
        for done, term in enumerate(vb_terms(model, reverse, x0, noise), 1):
            parts[2 if term.t == 0 else 1] += term.vb
            progress(k * chain.T + done, groups * chain.T)
        found.append(parts.double().cpu())
    if not found:
        raise SuffuseError("none of the pictures can be read")
    every = torch.cat(found, dim=1)  # (3, N)
    total, error = _mean(every.sum(0))
    first, transitions, decoder = every.mean(1).tolist()
    return Likelihood(every.shape[1], chain.T, total, first, transitions, decoder, error)


@torch.no_grad()
def evaluate_exact_likelihood(
    system: ScoreSDE,
    given: Given,
    batch: int = 32,
    probes: int = 1,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ExactLikelihood:
    """Of the pictures of `given`, with uniform noise in each grey level (2011.13456, section 4.3).

    Picture i draws its noise and its probes from seed + i; more probes vary less.

    Raises SuffuseError for pictures of another size, and where SciPy is missing.
    """
    found: list[Tensor] = []
    for k, pictures in enumerate(given.batches(batch)):
        x0 = pixels(pictures, system.channels)  # (B,C,H,W)
        _check_size(system, x0)
        start = k * batch + seed
        noise = Noise(range(start, start + len(x0)), tuple(x0.shape[1:]), system.device)
        found.append(system.bits_per_dim(((x0 + 1) * 127.5).round(), noise, probes))
        progress(min((k + 1) * batch, given.count), given.count)
    if not found:
        raise SuffuseError("none of the pictures can be read")
    every = torch.cat(found)  # (N,)
    return ExactLikelihood(len(every), *_mean(every))


def _mean(bits: Tensor) -> tuple[float, float]:
    """The mean of (N,), and one standard error of it."""
    error = bits.std().item() / len(bits) ** 0.5 if len(bits) > 1 else float("nan")
    return bits.mean().item(), error


def _check_size(system: DDPM | ScoreSDE, x0: Tensor) -> None:
    size = tuple(x0.shape[2:])
    if system.model.size is not None and size != system.model.size:
        here, there = (f"{w}x{h}" for h, w in (size, system.model.size))
        raise SuffuseError(f"the pictures are {here} and the model's {there}")
