"""The classifier of noisy pictures, and guidance by its gradient (2105.05233, section 4).

It is trained on pictures with noise of every level of a schedule, and told the level. Then it
stands still: guidance asks for the gradient of its log-probability of a class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from suffuse.diffusion.classifier_guidance import LogProb, classifier, of_class
from suffuse.diffusion.prediction import Denoiser, diffuse
from suffuse.diffusion.schedule import Discrete, Level, Schedule
from suffuse.errors import SuffuseError
from suffuse.networks.classifier import Classifier, ClassifierConfig
from suffuse.systems.encoders import NO_CLASS, ClassEncoder
from suffuse.weights.adm import Heads, open_classifier
from suffuse.weights.parts import Info, Place
from suffuse.weights.pixel import PixelModel
from suffuse.weights.pixel_folder import folder_family, open_pixel
from suffuse.weights.scheduler import from_config

LEVELS = 10  # of the schedule that accuracy is told at, unless said
CLOSE = 1e-5  # alpha_bar of two schedules that are the same but for rounding

Steer = Callable[[Denoiser], Denoiser]


def load_classifier(
    path: str | PathLike[str], place: Place | None = None, heads: Heads | None = None
) -> NoisyClassifier:
    """The classifier of a folder that `suffuse train classifier` wrote, or of guided-diffusion's
    `.pt`, frozen. Raises SuffuseError.

    A file tells neither its schedule nor the names of its classes: these are numbers.
    """
    path, place = Path(path).expanduser(), place or Place()
    if path.is_dir():
        if folder_family(path) != "Classifier":
            raise SuffuseError(f"{path}: is no classifier of noisy pictures")
        model = open_pixel(path, place)
    else:
        net, config = open_classifier(path, heads, place)
        model = PixelModel(
            net,
            config,
            Info(path.stem, "guided-diffusion", path, (path,)),
            size=(config.size, config.size) if config.size else None,
            classes=tuple(map(str, range(config.classes))),
        )
    model.unet.requires_grad_(False)
    return NoisyClassifier(model)


def classifier_of(path: str, device: torch.device, dtype: torch.dtype) -> NoisyClassifier:
    """The same, opened once for all requests that name it, as long as its files stay the same."""
    place = Path(path).expanduser()
    files = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
    return _kept(path, tuple(p.stat().st_mtime_ns for p in files), Place(device, dtype))


@lru_cache(maxsize=1)
def _kept(path: str, changed: tuple[int, ...], place: Place) -> NoisyClassifier:
    return load_classifier(path, place)


@dataclass(frozen=True, eq=False)
class NoisyClassifier:
    """p(class | x) of noisy pictures x (B, C, H, W), at levels of its `schedule`."""

    model: PixelModel[Classifier]

    def loss(self, x0: Tensor, labels: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """What training descends, (B,): the cross-entropy of pictures noised to steps t (B,)."""
        return cross_entropy(self.logits(x0, t, eps), labels, reduction="none")

    def logits(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """(B, K) float32 for pictures x0 noised to steps t (B,) of the schedule by eps."""
        level = self.trained_on.at(t)
        return self.net(diffuse(x0, eps, level), level.label).float()

    def log_prob(self, x: Tensor, level: Level, labels: Tensor) -> Tensor:
        """log p(label | x) in nats, (B,); x holds the noise of `level`. Raises SuffuseError."""
        return of_class(self.net, labels)(x, level)

    @torch.no_grad()
    def accuracy(self, x0: Tensor, labels: Tensor, eps: Tensor, levels: int = LEVELS) -> Tensor:
        """The share of pictures that are read right, (levels,) from the least to the most noise."""
        T = self.trained_on.T
        found = []
        for k in range(levels):
            t = torch.full((len(x0),), int((k + 0.5) / levels * T), device=x0.device)
            found.append((self.logits(x0, t, eps).argmax(1) == labels).float().mean())
        return torch.stack(found)

    def steer(self, labels: Tensor, scale: float) -> Steer:
        """Guidance of a denoiser to `labels` (B,), by `scale` times the gradient."""
        wanted: LogProb = of_class(self.net, labels)
        return lambda denoiser: classifier(denoiser, wanted, scale)

    # ---- what it is made of --------------------------------------------------------------------

    @property
    def net(self) -> Classifier:
        return self.model.unet

    @property
    def config(self) -> ClassifierConfig:
        assert isinstance(self.model.config, ClassifierConfig)
        return self.model.config

    @property
    def classes(self) -> ClassEncoder:
        return ClassEncoder(self.model.classes, f"the classifier {named(self.model)}")

    @cached_property
    def schedule(self) -> Schedule | None:
        """That of its training, where it is told."""
        return from_config(self.model.scheduler).schedule if self.model.scheduler else None

    @property
    def trained_on(self) -> Schedule:
        """The same; raises SuffuseError where it is not told."""
        if self.schedule is None:
            raise SuffuseError(f"{self.model.info.name}: does not tell the schedule of its noise")
        return self.schedule

    # ---- what it can guide ---------------------------------------------------------------------

    def label(self, prompt: str) -> int:
        """The class of a prompt. Raises SuffuseError where it names none."""
        found = int(self.classes.ids([prompt])[0])
        if found == NO_CLASS:
            raise SuffuseError(
                "a classifier guides to a class: name one as the prompt, or leave classifier out"
            )
        return found

    def check(self, model: PixelModel[Any], schedule: Schedule, channels: int) -> None:
        """Raises SuffuseError where it cannot guide this model."""
        name, guided = named(self.model), named(model)
        if model.classes and model.classes != self.model.classes:
            ours, theirs = (shown(c) for c in (self.model.classes, model.classes))
            raise SuffuseError(
                f"the classifier {name} knows other classes than {guided}: {ours}; not {theirs}"
            )
        if self.config.net.in_channels != channels:
            raise SuffuseError(
                f"the classifier {name} reads pictures of {self.config.net.in_channels} channels, "
                f"{guided} draws them with {channels}"
            )
        if self.schedule is not None and not same(self.schedule, schedule):
            raise SuffuseError(
                f"the classifier {name} was trained on another noise schedule than {guided}: "
                "train one with the scheduler of that model"
            )

    def check_size(self, width: int, height: int) -> None:
        """Raises SuffuseError for pictures of another size than it was trained on."""
        size = self.model.size
        if size is not None and size != (height, width):
            raise SuffuseError(
                f"the classifier {named(self.model)} reads pictures of {size[1]} x {size[0]} "
                f"pixels, not {width} x {height}"
            )


def same(one: Schedule, other: Schedule) -> bool:
    """Whether two schedules have the same levels."""
    if not (isinstance(one, Discrete) and isinstance(other, Discrete)) or one.T != other.T:
        return False
    return torch.allclose(one.alpha_bar, other.alpha_bar, rtol=0, atol=CLOSE)


def named(model: PixelModel[Any]) -> str:
    """What messages call it: many are called "model", after the last part of their path."""
    return str(model.info.path or model.info.name)


def shown(classes: tuple[str, ...]) -> str:
    """How many there are, and the first."""
    return f"{len(classes)} ({', '.join(classes[:3])}{' ...' if len(classes) > 3 else ''})"
