"""Where on a schedule the steps of a grid lie: spacings of the index, curves of the noise ratio.

A spacing picks `n` of the `T` training steps; a curve instead lays out `n` values of
`s = sigma / alpha`, the noise standard deviation of k-diffusion, between two bounds. Both run from
the noisiest to the cleanest. `grid.py` says which grid uses what.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from suffuse.errors import SuffuseError

Array = NDArray[np.float64]

# ---- spacings of the index ---------------------------------------------------------------------
#
# Each takes the number of steps asked for, the number of training steps in use and in all, and
# returns indices, noisiest first. arXiv 2305.08891, table 2, compares the first three.


def linspace(points: int, used: int, total: int) -> Array:
    """Evenly spaced with both ends, as real numbers."""
    return np.linspace(0.0, used - 1.0, points, dtype=np.float64)[::-1]


def leading(points: int, used: int, total: int) -> Array:
    """Multiples of a whole stride from 0: the noisiest step is left out unless the stride is 1."""
    return np.arange(points, dtype=np.float64)[::-1] * (used // points)


def trailing(points: int, used: int, total: int) -> Array:
    """Multiples of a real stride counted down from the noisiest step, which is always visited."""
    # Where the noisiest steps are left out the stride stays that of the whole schedule, as in
    # diffusers' `scheduling_dpmsolver_multistep.py`; there may then be fewer steps than asked for.
    return np.arange(used, 0, -total / points).round()[:points] - 1


def uniform(points: int, used: int, total: int) -> Array:
    """Every `total // points`-th index: CompVis' own, which gives 8 steps when asked for 7.

    `make_ddim_timesteps` of `ldm/modules/diffusionmodules/util.py`; use it with offset 1.
    """
    return np.arange(0, total, max(total // points, 1))[::-1].astype(float)


def quad(points: int, used: int, total: int) -> Array:
    """Squares of evenly spaced numbers up to 0.8 of the schedule, from the same CompVis file."""
    return (np.linspace(0, np.sqrt(total * 0.8), points) ** 2).astype(int)[::-1].astype(float)


SPACINGS: dict[str, Callable[[int, int, int], Array]] = {
    "leading": leading,
    "trailing": trailing,
    "linspace": linspace,
    "uniform": uniform,
    "quad": quad,
}


def distilled(n: int, taught: int, total: int) -> Array:
    """`n` of the `taught` steps that a latent consistency model was distilled on.

    arXiv 2310.04378; diffusers' `scheduling_lcm.py` picks them so. Raises `SuffuseError` when more
    steps are asked for than were taught.
    """
    if n > taught:
        raise SuffuseError(f"this model was distilled on {taught} steps; {n} are too many")
    all_of_them = np.arange(1, taught + 1)[::-1] * (total // taught) - 1.0
    return all_of_them[np.floor(np.linspace(0, taught, n, endpoint=False)).astype(int)]


# ---- respacing strings -------------------------------------------------------------------------

RESPACINGS = (
    "a number of steps (250), ddim and a number (ddim25), numbers of steps in equal sections of "
    "the schedule with the cleanest first (10,15,20), or fast27"
)


def respacing(spec: str, total: int) -> tuple[int, ...]:
    """The training steps, cleanest first, that a string of guided-diffusion's keeps of `total`.

    - `250` or `10,15,20`: the schedule is cut into that many equal sections, and each keeps so many
      steps, evenly spread with both its ends (improved DDPM, arXiv 2102.09672, section 4).
    - `ddim25`: every k-th step from 0, for the whole k that gives 25.
    - `fast27`: GLIDE's own for its upsampler, `10,10,3,2,2` with the noisiest step moved in by two.

    Raises `SuffuseError` naming the known forms, or the section that is too short.
    """
    text = spec.strip().lower()
    if text == "fast27":
        kept = respacing("10,10,3,2,2", total)
        return (*kept[:-1], total - 3)
    counts = text.removeprefix("ddim").split(",")
    strided = text.startswith("ddim")
    if not all(c.strip().isdecimal() for c in counts) or (strided and len(counts) > 1):
        raise SuffuseError(f"cannot read the respacing {spec!r}; it may be {RESPACINGS}")
    numbers = [int(c) for c in counts]
    if not any(numbers):
        raise SuffuseError(f"the respacing {spec!r} keeps no step; it may be {RESPACINGS}")
    return _strided(numbers[0], total) if strided else _sections(numbers, total)


def _strided(n: int, total: int) -> tuple[int, ...]:
    """`n` multiples of a whole stride from 0."""
    for stride in range(1, total + 1):
        if len(range(0, total, stride)) == n:
            return tuple(range(0, total, stride))
    raise SuffuseError(
        f"no whole stride keeps {n} of {total} steps; the respacing {str(n)!r} spreads them evenly"
        if n <= total
        else f"this model's schedule has {total} steps; {n} are too many"
    )


def _sections(counts: list[int], total: int) -> tuple[int, ...]:
    """So many steps in each equal section, evenly spread from its first to its last."""
    kept: list[int] = []
    start = 0
    for i, count in enumerate(counts):
        size = total // len(counts) + (i < total % len(counts))
        if count > size:
            raise SuffuseError(
                f"a respacing cannot keep {count} of {size} steps (section {i + 1} of "
                f"{len(counts)} in a schedule of {total})"
            )
        stride = (size - 1) / (count - 1) if count > 1 else 1.0
        place = 0.0
        for _ in range(count):  # summed up, not multiplied: halves are rounded as there
            kept.append(start + round(place))
            place += stride
        start += size
    return tuple(kept)


# ---- curves of the noise ratio -----------------------------------------------------------------


def karras(n: int, low: float, high: float, rho: float | None) -> Array:
    """Evenly spaced in `s ** (1 / rho)`, rho = 7 unless given (arXiv 2206.00364, eq. 5)."""
    rho = 7.0 if rho is None else rho
    return np.linspace(high ** (1 / rho), low ** (1 / rho), n) ** rho


def exponential(n: int, low: float, high: float, rho: float | None) -> Array:
    """Evenly spaced in `log s`."""
    return np.exp(np.linspace(np.log(high), np.log(low), n))


def polyexponential(n: int, low: float, high: float, rho: float | None) -> Array:
    """A power `rho`, 1 unless given, of an even spacing in `log s` (k-diffusion)."""
    ramp = np.linspace(1, 0, n) ** (1.0 if rho is None else rho)
    return np.exp(np.log(low) + ramp * (np.log(high) - np.log(low)))


def beta(n: int, low: float, high: float, rho: float | None) -> Array:
    """Quantiles of the Beta(0.6, 0.6) distribution: more steps at both ends (arXiv 2407.12173)."""
    return low + beta_quantile(np.linspace(1, 0, n), 0.6) * (high - low)


CURVES: dict[str, Callable[[int, float, float, float | None], Array]] = {
    "karras": karras,
    "exponential": exponential,
    "polyexponential": polyexponential,
    "beta": beta,
}


def beta_quantile(q: Array, a: float) -> Array:
    """The inverse of the distribution function of Beta(a, a) at `q`, each in [0, 1]."""
    # By symmetry only the lower half is needed, where the power series of the incomplete beta
    # function converges at least as fast as 2**-k.
    k = np.arange(60)
    factors = np.cumprod(np.concatenate([[1.0], (k[1:] - a) / k[1:]])) / (a + k)  # (60,)

    def mass(x: Array) -> Array:
        return x**a * (x[:, None] ** k @ factors)  # (n,)

    half, whole = np.minimum(q, 1 - q), 2 * mass(np.array([0.5]))
    low, high = np.zeros_like(half), np.full_like(half, 0.5)
    for _ in range(60):  # bisection to the last bit of a float64
        middle = (low + high) / 2
        below = mass(middle) < half * whole
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.where(q <= 0.5, high, 1 - high)
