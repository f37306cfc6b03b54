"""Latent diffusion (2112.10752): text, a U-Net on latents, an autoencoder. Stable Diffusion is one.

`load` opens a checkpoint; `LatentDiffusion.generate` makes pictures, `stream` the same step by
step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from os import PathLike
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from suffuse.diffusion.cond import Cond
from suffuse.diffusion.grid import Grid
from suffuse.diffusion.guidance import cfg
from suffuse.diffusion.noise import Noise
from suffuse.diffusion.prediction import predict
from suffuse.diffusion.samplers import SAMPLERS
from suffuse.errors import SuffuseError
from suffuse.networks.packing import pack
from suffuse.systems import boxes, generate
from suffuse.systems.additions import LoraFile, embedding, lora
from suffuse.systems.encoders import TextEncoder
from suffuse.systems.generate import Job, Known, Steps
from suffuse.systems.generates import Generates
from suffuse.systems.request import Progress, Request
from suffuse.weights.embedding import with_embeddings
from suffuse.weights.load import open_parts
from suffuse.weights.lora import merge_loras
from suffuse.weights.parts import Hints, Info, Parts
from suffuse.weights.scheduler import Sampling

if TYPE_CHECKING:
    from PIL.Image import Image

    from suffuse.systems.clip import Clip


def load(
    path: str | PathLike[str] | None = None,
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
    *,
    loras: Iterable[Any] = (),
    embeddings: Iterable[str | PathLike[str]] = (),
    **hints: Any,
) -> LatentDiffusion:
    """Opens a model: the bundled one without a path, a diffusers folder, a single file, a Hub name.

    `device` is a torch device or "auto" (CUDA, then MPS, then the CPU); `dtype` is "float32",
    "float16", "bfloat16" or "auto" (half precision where the processor has units for it). `hints`
    say what a file cannot: see `weights.parts.Hints`. `loras` ("FILE" or "FILE:SCALE") are merged
    into the model and `embeddings` are files of words that it learns; see `Request`. The networks
    come packed for inference; `weights.load.open_parts` gives plain ones, to train or to save.
    Raises SuffuseError.
    """
    place = choose_device(device)
    chosen = choose_dtype(dtype, place)
    again = partial(open_parts, path, device=place, dtype=chosen, hints=Hints(**hints))
    return _opened(again, tuple(map(lora, loras)), tuple(map(embedding, embeddings)))


def _opened(
    again: Callable[[], Parts], loras: tuple[LoraFile, ...], embeddings: tuple[str, ...]
) -> LatentDiffusion:
    """A model with what is laid on top of it, packed for inference."""
    parts = with_embeddings(again(), embeddings)
    merge_loras(parts, loras)
    unet, autoencoder = pack(parts.unet), pack(parts.autoencoder)
    packed = replace(parts, unet=unet, autoencoder=autoencoder)
    return LatentDiffusion(packed, loras, embeddings, again)


@dataclass(frozen=True, eq=False)
class LatentDiffusion(Generates):
    """A text-to-image system made of `parts`; it holds no state between calls.

    loras, embeddings: what is in them already
    again: opens the model without these; None for one that was made in memory
    """

    parts: Parts
    loras: tuple[LoraFile, ...] = ()
    embeddings: tuple[str, ...] = ()
    again: Callable[[], Parts] | None = None

    @property
    def info(self) -> Info:
        """Name, format, files and hash of the checkpoint."""
        return self.parts.info

    @property
    def device(self) -> torch.device:
        return self.parts.unet.stem.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.parts.unet.stem.weight.dtype

    def suited(self, request: Request) -> LatentDiffusion:
        """This model with the LoRAs and learned words that the request asks for.

        Itself if it has them, else the model opened anew: whoever makes many pictures with the
        same ones keeps what this returns. Raises SuffuseError.
        """
        loras = self.loras if request.loras is None else request.loras
        embeddings = self.embeddings if request.embeddings is None else request.embeddings
        if (loras, embeddings) == (self.loras, self.embeddings):
            return self
        if self.again is None:
            raise SuffuseError("nothing can be added to a model made in memory: save and load it")
        return _opened(self.again, loras, embeddings)

    def resolve(self, request: Request) -> Request:
        """The request as it will run: this model's defaults, a definite seed, checked pictures.

        Raises SuffuseError for a size that is not a whole number of latent cells, an unknown
        sampler, or pictures that do not fit.
        """
        parts, factor = self.parts, self.parts.autoencoder.config.factor
        if request.classifier is not None:
            raise SuffuseError(f"classifier is for models of pixels; {self.info.name} is none")
        boxes.refuse(request.boxes, self.info.name)
        if request.image is None and not request.prompt.strip():
            raise SuffuseError("the prompt is empty: say in a few words what to draw")
        image, _ = request.check().pictures()
        rows, columns = parts.latent_size
        width, height = generate.natural_size(image, (rows * factor, columns * factor), factor)
        request = request.resolve(
            steps=parts.defaults.steps or 30,
            guidance=7.5 if parts.defaults.guidance is None else parts.defaults.guidance,
            sampler=parts.sampling.sampler,
            width=width,
            height=height,
        )
        assert request.width and request.height
        generate.check_size(request.width, request.height, factor)
        request = generate.counted(request, self._grid(request))
        self._text(request)
        if request.loras is None and self.loras:
            request = replace(request, loras=self.loras)
        if request.embeddings is None and self.embeddings:
            request = replace(request, embeddings=self.embeddings)
        return request

    def stream(
        self,
        request: Request,
        *,
        noise: Tensor | None = None,
        together: int = 1,
        judge: Clip | None = None,
    ) -> Iterator[Progress]:
        """The same, step by step, each with a preview on demand; image i uses seed + i."""
        suited = self.suited(request)
        resolved = suited.resolve(request)
        drawn = generate.stream(suited, [resolved], noise, together, judge)
        yield from (step for _, step in drawn)

    def job(self, requests: Sequence[Request]) -> Job:
        """Resolved requests of one picture each, with equal `together.key`s, as one batch."""
        one = requests[0]
        assert one.width and one.height
        parts, factor = self.parts, self.parts.autoencoder.config.factor
        return Job(
            requests,
            (parts.unet_config.in_channels, one.height // factor, one.width // factor),
            self.device,
            self._grid(one),
            partial(self._sampler, requests),
            partial(self._known, requests),
            lambda row, latent: self.picture(latent),
        )

    def windows(self, request: Request) -> int:
        """How many windows of tokens the prompt or the negative takes, whichever is longer."""
        found = self._text(request).ids([request.prompt, request.negative])
        return found.shape[1]

    def _sampling(self, request: Request) -> Sampling:
        return generate.sampling_of(request, self.parts.sampling)

    def _grid(self, request: Request) -> Grid:
        return generate.grid_of(request, self._sampling(request), self.device)

    def _text(self, request: Request) -> TextEncoder:
        return TextEncoder(self.parts.tokenizer, self.parts.text, request.clip_skip)

    def _sampler(self, requests: Sequence[Request]) -> Steps:
        """The requests' sampler with the guided denoiser bound to it."""
        one = requests[0]
        sampling = self._sampling(one)
        # A text is encoded by itself: among others its numbers could differ in the last digit.
        pair = cache(self._text(one).pair)
        pairs = [pair((request.prompt,), (request.negative,)) for request in requests]
        cond, null = map(Cond.cat, zip(*pairs))
        scale = generate.scales(requests, self.device)
        interval = one.guidance_interval
        raw = cfg(self.parts.unet, cond, null, scale, one.rescale, interval=interval)
        denoiser = sampling.bound(predict(raw, sampling.kind))
        return partial(SAMPLERS[sampling.sampler], denoiser, **sampling.options)

    def _known(self, requests: Sequence[Request], noise: Noise) -> Known | None:
        """The requests' pictures in latent space, drawn from the autoencoder's Gaussian."""
        found = generate.given(requests, self.parts.autoencoder.config.factor)
        if found is None:
            return None
        parts, drawn = self.parts, noise().to(self.dtype)
        latents = [
            parts.autoencoder.encode(row[None].to(self.device, self.dtype)).sample(eps[None])
            for row, eps in zip(found.latent, drawn)
        ]
        latent = (torch.cat(latents).float() - parts.latent_shift) * parts.latent_scale
        return found.moved(latent)

    @torch.inference_mode()
    def picture(self, latent: Tensor) -> Image:
        """Latent (1, C, h, w), as the network sees it -> picture."""
        raw = latent / self.parts.latent_scale + self.parts.latent_shift
        return generate.to_picture(self.parts.autoencoder.decode(raw.to(self.dtype))[0])


# ---- where and in what to compute --------------------------------------------------------------


def choose_device(device: str) -> torch.device:
    """The device of that name; "auto" is the fastest there is."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        line = str(error).splitlines()[0]
        raise SuffuseError(f"device {device!r} cannot be used here: {line}") from None
    return chosen


def choose_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype of that name; "auto" is half precision where the processor computes in it.

    A processor without bfloat16 units emulates them: on one with AVX2 alone a product takes fifty
    times as long in bfloat16 as in float32.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    known = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if dtype in known:
        return known[dtype]
    if dtype != "auto":
        raise SuffuseError(f"unknown dtype {dtype!r}: choose auto, {', '.join(known)}")
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "mps":
        return torch.float16
    return torch.bfloat16 if torch.cpu._is_amx_tile_supported() else torch.float32
