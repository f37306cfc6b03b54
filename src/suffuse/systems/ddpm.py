"""DDPM (2006.11239) and improved DDPM (2102.09672): a U-Net on pixels, with classes if it has any.

With classes it is trained with a share of the labels left out, and guided without a classifier
(2207.12598). A class is asked for as the prompt, by its name or its number: whatever carries
prompts (a file of them, a picture's metadata, file names) then carries classes. No prompt is no
class.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from os import PathLike

import torch
from torch import Tensor

from suffuse.diffusion.chain import Chain, Reverse
from suffuse.diffusion.cond import Cond
from suffuse.diffusion.grid import Grid
from suffuse.diffusion.guidance import cfg
from suffuse.diffusion.loss import hybrid, simple
from suffuse.diffusion.noise import Noise
from suffuse.diffusion.posterior import Variance
from suffuse.diffusion.prediction import predict
from suffuse.diffusion.samplers import SAMPLERS
from suffuse.diffusion.samplers.common import Step
from suffuse.diffusion.schedule import Discrete
from suffuse.errors import SuffuseError
from suffuse.networks.packing import pack
from suffuse.networks.pixel import ADMConfig, DDPMConfig
from suffuse.networks.unet import UNet
from suffuse.systems import boxes, generate
from suffuse.systems.classifier import NoisyClassifier, Steer, classifier_of
from suffuse.systems.encoders import NO_CLASS, ClassEncoder
from suffuse.systems.generate import Job, Known, Steps
from suffuse.systems.generates import Generates
from suffuse.systems.pixels import PixelSystem
from suffuse.systems.request import Request
from suffuse.weights.parts import Place
from suffuse.weights.pixel import PixelModel
from suffuse.weights.scheduler import Sampling
from suffuse.weights.unet2d import open_unet2d

UNWEIGHTED = (
    "a learned variance is trained by the hybrid loss, which has no weights: leave noising.weight "
    "at none, or take a scheduler with a fixed variance"
)


def load_ddpm(folder: str | PathLike[str], place: Place | None = None) -> DDPM:
    """The DDPM in a diffusers folder, packed for inference. Raises SuffuseError."""
    model = open_unet2d(folder, place)
    return DDPM(replace(model, unet=pack(model.unet)))


@dataclass(frozen=True, eq=False)
class DDPM(Generates, PixelSystem[UNet]):
    """Images (B, C, H, W) in [-1, 1] from noise of the same shape; holds no state between calls.

    A prompt is a class, by its name or its number, and none is no class.
    """

    model: PixelModel[UNet]

    # ---- the paper -----------------------------------------------------------------------------

    def sample(
        self,
        x: Tensor,
        noise: Noise,
        grid: Grid,
        sampling: Sampling,
        labels: tuple[Tensor, Tensor],
        guidance: float | Tensor = 1.0,
        rescale: float = 0.0,
        interval: tuple[float, float] | None = None,
        steer: Steer | None = None,
    ) -> Iterator[Step]:
        """From x (B, C, H, W), of the grid's first level, to images (algorithm 2, or any sampler).

        labels: classes (B,) to draw, and those to steer away from; -1 is no class
        guidance: its scale, one number or one for each image, (B, 1, 1, 1)
        interval: of sigma / alpha, outside which there is no guidance
        steer: what else guides the denoiser, such as a classifier (`NoisyClassifier.steer`)
        """
        cond, null = (self.cond(ids) for ids in labels)
        told = x.shape[1] if sampling.learned_var else None
        raw = cfg(self.unet, cond, null, guidance, rescale, told, interval)
        denoiser = sampling.bound(predict(raw, sampling.kind, sampling.learned_var))
        if steer is not None:
            denoiser = steer(denoiser)
        return SAMPLERS[sampling.sampler](denoiser, x, grid, noise, **sampling.options)

    def loss(
        self, x0: Tensor, labels: Tensor, t: Tensor, eps: Tensor, weight: Tensor | None = None
    ) -> Tensor:
        """What training descends, (B,): L_simple (2006.11239, eq. 14), or with a learned variance
        L_hybrid (2102.09672, eq. 16).

        `x0` and `eps` are (B, C, H, W), `labels`, the steps `t` and the `weight` of L_simple (B,);
        label -1 is no class. Raises SuffuseError for a weight beside a learned variance.
        """
        context = self.unet.prepare(self.cond(labels))
        reverse = self.reverse()
        if reverse.learned:
            if weight is not None:
                raise SuffuseError(UNWEIGHTED)
            return hybrid(self.unet, x0, context, t, eps, reverse)
        level = self.sampling.schedule.at(t)
        return simple(self.unet, x0, context, level, eps, self.sampling.kind, weight)

    def reverse(self, limit: float | None = None) -> Reverse:
        """How the network's output is read as a reverse transition of `chain`.

        The clean image on the way is clipped to [-limit, limit], unless that is None.
        """
        s = self.sampling
        # Files of samplers that have no variance of their own may still tell that one was learned.
        usual = "learned_range" if s.learned_var else "small"
        variance: Variance = s.options.get("variance", usual)
        return Reverse(self.chain, s.kind, variance, limit)

    @cached_property
    def chain(self) -> Chain:
        """The chain it was trained on. Raises SuffuseError for a schedule that is none."""
        if not isinstance(self.sampling.schedule, Discrete):
            raise SuffuseError(f"{self.info.name}: its schedule is no chain of steps")
        return Chain(self.sampling.schedule)

    def cond(self, labels: Tensor) -> Cond:
        """Classes (B,) at the network's door; -1 is no class."""
        return self.classes.embed(labels.to(self.device), self.dtype)

    # ---- what it is made of --------------------------------------------------------------------

    @property
    def classes(self) -> ClassEncoder:
        return ClassEncoder(self.model.classes)

    @property
    def sampling(self) -> Sampling:
        """The scheduler file's meaning; DDPM's own where there is none. Raises SuffuseError."""
        return self.model.sampling

    def holding(self, unet: UNet) -> DDPM:
        """The same system around another network of this shape."""
        return replace(self, model=replace(self.model, unet=unet))

    # ---- requests ------------------------------------------------------------------------------

    def resolve(self, request: Request) -> Request:
        """The request as it will run: this model's defaults, a definite seed, checked pictures.

        Raises SuffuseError for a class or a size that the model does not have, guidance without a
        class, a classifier that does not fit, and what only text-to-image models can do.
        """
        for name in ("loras", "embeddings", "clip_skip", "best_of"):
            if getattr(request, name):
                raise SuffuseError(f"{name} is for text-to-image models; {self.info.name} is none")
        boxes.refuse(request.boxes, self.info.name)
        asked, away = self._labels(request).tolist()
        defaults, image = self.model.defaults, request.check().pictures()[0]
        judge = self._classifier(request)
        if asked == NO_CLASS and (request.guidance not in (None, 1.0) or away != NO_CLASS):
            why = (
                "name a class as the prompt" if self.model.classes else "this model has no classes"
            )
            raise SuffuseError(f"there is nothing to guide to: {why}, or leave guidance out")
        size = self.model.size
        if size is None and image is None and not (request.width and request.height):
            raise SuffuseError(f"{self.info.name} does not say its size: give width and height")
        width, height = generate.natural_size(image, size or (1, 1), self.factor)
        request = request.resolve(
            steps=defaults.steps or min(1000, self.sampling.schedule.T),
            # A classifier guides instead, unless both are asked for.
            guidance=1.0 if asked == NO_CLASS or judge else defaults.guidance or 1.0,
            sampler=self.sampling.sampler,
            width=width,
            height=height,
        )
        assert request.width and request.height
        generate.check_size(request.width, request.height, self.factor)
        if judge is not None:
            judge.label(request.prompt)
            judge.check_size(request.width, request.height)
        return generate.counted(request, self._grid(request))

    def _labels(self, request: Request) -> Tensor:
        """The classes to draw and to steer away from, (2,); -1 is none."""
        # A classifier guides a model without classes too: the prompt is then for it alone.
        alone = request.classifier is not None and not self.model.classes
        return self.classes.ids(["" if alone else request.prompt, request.negative])

    def _classifier(self, request: Request) -> NoisyClassifier | None:
        """The request's classifier. Raises SuffuseError where it does not fit this model."""
        if request.classifier is None:
            return None
        found = classifier_of(request.classifier, self.device, self.dtype)
        found.check(self.model, self.sampling.schedule, self.channels)
        return found

    @property
    def factor(self) -> int:
        """How many times the network shrinks a side."""
        return 2 ** (len(self.unet.down) - 1)

    def job(self, requests: Sequence[Request]) -> Job:
        """Resolved requests of one picture each, with equal `together.key`s, as one batch."""
        one = requests[0]
        assert one.width and one.height
        return Job(
            requests,
            (self.channels, one.height, one.width),
            self.device,
            self._grid(one),
            partial(self._sampler, requests),
            partial(self._known, requests),
            lambda row, x: generate.to_picture(x[0]),
        )

    def _sampler(self, requests: Sequence[Request]) -> Steps:
        """The requests' sampler with the guided denoiser bound to it."""
        one = requests[0]
        asked, away = torch.stack([self._labels(request) for request in requests]).unbind(1)
        scale, sampling = generate.scales(requests, self.device), self._sampling(one)
        judge, steer = self._classifier(one), None
        if judge is not None:
            wanted = [judge.label(request.prompt) for request in requests]
            steer = judge.steer(torch.tensor(wanted, device=self.device), one.classifier_scale)
        guided = (scale, one.rescale, one.guidance_interval)

        def steps(x: Tensor, grid: Grid, noise: Noise) -> Iterator[Step]:
            return self.sample(x, noise, grid, sampling, (asked, away), *guided, steer)

        return steps

    @property
    def channels(self) -> int:
        config = self.model.config
        assert isinstance(config, DDPMConfig | ADMConfig)
        return config.in_channels

    def _sampling(self, request: Request) -> Sampling:
        return generate.sampling_of(request, self.sampling)

    def _grid(self, request: Request) -> Grid:
        return generate.grid_of(request, self._sampling(request), self.device)

    def _known(self, requests: Sequence[Request], noise: Noise) -> Known | None:
        """The requests' pictures: pixels are their own latents."""
        found = generate.given(requests, 1, self.channels)
        return None if found is None else found.moved(found.latent.to(self.device))
