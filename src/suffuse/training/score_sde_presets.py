"""What `--preset` names for score SDEs: every number of a training run, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from suffuse.data.emoji import World
from suffuse.data.preprocess import Preprocess
from suffuse.networks.ncsnpp import PUBLISHED, NCSNppConfig
from suffuse.training.plan import Plan
from suffuse.training.presets import Target

VP: Mapping[str, Any] = {"_class_name": "ScoreSdeVpScheduler", "num_train_timesteps": 1000}
SUB_VP: Mapping[str, Any] = {**VP, "_class_name": "ScoreSdeSubVpScheduler"}
# With sigma_max near the largest distance between two pictures (arXiv 2006.09011, technique 1).
VE: Mapping[str, Any] = {
    "_class_name": "ScoreSdeVeScheduler",
    "num_train_timesteps": 1000,
    "sigma_max": 50.0,
    "snr": 0.16,
}
DDPMPP = PUBLISHED["vp/cifar10_ddpmpp_continuous"]


@dataclass(frozen=True)
class ScorePreset:
    """A score SDE. Its `scheduler` says which; a network that divides by its label is for VE."""

    about: str
    unet: NCSNppConfig  # its size is the pictures'
    plan: Plan
    data: Literal["digits", "emoji"] | None = None  # where none are named; None: they must be
    world: World = field(default_factory=World)  # of the emoji
    preprocess: Preprocess = field(default_factory=Preprocess)
    scheduler: Mapping[str, Any] = field(default_factory=lambda: dict(VP))
    likelihood: bool = False  # times as the likelihood weighs them (2101.09258), else evenly
    steps: int = 250  # recommended to whoever samples
    target: Target | None = None


DIGITS = ScorePreset(
    "handwritten digits, VP, 8 px",
    replace(
        DDPMPP, image=1, size=8, width=48, multiples=(1, 2), blocks=2, attention=(4,), groups=16
    ),
    Plan(steps=2000, batch=64, lr=1e-3, warmup=100, cooldown=0.4, ema=0.998),
    data="digits",
    preprocess=Preprocess(size=8),
)

_PAPER = Plan(
    steps=950_000,
    batch=128,
    lr=2e-4,
    warmup=5000,
    cooldown=0.0,
    weight_decay=0.0,
    betas=(0.9, 0.999),
    ema=0.999,
    save_every=5000,
    sample_every=5000,
)

SCORE_SDES = {
    "digits": DIGITS,
    "digits-likelihood": replace(
        DIGITS, about="the same, sub-VP, by likelihood", scheduler=dict(SUB_VP), likelihood=True
    ),
    "emoji": ScorePreset(
        "single things of the emoji world, VP, 32 px",
        replace(DDPMPP, size=32, width=64, multiples=(1, 2, 3), blocks=1, attention=(8,)),
        Plan(steps=8000, batch=16, lr=5e-4, ema=0.998),
        data="emoji",
        preprocess=Preprocess(size=32),
    ),
    "toy": replace(
        DIGITS,
        about="digits, to try things with",
        unet=replace(DIGITS.unet, width=16, blocks=1, groups=8),
        plan=Plan(steps=60, batch=16, warmup=5, ema=0.9, save_every=30, sample_every=60),
        steps=25,
    ),
    # Table 3 and appendix H: the deep networks, trained in continuous time.
    "cifar10": ScorePreset(
        "NCSN++ deep, VE, 32 px",
        PUBLISHED["ve/cifar10_ncsnpp_deep_continuous"],
        _PAPER,
        preprocess=Preprocess(size=32, flip=0.5),
        scheduler=dict(VE),
        steps=1000,
        target=Target("FID 2.20, IS 9.89", "not told", "2011.13456, table 3"),
    ),
    "cifar10-subvp": ScorePreset(
        "DDPM++ deep, sub-VP, 32 px",
        PUBLISHED["subvp/cifar10_ddpmpp_deep_continuous"],
        replace(_PAPER, ema=0.9999),
        preprocess=Preprocess(size=32, flip=0.5),
        scheduler=dict(SUB_VP),
        steps=1000,
        target=Target("2.99 bits/dim, FID 2.41", "not told", "2011.13456, tables 2 and 3"),
    ),
}
