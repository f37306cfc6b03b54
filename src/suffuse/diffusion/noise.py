"""Where randomness in sampling comes from: one generator an image.

Image i of a batch is the same image alone or in any batch, also for samplers that draw at every
step. Numbers are drawn on the CPU, so that a seed means the same picture on every machine.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from suffuse.errors import SuffuseError

_PARALLEL = 1 - 1e-6  # cosine above which two noises are one direction
_MAX_SEED = 2**64 - 1  # what torch.Generator takes


class Noise:
    """Standard normal draws (B, C, H, W): the first call is the initial latent, later calls are the
    noise of the steps.

    Image i draws from a CPU `torch.Generator` seeded with `seeds[i]`, in float32, and so gets the
    numbers that diffusers draws with a list of such generators. (torch seeds its CPU generator with
    the low 32 bits, so seeds 2**32 apart draw the same numbers, there as here.)

    Raises `SuffuseError` for an empty list or a seed outside 0..2**64 - 1.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        shape: Sequence[int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """`shape` is (C, H, W), that of one image; draws come back on `device` in `dtype`."""
        if not seeds:
            raise SuffuseError("noise needs at least one seed")
        for seed in seeds:
            if not 0 <= seed <= _MAX_SEED:
                raise SuffuseError(f"a seed must be between 0 and 2**64 - 1, not {seed}")
        self.seeds = tuple(seeds)
        self.shape = tuple(shape)
        self.device = torch.device(device)
        self.dtype = dtype
        self._generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]

    def __call__(self) -> Tensor:
        """The next draw of every image, (B, C, H, W)."""
        draws = [torch.randn(self.shape, generator=g) for g in self._generators]
        return torch.stack(draws).to(self.device, self.dtype)  # (B,C,H,W)

    def shaped(self, *shape: int) -> Noise:
        """The same generators for draws of another shape: what either draws, the other will not."""
        twin = copy.copy(self)
        twin.shape = shape
        return twin


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """The noise at `share` of the way from `a` to `b`, (B, C, H, W), along the great circle.

    A straight line would leave the shell on which Gaussian noise lies, and its middle would be too
    quiet for the network (arXiv 2010.02502, appendix D.5, eq. 67). Image by image; parallel and
    opposite noises, through which no one circle goes, are mixed on the line.
    """
    flat_a, flat_b = a.flatten(1), b.flatten(1)
    cosine = torch.nn.functional.cosine_similarity(flat_a, flat_b).clamp(-1, 1)  # (B,)
    angle = cosine.acos()
    straight = cosine.abs() > _PARALLEL
    sine = torch.where(straight, torch.ones_like(angle), angle.sin())
    near = torch.where(straight, 1 - share, ((1 - share) * angle).sin() / sine)
    far = torch.where(straight, share, (share * angle).sin() / sine)
    shape = (-1, *[1] * (a.dim() - 1))
    return near.view(shape) * a + far.view(shape) * b
