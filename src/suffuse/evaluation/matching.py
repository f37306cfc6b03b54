"""Finds what a picture of the emoji world shows, without being told what to look for.

The nearest sprite is the one whose scene is nearest. Let D = picture - background, and let a sprite
with colours P (premultiplied) and opacity A, laid over the background b at some place, change it by
T = P - A b. Laying it there lowers the squared error of the whole picture by

    |D|^2 - |D - T|^2 = 2 <D, T> - |T|^2,

and <D, T> for all places at once is a correlation, <D, P> - <b D, A>, done by Fourier transform.
So every sprite is tried at every size and place: first at a quarter of the resolution, then the
best few again at half of it. Nothing is learned and nothing is tuned to a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from suffuse.data.emoji import SIDE, Thing, World, nearest, sprite
from suffuse.errors import SuffuseError

COARSE, FINE = 4, 2  # pixels of the picture to one of the search
SIZES = tuple(range(24, 113, 8))  # pixels, tried first
NEAR_SIZES = (-4, 0, 4)  # pixels, tried about the best size of each candidate
CANDIDATES = 20  # sprites that are looked at again
_AT_ONCE = 128  # entries of the bank that are correlated together: what the cache holds
_LEAST = (
    0.5  # the smallest gain that is not rounding or noise; the faintest sprite brings more than 1
)
_EDGE = 4  # pixels; the border whose median is taken for the background


@dataclass(frozen=True)
class Found:
    """A thing, the square where it was found, and how much of the picture that explains.

    x, y, size: pixels
    explained: the share of the squared distance from the plain background that it accounts for
    """

    thing: Thing
    x: int
    y: int
    size: int
    explained: float

    @property
    def centre(self) -> tuple[float, float]:
        return self.x + self.size / 2, self.y + self.size / 2


@dataclass(frozen=True, eq=False)
class _Bank:
    """Sprites at chosen sizes, ready to be correlated with a picture at 1/`factor`.

    spectra: (N, 4, S, S // 2 + 1) complex, conjugate, of P (3 channels) and A (1), S = 128 / factor
    ink: (N,) sum of |P|^2;  cross: (N, 3) sum of P A;  opacity: (N,) sum of A^2
    """

    factor: int
    things: tuple[Thing, ...]
    sizes: tuple[int, ...]
    spectra: Tensor
    ink: Tensor
    cross: Tensor
    opacity: Tensor


def background(image: np.ndarray) -> tuple[float, float, float]:
    """The median colour of the border of a (128, 128, 3) uint8 picture, 0..255."""
    rim = np.ones((SIDE, SIDE), bool)
    rim[_EDGE:-_EDGE, _EDGE:-_EDGE] = False
    red, green, blue = np.median(image[rim], axis=0)
    return float(red), float(green), float(blue)


def background_name(image: np.ndarray) -> str:
    """The named colour nearest to the border's."""
    return nearest(background(image))


@torch.inference_mode()
def find(image: np.ndarray, world: World, count: int = 1) -> list[Found]:
    """The `count` things of `world` that best explain a (128, 128, 3) uint8 picture.

    The best explanation is found first; what it covers is then left out, and the next is found in
    the rest. Fewer are returned where nothing more improves on the plain background. Raises
    SuffuseError for a picture of another shape.
    """
    if image.shape != (SIDE, SIDE, 3) or image.dtype != np.uint8:
        raise SuffuseError(
            f"a picture to be matched is ({SIDE}, {SIDE}, 3) uint8, not {image.shape} {image.dtype}"
        )
    ground = torch.tensor(background(image)) / 255  # (3,)
    difference = torch.tensor(image).permute(2, 0, 1).float() / 255 - ground[:, None, None]
    total = float(difference.square().sum())
    found: list[Found] = []
    for _ in range(count):
        best = _best(difference, ground, world, total)
        if best is None:
            break
        found.append(best)
        difference = _without(difference, best)
    return found


def _best(difference: Tensor, ground: Tensor, world: World, total: float) -> Found | None:
    coarse = _bank(world)
    gain, _ = _gains(difference, ground, coarse)
    by_thing = gain.view(len(world.things), len(SIZES))
    top, size = by_thing.max(dim=1)  # (things,)
    order = top.argsort(descending=True)[:CANDIDATES].tolist()
    wanted = [(world.things[i], SIZES[int(size[i])] + step) for i in order for step in NEAR_SIZES]
    fine = _make_bank(tuple(wanted), FINE)
    gain, place = _gains(difference, ground, fine)
    k = int(gain.argmax())
    if float(gain[k]) < _LEAST:
        return None
    y, x = divmod(int(place[k]), SIDE // FINE)
    explained = float(gain[k]) * FINE**2 / max(total, 1e-9)
    return Found(fine.things[k], x * FINE, y * FINE, fine.sizes[k], explained)


def _gains(difference: Tensor, ground: Tensor, bank: _Bank) -> tuple[Tensor, Tensor]:
    """The most that each entry of the bank lowers the squared error, (N,), and where, (N,)."""
    side = SIDE // bank.factor
    small = avg_pool2d(difference, bank.factor)  # (3, S, S)
    tinted = (small * ground[:, None, None]).sum(0, keepdim=True)
    spectrum = torch.fft.rfft2(torch.cat([small, -tinted]))  # (4, S, S // 2 + 1)
    change = bank.ink - 2 * bank.cross @ ground + bank.opacity * ground.square().sum()  # (N,)
    # The transform wraps around: only places that lie within the picture count.
    steps = torch.arange(side)
    outside = steps > side - torch.tensor(bank.sizes)[:, None] // bank.factor  # (N, S)
    gains, places = [], []
    for part in torch.arange(len(bank.sizes)).split(_AT_ONCE):
        product = (bank.spectra[part[0] : part[-1] + 1] * spectrum).sum(1)
        match = torch.fft.irfft2(product, s=(side, side))  # (n, S, S), a place by its corner
        wrong = outside[part, :, None] | outside[part, None, :]
        best = match.masked_fill_(wrong, -torch.inf).flatten(1).max(dim=1)
        gains.append(2 * best.values - change[part])
        places.append(best.indices)
    return torch.cat(gains), torch.cat(places)


def _without(difference: Tensor, found: Found) -> Tensor:
    """The difference with what `found` covers set to zero, a pixel more all around."""
    alpha = torch.from_numpy(sprite(found.thing.look, found.size).alpha[..., 0])
    covered = torch.zeros(1, SIDE, SIDE)
    covered[0, found.y : found.y + found.size, found.x : found.x + found.size] = alpha
    grown = torch.nn.functional.max_pool2d(covered, 5, stride=1, padding=2)
    return difference * (1 - grown)


@lru_cache(maxsize=4)
def _bank(world: World) -> _Bank:
    return _make_bank(tuple((thing, size) for thing in world.things for size in SIZES), COARSE)


def _make_bank(wanted: tuple[tuple[Thing, int], ...], factor: int) -> _Bank:
    side = SIDE // factor
    templates = torch.zeros(len(wanted), 4, side, side)
    for slot, (thing, size) in zip(templates, wanted):
        reduced = _template(thing, size, factor)
        slot[:, : reduced.shape[1], : reduced.shape[2]] = reduced
    colour, alpha = templates[:, :3], templates[:, 3:]
    return _Bank(
        factor,
        tuple(thing for thing, _ in wanted),
        tuple(size for _, size in wanted),
        torch.fft.rfft2(templates).conj().resolve_conj(),
        colour.square().sum((1, 2, 3)),
        (colour * alpha).sum((2, 3)),
        alpha.square().sum((1, 2, 3)),
    )


@lru_cache(maxsize=4096)
def _template(thing: Thing, size: int, factor: int) -> Tensor:
    """Premultiplied colours and opacity, 0..1, reduced by `factor`: (4, size / factor, same)."""
    drawn = sprite(thing.look, size)
    layers = np.concatenate([drawn.premultiplied / 255, drawn.alpha], axis=2)  # (size, size, 4)
    return avg_pool2d(torch.from_numpy(layers).permute(2, 0, 1), factor)
