"""unCLIP's decoder (2204.06125, section 2.1): from CLIP image embeddings to pictures.

A decoder denoises pixels or latents under an embedding and a caption. What differs between models
is behind `Decoder`; variations, blends and text diffs are written for that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from suffuse.data.decode import upright
from suffuse.diffusion.cond import Cond
from suffuse.diffusion.grid import Grid, GridSpec, make_grid
from suffuse.diffusion.guidance import cfg
from suffuse.diffusion.prediction import Denoiser, predict
from suffuse.errors import SuffuseError
from suffuse.systems import generate
from suffuse.systems.encoders import TextEncoder
from suffuse.systems.latent import LatentDiffusion
from suffuse.systems.unclip_door import Door, NoisedEmbedding, joined
from suffuse.systems.unclip_prior import Embedder
from suffuse.weights.scheduler import Sampling
from suffuse.weights.unclip import PixelDecoderParts

if TYPE_CHECKING:
    from PIL.Image import Image


class Decoder(Protocol):
    """What pictures are made with, once there is an image embedding."""

    @property
    def embedding(self) -> int:
        """How many numbers an image embedding has, D."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, h, w) of what is denoised, at the decoder's natural size."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of its pictures, in pixels."""
        ...

    @property
    def sampling(self) -> Sampling:
        """How it is sampled where nothing else is asked for."""
        ...

    @property
    def clean(self) -> Decoder:
        """The same for embeddings that get no noise, where it is made for some."""
        ...

    def encode(self, picture: Image) -> Tensor:
        """The x0 of a picture of any size, (1, C, h, w), without randomness."""
        ...

    def picture(self, x0: Tensor) -> Image:
        """(1, C, h, w) -> picture."""
        ...

    def denoiser(
        self,
        z: Tensor,
        texts: Sequence[str],
        guidance: float | Tensor,
        negatives: Sequence[str] | None = None,
    ) -> Denoiser:
        """The denoiser under embeddings z (B, D) and B captions, "" being none.

        z has the length that the folder's own CLIP gives it: 1 where that is ours, about 10 for
        Karlo. guidance: one number, or one for each picture, (B, 1, 1, 1); it leads away from no
        picture, and from the `negatives` or no text. Raises SuffuseError for embeddings of another
        width.
        """
        ...

    def grid(self, steps: int) -> Grid:
        """So many steps from pure noise to a level that is as good as clean, for DDIM and its
        inversion."""
        ...


def both_ends(sampling: Sampling, steps: int, device: torch.device) -> Grid:
    """Steps spread evenly over the whole schedule, both its ends among them."""
    return make_grid(sampling.schedule, steps, GridSpec("linspace"), device)


def fitted(picture: Image, size: tuple[int, int]) -> Image:
    """The middle of a picture, upright and without transparency, at this size."""
    from PIL import Image, ImageOps

    return ImageOps.fit(upright(picture), size, Image.Resampling.LANCZOS)


def check_width(z: Tensor, texts: Sequence[str], width: int) -> None:
    """Raises SuffuseError for embeddings of another width than the decoder's."""
    if z.shape[1:] != (width,):
        raise SuffuseError(
            f"this decoder reads image embeddings of {width} numbers, not {z.shape[-1]}: they are "
            "of another CLIP"
        )
    if len(z) != len(texts):
        raise SuffuseError(f"{len(z)} image embeddings for {len(texts)} captions: give one each")


@dataclass(frozen=True, eq=False)
class LatentDecoder:
    """A latent diffusion model that reads image embeddings beside its captions.

    `projection` brings them in: tokens behind those of the text, and a vector beside the time.
    Raises SuffuseError where it is made for another model.
    """

    model: LatentDiffusion
    projection: Door

    def __post_init__(self) -> None:
        config, door = self.model.parts.unet_config, self.projection
        reads = (config.context if door.context else None, config.vector or config.embedding)
        if reads != (door.context, door.time):
            raise SuffuseError(
                f"{self.model.info.name}: its U-Net reads tokens of {config.context} numbers and a "
                f"vector of {reads[1]}, the image projection makes {door.context} and {door.time}"
            )

    @property
    def embedding(self) -> int:
        return self.projection.embedding

    @property
    def shape(self) -> tuple[int, int, int]:
        parts = self.model.parts
        return (parts.unet_config.in_channels, *parts.latent_size)

    @property
    def size(self) -> tuple[int, int]:
        factor = self.model.parts.autoencoder.config.factor
        rows, columns = self.model.parts.latent_size
        return columns * factor, rows * factor

    @property
    def sampling(self) -> Sampling:
        return self.model.parts.sampling

    @property
    def clean(self) -> LatentDecoder:
        door = self.projection
        return replace(self, projection=door.clean) if isinstance(door, NoisedEmbedding) else self

    @torch.inference_mode()
    def encode(self, picture: Image) -> Tensor:
        parts = self.model.parts
        pixels = generate.to_tensor(fitted(picture, self.size)).to(self.model.device)
        latent = parts.autoencoder.encode(pixels.to(self.model.dtype)).mode.float()
        return (latent - parts.latent_shift) * parts.latent_scale

    def picture(self, x0: Tensor) -> Image:
        return self.model.picture(x0)

    def grid(self, steps: int) -> Grid:
        return both_ends(self.sampling, steps, self.model.device)

    def denoiser(
        self,
        z: Tensor,
        texts: Sequence[str],
        guidance: float | Tensor,
        negatives: Sequence[str] | None = None,
    ) -> Denoiser:
        check_width(z, texts, self.embedding)
        parts, z = self.model.parts, z.to(self.model.device)
        words, others = zip(*self._texts(texts, negatives or [""] * len(texts)))
        said = torch.tensor([bool(text.strip()) for text in texts], device=z.device)
        seen = torch.ones_like(said)
        nothing = self._doors(self.projection.nothing(), len(z))
        cond = joined(Cond.cat(words), self._doors(self.projection(z), len(z)), said, seen)
        null = joined(Cond.cat(others), nothing, ~seen, ~seen)
        raw = cfg(parts.unet, cond, null, guidance)
        return self.sampling.bound(predict(raw, self.sampling.kind))

    def _texts(self, texts: Sequence[str], negatives: Sequence[str]) -> Iterator[tuple[Cond, Cond]]:
        """Each caption and its negative, of as many windows."""
        parts = self.model.parts
        # A text is encoded by itself: among others its numbers could differ in the last digit.
        pair = cache(TextEncoder(parts.tokenizer, parts.text).pair)
        return (pair((text,), (other,)) for text, other in zip(texts, negatives))

    def _doors(
        self, doors: tuple[Tensor | None, Tensor], rows: int
    ) -> tuple[Tensor | None, Tensor]:
        """In the model's dtype, of so many rows."""
        tokens, vector = doors
        vector = vector.to(self.model.dtype).expand(rows, -1)
        return None if tokens is None else tokens.to(vector).expand(rows, -1, -1), vector


@dataclass(frozen=True, eq=False)
class PixelDecoder:
    """Karlo's: the U-Net of GLIDE over pixels, which reads image and caption through both doors."""

    parts: PixelDecoderParts
    embedder: Embedder

    @property
    def embedding(self) -> int:
        return self.parts.projection.image.embedding

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.parts.config.in_channels, *self.parts.size)

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.parts.size
        return width, height

    @property
    def sampling(self) -> Sampling:
        return self.parts.sampling

    @property
    def clean(self) -> PixelDecoder:
        return self

    @property
    def device(self) -> torch.device:
        return self.parts.unet.stem.weight.device

    def encode(self, picture: Image) -> Tensor:
        return generate.to_tensor(fitted(picture, self.size)).to(self.device)

    def picture(self, x0: Tensor) -> Image:
        return generate.to_picture(x0[0])

    def grid(self, steps: int) -> Grid:
        return both_ends(self.sampling, steps, self.device)

    def denoiser(
        self,
        z: Tensor,
        texts: Sequence[str],
        guidance: float | Tensor,
        negatives: Sequence[str] | None = None,
    ) -> Denoiser:
        check_width(z, texts, self.embedding)
        nothing = self.parts.projection.image.null.float()[None].expand(len(z), -1)
        cond = self._cond(z.to(self.device), texts)
        null = self._cond(nothing, negatives or [""] * len(texts))
        sampling = self.sampling
        told = self.parts.config.in_channels if sampling.learned_var else None
        raw = cfg(self.parts.unet, cond, null, guidance, channels=told)
        return sampling.bound(predict(raw, sampling.kind, sampling.learned_var))

    @torch.inference_mode()
    def _cond(self, z: Tensor, texts: Sequence[str]) -> Cond:
        told, projection = self.embedder.captions(texts), self.parts.projection
        tokens, vector = projection(z, told.text, told.states)
        mask = pad(told.mask, (projection.image.count, 0), value=True)
        return Cond(vector=vector, tokens=tokens, mask=mask)
