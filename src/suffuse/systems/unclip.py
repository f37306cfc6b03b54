"""unCLIP, or DALL-E 2 (2204.06125): a prior imagines the CLIP embedding of a picture, a decoder
draws the picture, up-samplers enlarge it.

`load_unclip` opens one; `UnCLIP.generate` makes pictures of a text, or variations of a picture.
What is done with embeddings besides is written for `Decoder`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from suffuse.diffusion.grid import Grid
from suffuse.diffusion.noise import Noise
from suffuse.diffusion.samplers import SAMPLERS
from suffuse.diffusion.samplers.common import Step
from suffuse.errors import SuffuseError
from suffuse.systems import boxes, generate
from suffuse.systems.generate import Job
from suffuse.systems.generates import Generates
from suffuse.systems.request import Request
from suffuse.systems.unclip_decoder import Decoder, LatentDecoder, PixelDecoder
from suffuse.systems.unclip_door import NoisedEmbedding
from suffuse.systems.unclip_prior import Embedder, Prior
from suffuse.systems.unclip_upsampler import Enlarger, Upsampler
from suffuse.weights.parts import Defaults, Info
from suffuse.weights.scheduler import Sampling

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Decoder", "Embedder", "LatentDecoder", "PixelDecoder", "Prior", "UnCLIP", "Upsampler"]

STEPS, GUIDANCE = 25, 8.0  # of the decoder, where nobody recommends others: Karlo's
_UNNAMED = Info("unnamed", "made in memory")
_OTHERS = ("loras", "embeddings", "clip_skip", "mask", "rescale", "guidance_interval", "classifier")


@dataclass(frozen=True, eq=False)
class UnCLIP(Generates):
    """The whole stack; it holds no state between calls. It draws a prompt, or varies an `image`.

    prior: None for one that only varies pictures;  upsamplers: one after another. Raises
    SuffuseError where the prior's embeddings are not the decoder's.
    """

    embedder: Embedder
    decoder: PixelDecoder | LatentDecoder
    prior: Prior | None = None
    upsamplers: tuple[Upsampler | Enlarger, ...] = ()
    info: Info = _UNNAMED
    defaults: Defaults = field(default_factory=Defaults)

    def __post_init__(self) -> None:
        made = self.embedder.towers.width if self.prior is None else self.prior.shape[1]
        if made != self.decoder.embedding:
            raise SuffuseError(
                f"{self.info.path or self.info.name}: the prior makes image embeddings of {made} "
                f"numbers, the decoder reads {self.decoder.embedding}: they are of different CLIPs"
            )

    # ---- embeddings ----------------------------------------------------------------------------

    def embed_image(self, picture: Image) -> Tensor:
        """A picture of any size, mode and rotation -> z (1, D), as the decoder reads it."""
        return self.embedder.images([picture])

    def embed_text(self, text: str) -> Tensor:
        """A text -> (1, D), in the space of `embed_image`."""
        return self.embedder.texts([text])

    def imagine(self, text: str, seed: int = 0) -> Tensor:
        """The embedding of a picture that fits the text, (1, D). Raises SuffuseError without a
        prior."""
        return self._prior().imagine([text], [seed])

    def _prior(self) -> Prior:
        if self.prior is None:
            raise SuffuseError(
                f"{self.info.name} has no prior, it makes variations of pictures: name an image"
            )
        return self.prior

    # ---- what it is made of --------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        return self.embedder.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embedder.weight.dtype

    @property
    def sampling(self) -> Sampling:
        """The decoder's."""
        return self.decoder.sampling

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of its pictures, in pixels."""
        return self.upsamplers[-1].size if self.upsamplers else self.decoder.size

    @property
    def factor(self) -> int:
        """What the sides of its pictures are multiples of: all of them, as they have one size."""
        return math.gcd(*self.size)

    @property
    def takes(self) -> list[str]:
        """What a picture can be asked for by: a prompt, an image."""
        made = {"prompt": self.prior, "image": self.embedder.towers.image}
        return [name for name, part in made.items() if part is not None]

    @property
    def networks(self) -> list[nn.Module]:
        """All that hold weights."""
        towers, decoder = self.embedder.towers, self.decoder
        found: list[nn.Module | None] = [towers.text, towers.image]
        if isinstance(decoder, PixelDecoder):
            found += [decoder.parts.unet, decoder.parts.projection]
        else:
            parts = decoder.model.parts
            found += [parts.unet, parts.autoencoder, parts.text]
            if isinstance(decoder.projection, nn.Module):
                found.append(decoder.projection)
        if self.prior is not None:
            found.append(self.prior.parts.network)
        for upsampler in self.upsamplers:
            found += upsampler.networks
        return [net for net in found if net is not None]

    # ---- requests ------------------------------------------------------------------------------

    def resolve(self, request: Request) -> Request:
        """The request as it will run: this model's defaults, a definite seed, checked pictures.

        Raises SuffuseError for what it cannot do, and where there is neither prompt nor image.
        """
        name = self.info.name
        for other in _OTHERS:
            if getattr(request, other):
                raise SuffuseError(f"{other} is not for unCLIP models, and {name} is one")
        boxes.refuse(request.boxes, name)
        if request.image is None:
            self._prior()
            if not request.prompt.strip():
                raise SuffuseError("the prompt is empty: say in a few words what to draw")
        elif self.embedder.towers.image is None:
            raise SuffuseError(f"{name} has no image encoder, so it cannot vary an image")
        request.check()
        width, height = self.size
        for which, side in (("width", width), ("height", height)):
            if getattr(request, which) not in (None, side):
                raise SuffuseError(f"{name} draws {width} x {height} pixels: its {which} is {side}")
        found = request.resolve(
            steps=self.defaults.steps or STEPS,
            guidance=GUIDANCE if self.defaults.guidance is None else self.defaults.guidance,
            sampler=self.sampling.sampler,
            width=width,
            height=height,
        )
        # Nothing of the picture is kept as a start.
        found = generate.counted(replace(found, strength=1.0), self._grid(found))
        if found.steps == 1 and isinstance(self.decoder, PixelDecoder):
            raise SuffuseError(f"steps must be at least 2 for {name}, not 1")
        return found

    def job(self, requests: Sequence[Request]) -> Job:
        """Resolved requests of one picture each, with equal `together.key`s, as one batch."""
        varied = requests[0].image is not None
        grid = self._grid(requests[0])
        stages = [grid] if varied else [self._prior().grid, grid]
        blur = _Blur(self.decoder, varied)
        stages += [upsampler.grid for upsampler in self.upsamplers]
        return Job(
            requests,
            self.decoder.shape if varied else self._prior().shape,
            self.device,
            stages[0],
            lambda: partial(self._cascade, requests, blur),
            blur.known,
            lambda row, x: self._picture(x),
            steps=sum(map(len, stages)),
        )

    def _cascade(
        self, requests: Sequence[Request], blur: _Blur, x: Tensor, grid: Grid, noise: Noise
    ) -> Iterator[Step]:
        """All stages one after another, with one count."""
        steps = self._stages(requests, blur, x, grid, noise)
        yield from (step._replace(i=i) for i, step in enumerate(steps))

    def _stages(
        self, requests: Sequence[Request], blur: _Blur, x: Tensor, grid: Grid, noise: Noise
    ) -> Iterator[Step]:
        images = [request.pictures()[0] for request in requests]
        if images[0] is None:
            prior, unseen = self._prior(), torch.zeros(len(x), *self.decoder.shape, device=x.device)
            told = self.embedder.captions([request.prompt for request in requests])
            null = self.embedder.captions([request.negative for request in requests])
            for step in prior.sample(x, noise, told, null, grid):
                z = step.x
                yield Step(step.i, unseen, unseen)  # there is nothing to be seen yet
            z, grid = prior.chosen(z, told), self._grid(requests[0])
            blur.draw(noise)
            x = noise.shaped(*self.decoder.shape)() * grid.start
        else:
            z = self.embedder.images([image for image in images if image is not None])
        for step in self._decode(requests, blur(z), x, grid, noise):
            yield step
        for upsampler in self.upsamplers:
            low = step.x.clamp(-1, 1)
            for step in upsampler.sample(low, noise):
                yield step

    def _decode(
        self, requests: Sequence[Request], z: Tensor, x: Tensor, grid: Grid, noise: Noise
    ) -> Iterator[Step]:
        sampling = generate.sampling_of(requests[0], self.sampling)
        denoiser = self.decoder.denoiser(
            z,
            [request.prompt for request in requests],
            generate.scales(requests, self.device),
            [request.negative for request in requests],
        )
        drawn = noise.shaped(*self.decoder.shape)
        yield from SAMPLERS[sampling.sampler](denoiser, x, grid, drawn, **sampling.options)

    def _grid(self, request: Request) -> Grid:
        """The levels of the decoder's steps."""
        sampling = generate.sampling_of(request, self.sampling)
        return generate.grid_of(replace(request, image=None), sampling, self.device)

    def _picture(self, x: Tensor) -> Image:
        """What some stage came to, (1, C, H, W) -> picture."""
        if x.shape[1:] == self.decoder.shape:
            return self.decoder.picture(x)
        return generate.to_picture(x[0])


class _Blur:
    """The noise of the embeddings of one batch, for decoders that are made for some.

    It is drawn before the decoder's own: where a picture is varied, as the first of all.
    """

    def __init__(self, decoder: Decoder, first: bool):
        door = decoder.projection if isinstance(decoder, LatentDecoder) else None
        self.door = door if isinstance(door, NoisedEmbedding) else None
        self.first, self.noise = first, torch.zeros(())

    def __call__(self, z: Tensor) -> Tensor:
        """Embeddings (B, D) with their noise."""
        return z if self.door is None else self.door.blurred(z, self.noise)

    def known(self, noise: Noise) -> None:
        """As `Job.known`: there is no picture to start from."""
        if self.first:
            self.draw(noise)

    def draw(self, noise: Noise) -> None:
        if self.door is not None:
            self.noise = noise.shaped(self.door.embedding)()
