"""unCLIP's three manipulations of pictures (Ramesh et al. 2022, arXiv 2204.06125, section 3).

A picture is two things to a decoder: z, its CLIP embedding, which says what it shows, and x_T, the
noise of which the decoder makes it under z, which holds everything else. *Variations* keep both
and draw fresh noise on the way, *blends* walk from both of one picture to both of another, *text
diffs* turn z towards the difference of two captions and keep the noise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import normalize

from suffuse.diffusion.noise import Noise, slerp
from suffuse.diffusion.samplers import SAMPLERS, ddim_inverse
from suffuse.errors import SuffuseError
from suffuse.systems.generate import to_picture
from suffuse.systems.manipulation import AMOUNT, ETA, FRAMES, How, Manipulation, N, evenly
from suffuse.systems.request import open_picture
from suffuse.systems.unclip_decoder import Decoder, fitted

if TYPE_CHECKING:
    from PIL.Image import Image

    from suffuse.systems.request import Picture
    from suffuse.systems.unclip_upsampler import Enlarger, Upsampler

SAME = 1e-6  # length of a difference of captions that is none
NEAR = 1e-3  # see `ddim_inverse`
HOW = How()
Tick = Callable[[], None]


class System(Protocol):
    """What manipulates: `UnCLIP`, and whatever else has these."""

    @property
    def decoder(self) -> Decoder: ...
    @property
    def upsamplers(self) -> tuple[Upsampler | Enlarger, ...]: ...
    def embed_image(self, picture: Image) -> Tensor: ...  # (1, D)
    def embed_text(self, text: str) -> Tensor: ...  # (1, D)


class Pair(NamedTuple):
    """B pictures as what a decoder makes them of."""

    z: Tensor  # (B, D)
    noise: Tensor  # (B, C, h, w), where DDIM begins


def _quiet() -> None: ...


# ---- what people call ----------------------------------------------------------------------------


def vary(
    system: System,
    image: Picture,
    n: int = N,
    eta: float = ETA,
    *,
    seed: int | None = None,
    how: How = HOW,
) -> Iterator[Image]:
    """`n` pictures like `image`: nearly itself with `eta` near 0, freer with more.

    Picture i uses seed + i. Raises SuffuseError.
    """
    yield from draw(system, Manipulation("vary", image, n=n, eta=eta, seed=seed, how=how))


def blend(
    system: System,
    image: Picture,
    other: Picture,
    frames: int = FRAMES,
    *,
    seed: int | None = None,
    how: How = HOW,
) -> Iterator[Image]:
    """`frames` pictures from `image` to `other`, both ends among them.

    Raises SuffuseError.
    """
    shares = evenly(frames, 1.0)
    yield from draw(system, Manipulation("blend", image, other, shares=shares, seed=seed, how=how))


def edit(
    system: System,
    image: Picture,
    before: str,
    after: str,
    amount: float = AMOUNT,
    *,
    how: How = HOW,
) -> Image:
    """`image` changed as `after` differs from `before`, which says what it shows.

    amount: 0 is the picture itself; 0.25 to 0.5 is usual. Raises SuffuseError.
    """
    asked = Manipulation("edit", image, before=before, after=after, shares=(amount,), how=how)
    return next(draw(system, asked))


def draw(system: System, asked: Manipulation, tick: Tick = _quiet) -> Iterator[Image]:
    """The pictures of a manipulation, each as it is done; `tick` is called `work` times."""
    asked = asked.resolve()
    move = {"vary": _vary, "blend": _blend, "edit": _edit}[asked.kind]
    yield from move(system, asked, tick)


def work(asked: Manipulation) -> int:
    """How many steps a manipulation takes, towards noise and back."""
    ends = 0 if asked.kind == "blend" and asked.seed is not None else len(asked.sources)
    return asked.how.steps * (ends + asked.count)


def note_of(source: Picture, size: tuple[int, int]) -> str | None:
    """A line about what is not seen of a picture, None where all of it is. Raises SuffuseError."""
    width, height = open_picture(source, "image", "RGB").size
    if (width, height) == size:
        return None
    name = f"'{fspath(source)}'" if isinstance(source, (str, PathLike)) else "the image"
    what = "it" if width * size[1] == height * size[0] else "its middle"
    return f"{name} is {width} x {height} pixels: {what} is taken at {size[0]} x {size[1]}"


# ---- the two ways --------------------------------------------------------------------------------


@torch.inference_mode()
def inverted(
    system: System, pictures: Sequence[Image], how: How = HOW, tick: Tick = _quiet
) -> Pair:
    """Pictures of the decoder's size -> z by CLIP, and x_T by DDIM's inverse under it."""
    z = torch.cat([system.embed_image(picture) for picture in pictures])
    x = torch.cat([system.decoder.encode(picture) for picture in pictures])
    denoiser = system.decoder.clean.denoiser(z, [""] * len(z), how.guidance)
    for step in ddim_inverse(denoiser, x, system.decoder.grid(how.steps), how.rounds, NEAR):
        x = step.x
        tick()
    return Pair(z, x)


@torch.inference_mode()
def decoded(
    system: System,
    pair: Pair,
    how: How = HOW,
    *,
    eta: float = 0.0,
    seeds: Sequence[int] | None = None,
    tick: Tick = _quiet,
) -> list[Image]:
    """The other way, by DDIM, and through the upsamplers where there are some.

    seeds: one a picture; of the noise that `eta` above 0 draws, and of upsamplers; else 0
    """
    decoder, x = system.decoder, pair.noise
    noise = Noise(seeds or [0] * len(x), tuple(x.shape[1:]), x.device, x.dtype)
    denoiser = decoder.clean.denoiser(pair.z, [""] * len(x), how.guidance)
    for step in SAMPLERS["ddim"](denoiser, x, decoder.grid(how.steps), noise, eta=eta):
        x = step.x
        tick()
    if not system.upsamplers:
        return [decoder.picture(row[None]) for row in x]
    for upsampler in system.upsamplers:
        x = upsampler.upscale(x.clamp(-1, 1), list(noise.seeds))
    return [to_picture(row) for row in x]


def difference(system: System, before: str, after: str) -> Tensor:
    """From one caption to another, (1, D) of length 1. Raises SuffuseError where they agree."""
    found = system.embed_text(after) - system.embed_text(before)
    if float(found.norm()) < SAME:
        raise SuffuseError(f"CLIP sees no difference between {before!r} and {after!r}")
    return normalize(found)


def turned(z: Tensor, direction: Tensor, share: float) -> Tensor:
    """z (B, D) turned by a share of the way to a direction, at its own length (section 3.3)."""
    return slerp(z, direction.to(z) * z.norm(dim=1, keepdim=True), share)


# ---- the three moves -----------------------------------------------------------------------------


def _fitted(system: System, source: Picture) -> Image:
    return fitted(open_picture(source, "image", "RGB"), system.decoder.size)


def _vary(system: System, asked: Manipulation, tick: Tick) -> Iterator[Image]:
    pair = inverted(system, [_fitted(system, asked.image)], asked.how, tick)
    for i in range(asked.n):
        seeds = [(asked.seed or 0) + i]
        yield from decoded(system, pair, asked.how, eta=asked.eta, seeds=seeds, tick=tick)


def _blend(system: System, asked: Manipulation, tick: Tick) -> Iterator[Image]:
    one, other = (_end(system, source, asked, tick) for source in asked.sources)
    for share in asked.shares:
        between = Pair(slerp(one.z, other.z, share), slerp(one.noise, other.noise, share))
        yield from decoded(system, between, asked.how, tick=tick)


def _end(system: System, source: Picture, asked: Manipulation, tick: Tick) -> Pair:
    """An end of a blend, with its own noise or, as section 3.2 also has it, that of a seed."""
    picture = _fitted(system, source)
    if asked.seed is None:
        return inverted(system, [picture], asked.how, tick)
    start = system.decoder.grid(asked.how.steps).start
    z = system.embed_image(picture)
    return Pair(z, Noise([asked.seed], system.decoder.shape, z.device)() * start)


def _edit(system: System, asked: Manipulation, tick: Tick) -> Iterator[Image]:
    direction = difference(system, asked.before, asked.after)
    pair = inverted(system, [_fitted(system, asked.image)], asked.how, tick)
    for share in asked.shares:
        changed = pair._replace(z=turned(pair.z, direction, share))
        yield from decoded(system, changed, asked.how, tick=tick)
