"""What `--preset` names for pixel-space models: every number of a training run, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from suffuse.data.emoji import World
from suffuse.data.preprocess import Preprocess
from suffuse.networks.pixel import DDPMConfig
from suffuse.training.noising import Noising
from suffuse.training.plan import Plan
from suffuse.training.presets import GOAL, Target

# DDPM's own (2006.11239, section 4), with the variance that suits few steps.
LINEAR: Mapping[str, Any] = {
    "_class_name": "DDPMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "variance_type": "fixed_small",
    "clip_sample": True,
    "timestep_spacing": "leading",  # ends on step 0, where no noise is added
}
# Small pictures are noise early: the cosine (2102.09672, section 3.2) leaves more of the schedule
# to where there is something to see.
COSINE: Mapping[str, Any] = {**LINEAR, "beta_schedule": "squaredcos_cap_v2"}


@dataclass(frozen=True)
class PixelPreset:
    """A DDPM. A scheduler whose `variance_type` is "learned_range" trains the hybrid loss
    (2102.09672, eq. 16) and doubles the channels that come out."""

    about: str
    unet: DDPMConfig  # its classes are those of the data
    plan: Plan
    data: Literal["digits", "emoji"] | None = None  # where none are named; None: they must be
    world: World = field(default_factory=World)  # of the emoji
    preprocess: Preprocess = field(default_factory=Preprocess)
    dropout: float = 0.15  # share of the labels left out, for guidance without a classifier
    noising: Noising = field(default_factory=Noising)
    scheduler: Mapping[str, Any] = field(default_factory=lambda: dict(COSINE))
    steps: int = 100  # recommended to whoever samples
    guidance: float = 2.0
    target: Target | None = None

    @property
    def learned(self) -> bool:
        """Whether the network tells the variance."""
        return self.scheduler.get("variance_type") in ("learned", "learned_range")


DIGITS = PixelPreset(
    "handwritten digits, 10 classes, 8 px",
    DDPMConfig(
        in_channels=1,
        out_channels=1,
        channels=(48, 96),
        blocks=2,
        attends=(False, True),
        heads=(1, 1),
        groups=16,
        dropout=0.1,
    ),
    Plan(steps=2000, batch=64, lr=1e-3, warmup=100, cooldown=0.4, ema=0.998),
    data="digits",
    preprocess=Preprocess(size=8),
    target=Target(
        "read with < 0.5 nats, 95 % as asked, every digit within 40 % of its share",
        "15 minutes, two CPU cores",
        GOAL,
    ),
)

DDPMS = {
    "digits": DIGITS,
    "digits-hybrid": replace(
        DIGITS,
        about="the same, with learned variance",
        scheduler={**COSINE, "variance_type": "learned_range"},
        target=None,
    ),
    "emoji": PixelPreset(
        "single things of the emoji world, by class, 32 px",
        DDPMConfig(
            channels=(64, 128, 192),
            blocks=1,
            attends=(False, False, True),
            heads=(1, 1, 1),
        ),
        Plan(steps=8000, batch=16, lr=5e-4, ema=0.998),
        data="emoji",
        preprocess=Preprocess(size=32),
        scheduler=dict(LINEAR),
    ),
    "toy": PixelPreset(
        "digits, to try things with",
        DDPMConfig(
            in_channels=1,
            out_channels=1,
            channels=(16, 32),
            blocks=1,
            attends=(False, True),
            heads=(1, 1),
            groups=8,
        ),
        Plan(steps=60, batch=16, warmup=5, ema=0.9, save_every=30, sample_every=60),
        data="digits",
        preprocess=Preprocess(size=8),
        steps=10,
    ),
    # Section 4 and appendix B; its sampler takes all the steps, with the larger variance.
    "cifar10": PixelPreset(
        "DDPM's, 35.7 M, 32 px",
        DDPMConfig(dropout=0.1),
        Plan(
            steps=800_000,
            batch=128,
            lr=2e-4,
            warmup=5000,
            cooldown=0.0,
            weight_decay=0.0,
            betas=(0.9, 0.999),
            ema=0.9999,
            save_every=5000,
            sample_every=5000,
        ),
        preprocess=Preprocess(size=32, flip=0.5),
        scheduler={**LINEAR, "variance_type": "fixed_large"},
        steps=1000,
        guidance=1.0,
        target=Target(
            "FID 3.17, IS 9.46, at most 3.75 bits/dim",
            "10.6 hours on a TPU v3-8",
            "2006.11239, table 1 and appendix B",
        ),
    ),
}
