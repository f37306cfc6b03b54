"""unCLIP's decoder (2204.06125, section 2.1): from CLIP image embeddings to pictures.

A decoder denoises pixels or latents under an embedding and a caption. What differs between models
is behind `Decoder`; variations, blends and text diffs are written for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from suffuse.diffusion.cond import Cond
from suffuse.diffusion.grid import Grid, GridSpec, make_grid
from suffuse.diffusion.guidance import cfg
from suffuse.diffusion.prediction import Denoiser, predict
from suffuse.errors import SuffuseError
from suffuse.networks.unclip import ImageProjection
from suffuse.systems import generate
from suffuse.systems.encoders import TextEncoder
from suffuse.systems.latent import LatentDiffusion
from suffuse.systems.request import open_picture
from suffuse.weights.scheduler import Sampling

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

    def encode(self, picture: Image) -> Tensor:
        """The x0 of a picture of any size, (1, C, h, w), without randomness."""
        ...

    def picture(self, x0: Tensor) -> Image:
        """(1, C, h, w) -> picture."""
        ...

    def denoiser(self, z: Tensor, texts: Sequence[str], guidance: float | Tensor) -> Denoiser:
        """The denoiser under embeddings z (B, D) and B captions, "" being none.

        z has the length that the folder's own CLIP gives it: 1 where that is ours, about 10 for
        Karlo. guidance: one number, or one for each picture, (B, 1, 1, 1). Raises SuffuseError for
        embeddings of another width.
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

    upright = open_picture(picture, "image", "RGB")
    return ImageOps.fit(upright, size, Image.Resampling.LANCZOS)


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
    """

    model: LatentDiffusion
    projection: ImageProjection

    def __post_init__(self) -> None:
        config = self.model.parts.unet_config
        made = (self.projection.context, self.projection.time)
        if made != (config.context, config.embedding):
            raise SuffuseError(
                f"{self.model.info.name}: its U-Net reads tokens of {config.context} numbers and a "
                f"vector of {config.embedding}, the image projection makes {made[0]} and {made[1]}"
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

    def denoiser(self, z: Tensor, texts: Sequence[str], guidance: float | Tensor) -> Denoiser:
        check_width(z, texts, self.embedding)
        cond = self.cond(z, texts)
        null = self.cond(self.projection.null[None], [""])
        raw = cfg(self.model.parts.unet, cond, null, guidance)
        return self.sampling.bound(predict(raw, self.sampling.kind))

    def cond(self, z: Tensor, texts: Sequence[str]) -> Cond:
        """Both doors, filled by embeddings (B, D) and B captions."""
        parts = self.model.parts
        # A text is encoded by itself: among others its numbers could differ in the last digit.
        encode = cache(lambda text: TextEncoder(parts.tokenizer, parts.text).encode([text]))
        tokens, vector = self.projection(z.to(self.model.device))
        words = Cond.cat([encode(text) for text in texts])
        return replace(words.merge(Cond(tokens=tokens)), vector=vector)
