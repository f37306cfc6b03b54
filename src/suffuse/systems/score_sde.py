"""Score SDEs (2011.13456): NCSN++ or DDPM++ on pixels, and a VP, sub-VP or VE SDE.

One trained score serves many ends: predictor-corrector sampling, the probability-flow ODE, exact
likelihoods, and conditions that training never saw: known pixels, known grey values, or any
differentiable `log p(y | x)`. A request's `sampler` is a predictor ("reverse_diffusion"), one with
a corrector ("reverse_diffusion+langevin"), "ode", or one of `SAMPLERS`, to which the SDE is one
more schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor

from suffuse.diffusion import control, likelihood
from suffuse.diffusion.classifier_guidance import LogProb, classifier, shifted
from suffuse.diffusion.cond import Cond
from suffuse.diffusion.grid import Grid
from suffuse.diffusion.guidance import bind
from suffuse.diffusion.likelihood import Likelihood, log_likelihood
from suffuse.diffusion.noise import Noise
from suffuse.diffusion.prediction import Denoiser, predict
from suffuse.diffusion.samplers import SAMPLERS, resolve
from suffuse.diffusion.samplers.common import Step
from suffuse.diffusion.samplers.predictor_corrector import Projection, predictor_corrector
from suffuse.diffusion.score import from_score, score_matching
from suffuse.diffusion.sde import VE, likelihood_weight
from suffuse.errors import SuffuseError
from suffuse.networks.ncsnpp import NCSNpp, NCSNppConfig
from suffuse.systems import boxes, generate
from suffuse.systems.encoders import ClassEncoder
from suffuse.systems.generate import Job, Known
from suffuse.systems.generates import Generates
from suffuse.systems.pixels import PixelSystem
from suffuse.systems.request import Request, open_picture
from suffuse.systems.sde_steps import check_sampler, flow_steps, grid_of, sde_grid
from suffuse.weights.parts import Place
from suffuse.weights.pixel import PixelModel
from suffuse.weights.pixel_folder import open_pixel
from suffuse.weights.score_scheduler import Process, read_process
from suffuse.weights.score_sde import open_published

if TYPE_CHECKING:
    from PIL.Image import Image

    from suffuse.systems.request import Picture

Held = Callable[[Noise], Projection]  # to what images are held, noised by this


def load_score_sde(
    path: str | PathLike[str],
    place: Place | None = None,
    config: str | None = None,
    ema: bool = True,
) -> ScoreSDE:
    """The score SDE in a folder that `save_pixel` wrote, or in score_sde's checkpoint.

    A checkpoint does not say its `config`, one of `networks.ncsnpp.PUBLISHED`. Raises SuffuseError.
    """
    path = Path(path)
    if not path.is_dir():
        return ScoreSDE(open_published(path, config, ema=ema, place=place))
    if config is not None:
        raise SuffuseError(f"{path}: a folder says its configuration itself: leave config out")
    return ScoreSDE(open_pixel(path, place))


@dataclass(frozen=True, eq=False)
class ScoreSDE(Generates, PixelSystem[NCSNpp]):
    """Images (B, C, H, W) from noise of the same shape; holds no state between calls.

    Images are in the network's range: [0, 1] where its configuration says `unit_range`, else
    [-1, 1]. `conditions` make a denoiser of p(x) one of p(x | y), see `conditioned`. There is no
    prompt; with `image` and `mask` pixels outside the mask are kept, without retraining.
    """

    model: PixelModel[NCSNpp]
    conditions: tuple[Callable[[Denoiser], Denoiser], ...] = ()

    # ---- the paper -----------------------------------------------------------------------------

    def sample(
        self,
        x: Tensor,
        noise: Noise,
        grid: Grid,
        sampler: str | None = None,
        held: Held | None = None,
        **options: Any,
    ) -> Iterator[Step]:
        """From x (B, C, H, W), of the grid's first level, to images (algorithm 1, or any sampler).

        sampler: PREDICTOR, PREDICTOR+CORRECTOR, ode, a name of `SAMPLERS` with its `options`; else
            the model's own
        held: to what a predictor's images are held at each level, see `diffusion.control`
        """
        p, denoiser = self.process, self.denoiser()
        found = resolve(sampler or p.sampler)
        if found.name == "ode":
            return flow_steps(denoiser, x, grid, p)
        if found.name != "pc":
            return SAMPLERS[found.name](denoiser, x, grid, noise, **found.options, **options)
        return predictor_corrector(
            denoiser,
            x,
            p.sde,
            noise,
            n=grid.whole,
            eps=p.eps,
            **found.options,
            snr=p.snr,
            corrections=p.corrections,
            project=None if held is None else held(noise),
            skipped=grid.skipped,
        )

    def grid(self, n: int | None = None) -> Grid:
        """The levels of n steps, or of the model's own number."""
        return sde_grid(self.process, n or self.process.steps, device=self.device)

    def loss(self, x0: Tensor, t: Tensor, eps: Tensor, *, weighted: bool = False) -> Tensor:
        """Denoising score matching at times t (B,) in (0, 1], (B,) (eq. 7).

        The error of the score weighs sigma^2, or g^2 where it is to bound the likelihood
        (2101.09258, `weighted`). `x0` and `eps` are (B, C, H, W).
        """
        sde = self.process.sde
        weight = likelihood_weight(sde, t) if weighted else None
        return score_matching(self.unet, x0, None, sde.at(t), eps, self.kind, weight)

    @torch.no_grad()
    def likelihood(self, x: Tensor, noise: Noise, probes: int = 1, **limits: float) -> Likelihood:
        """The exact log-density of images x (B, C, H, W), in nats (eq. 39).

        The noise makes the probes of its divergence; `limits` are `log_likelihood`'s eps, rtol and
        atol. Raises SuffuseError under a condition, whose part of the divergence is not known.
        """
        if self.conditions:
            raise SuffuseError("the likelihood is of the model alone, not under a condition")
        drawn = [likelihood.probe(noise) for _ in range(probes)]
        return log_likelihood(self.denoiser(), x, self.process.sde, drawn, **limits)

    def bits_per_dim(
        self, levels: Tensor, noise: Noise, probes: int = 1, **limits: float
    ) -> Tensor:
        """Bits that each number takes, (B,), of grey levels 0 to 255, (B, C, H, W)."""
        # Uniform numbers, and each image has its own; in float64, which not every device has.
        u = torch.special.ndtr(noise().cpu().double()).float().to(self.device)
        x = likelihood.dequantise(levels.to(self.device), u, self.low)
        found = self.likelihood(x, noise, probes, **limits)
        return likelihood.bits_per_dim(found.log_prob, x[0].numel(), self.low)

    def denoiser(self) -> Denoiser:
        """The score, in the form that every sampler takes."""
        raw = bind(self.unet, Cond())
        found = from_score(raw) if self.kind == "score" else predict(raw, "eps")
        for condition in self.conditions:
            found = condition(found)
        return found

    # ---- control -------------------------------------------------------------------------------

    def conditioned(self, log_prob: LogProb, scale: float = 1.0) -> ScoreSDE:
        """The system of p(x | y) (eq. 14): it draws by its requests what this one does not.

        `log_prob` is log p(y | x) of noisy images, (B, C, H, W) and their level to (B,): a
        classifier's (`of_class`) or any that can be differentiated. Raises SuffuseError for a
        negative scale.
        """
        return self._under(lambda denoiser: shifted(classifier(denoiser, log_prob, scale)))

    def measured(self, log_prob: Callable[[Tensor], Tensor], scale: float = 1.0) -> ScoreSDE:
        """The same where log p(y | x0) is known of clean images only, (B, C, H, W) to (B,)."""

        def condition(denoiser: Denoiser) -> Denoiser:
            return shifted(classifier(denoiser, control.measured(denoiser, log_prob), scale))

        return self._under(condition)

    def _under(self, condition: Callable[[Denoiser], Denoiser]) -> ScoreSDE:
        found = replace(self, conditions=(*self.conditions, condition))
        found.denoiser()  # refuses what it cannot be
        return found

    def colourise(self, picture: Picture, *, together: int = 1, **fields: Any) -> list[Image]:
        """Pictures in colour with the grey values of `picture`, the means of its channels.

        fields: of a `Request`, such as n, seed, steps or sampler. Raises SuffuseError as `resolve`
        does, for a model of grey pictures, and for a sampler without a predictor.
        """
        given = open_picture(picture, "image", "RGB")
        if self.channels != 3:
            raise SuffuseError(f"{self.info.name} draws grey pictures: it has no colours to give")
        width, height = generate.natural_size(given, (1, 1), self.factor)
        request = self.resolve(Request(**{"width": width, "height": height, **fields}))
        if resolve(request.sampler or "").name != "pc" or request.image is not None:
            raise SuffuseError(
                "colourising needs a predictor, and no other picture: leave both out"
            )
        pixels = self._pixels(given, request)
        coloured = _Colouring(self, lambda noise: control.colourised(pixels, noise))
        progress = generate.stream(coloured, [request], None, together)
        return [step.result for _, step in progress if step.result is not None]

    # ---- what it is made of --------------------------------------------------------------------

    @property
    def config(self) -> NCSNppConfig:
        return cast("NCSNppConfig", self.model.config)

    @property
    def channels(self) -> int:
        return self.config.image

    @property
    def factor(self) -> int:
        """How many times the network shrinks a side."""
        return 2 ** (len(self.config.multiples) - 1)

    @property
    def low(self) -> float:
        """What black is to the network; white is 1."""
        return 0.0 if self.config.unit_range else -1.0

    @property
    def kind(self) -> Literal["eps", "score"]:
        """What the network's output is."""
        return "score" if self.config.divide_by_label else "eps"

    @cached_property
    def process(self) -> Process:
        """The SDE and its sampler, from the scheduler file. Raises SuffuseError."""
        try:
            found = read_process(self.model.scheduler)
        except SuffuseError as problem:
            raise SuffuseError(f"{self.info.path or self.info.name}: {problem}") from None
        if self.kind == "score" and not isinstance(found.sde, VE):
            raise SuffuseError(
                f"{self.info.path or self.info.name}: its network divides by sigma, which only "
                "that of a VE SDE is told (divide_by_label)"
            )
        return found

    def holding(self, unet: NCSNpp) -> ScoreSDE:
        """The same system around another network of this shape."""
        return replace(self, model=replace(self.model, unet=unet))

    # ---- requests ------------------------------------------------------------------------------

    def resolve(self, request: Request) -> Request:
        """The request as it will run: this model's defaults, a definite seed, checked pictures.

        Raises SuffuseError for a class or guidance, which this model has none of, for a size that
        the network cannot halve, and for what only other models or samplers can do.
        """
        _check_plain(request, self.info.name)
        image, size = request.check().pictures()[0], self.model.size
        if size is None and image is None and not (request.width and request.height):
            raise SuffuseError(f"{self.info.name} does not say its size: give width and height")
        width, height = generate.natural_size(image, size or (1, 1), self.factor)
        request = request.resolve(
            steps=self.model.defaults.steps or self.process.steps,
            guidance=1.0,
            sampler=self.process.sampler,
            width=width,
            height=height,
        )
        assert request.width and request.height
        generate.check_size(request.width, request.height, self.factor)
        check_sampler(self.process, request)
        grid_of(self.process, request, self.device)
        return request

    def job(self, requests: Sequence[Request], held: Held | None = None) -> Job:
        """Resolved requests of one picture each, with equal `together.key`s, as one batch.

        held: as `sample` takes it
        """
        one = requests[0]
        assert one.width and one.height and one.sampler
        known, found = self._known(requests), resolve(one.sampler)
        if known is not None and known.repaint is not None and found.name == "pc":
            # Here the paper's way, which `generate.run` then need not: new noise at each level.
            pixels, keep = known.latent, 1 - known.repaint
            held, known = lambda noise: control.inpainted(pixels, keep, noise), Known(pixels)

        def steps(x: Tensor, grid: Grid, noise: Noise) -> Iterator[Step]:
            eta = {} if one.eta is None else {"eta": one.eta}
            return self.sample(x, noise, grid, one.sampler, held, **eta)

        return Job(
            requests,
            (self.channels, one.height, one.width),
            self.device,
            grid_of(self.process, one, self.device),
            lambda: steps,
            lambda noise: known,
            lambda row, x: generate.to_picture(self.outward(x[0])),
        )

    def _known(self, requests: Sequence[Request]) -> Known | None:
        """The requests' pictures: pixels are their own latents."""
        found = generate.given(requests, 1, self.channels)
        return None if found is None else found.moved(self.inward(found.latent.to(self.device)))

    def _pixels(self, picture: Image, request: Request) -> Tensor:
        """(1, C, H, W) in the network's range."""
        assert request.width and request.height
        fitted = generate.fit(picture, request.width, request.height)
        return self.inward(generate.to_tensor(fitted, self.channels).to(self.device))

    def inward(self, x: Tensor) -> Tensor:
        """From [-1, 1] to the network's range."""
        return (x + 1) / 2 if self.config.unit_range else x

    def outward(self, x: Tensor) -> Tensor:
        """And back."""
        return 2 * x - 1 if self.config.unit_range else x


@dataclass(frozen=True, eq=False)
class _Colouring:
    """A score SDE whose pictures are held to grey values."""

    system: ScoreSDE
    held: Held

    def job(self, requests: Sequence[Request]) -> Job:
        return self.system.job(requests, self.held)


def _check_plain(request: Request, name: str) -> None:
    """Refuses what a model without words and classes cannot heed."""
    for field in ("loras", "embeddings", "clip_skip", "best_of"):
        if getattr(request, field):
            raise SuffuseError(f"{field} is for text-to-image models; {name} is none")
    boxes.refuse(request.boxes, name)
    for field in ("classifier", "guidance_interval", "respacing"):
        if getattr(request, field):
            raise SuffuseError(f"{field} is for models of a chain of steps; {name} is none")
    ClassEncoder().ids([request.prompt, request.negative])
    if request.guidance not in (None, 1.0):
        raise SuffuseError(
            "there is nothing to guide to: this model has no classes, leave guidance out"
        )
