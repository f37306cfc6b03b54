"""What `--preset` names for super-resolution: every number of a training run, as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from suffuse.data.emoji import World
from suffuse.data.pairs import Shrinking
from suffuse.data.preprocess import Preprocess
from suffuse.networks.pixel import ADMConfig, SR3Config
from suffuse.training.plan import Plan
from suffuse.training.presets import GOAL, Target
from suffuse.weights.pixel import Enlarging, Inference

# The variance is the paper's, that of the forward step (2104.07636, eq. 11), the betas are those of
# the public implementation: the paper gives none.
LINEAR: Mapping[str, Any] = {
    "_class_name": "DDPMScheduler",
    "num_train_timesteps": 2000,
    "beta_start": 1e-6,
    "beta_end": 1e-2,
    "beta_schedule": "linear",
    "variance_type": "fixed_large",
    "clip_sample": True,
    "timestep_spacing": "linspace",
}
# The clean picture is predicted, and drawn in few steps without noise between them.
SAMPLE: Mapping[str, Any] = {
    **{name: value for name, value in LINEAR.items() if name != "variance_type"},
    "_class_name": "DDIMScheduler",
    "prediction_type": "sample",
    "timestep_spacing": "trailing",
    "set_alpha_to_one": True,
}


@dataclass(frozen=True)
class SR3Preset:
    """An upscaler. Pairs are made of squares of `crop` pixels, cut from pictures of the
    preprocessing's size."""

    about: str
    unet: SR3Config | ADMConfig
    plan: Plan
    enlarging: Enlarging
    crop: int  # pixels of the square that is trained on, and of a tile
    data: Literal["emoji"] | None = None  # where none are named; None: they must be
    world: World = field(default_factory=World)  # of the emoji
    preprocess: Preprocess = field(default_factory=Preprocess)  # of data that are named
    shrinking: Shrinking = field(default_factory=Shrinking)
    power: Literal[1, 2] = 1  # of the error that is descended: L1 or L2
    scheduler: Mapping[str, Any] = field(default_factory=lambda: dict(LINEAR))
    steps: int | None = None  # recommended to whoever samples; None: those of `inference`
    target: Target | None = None


# Section 4 and appendix A: batch 256, a million steps, Adam, a rate of 1e-4 after 10,000 steps of
# warm-up, dropout for the smallest pictures alone; they are drawn in 100 steps.
_PLAN = Plan(
    steps=1_000_000,
    batch=256,
    lr=1e-4,
    warmup=10_000,
    cooldown=0.0,
    weight_decay=0.0,
    betas=(0.9, 0.999),
    ema=0.9999,
    save_every=5000,
    sample_every=5000,
)
_DRAWN = Inference(100, "linear", 1e-4, 0.1)

# unCLIP's up-samplers are ADM's U-Net without attention and class, told eps (2204.06125, section
# 2.1 and table 3). Both of its schedules are drawn from by DDIM.
_COSINE: Mapping[str, Any] = {
    "_class_name": "DDIMScheduler",
    "beta_schedule": "squaredcos_cap_v2",
    "clip_sample": True,
    "timestep_spacing": "trailing",
}
_LINEAR: Mapping[str, Any] = {
    **_COSINE,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "beta_end": 0.02,
}


def _convolutions(*channels: int, blocks: int, dropout: float = 0.0) -> ADMConfig:
    none = (False,) * len(channels)
    return ADMConfig(
        in_channels=6,
        out_channels=3,
        width=channels[0],
        channels=channels,
        blocks=blocks,
        attends=none,
        heads=(1,) * len(channels),
        mid_attention=False,
        dropout=dropout,
    )


# The paper leaves open warm-up, beta1 and how many low resolutions are harmed, and how much.
_UNCLIP = replace(_PLAN, batch=1024, lr=1.2e-4, warmup=1, clip=math.inf, precision="bfloat16")

SR3S = {
    "emoji": SR3Preset(
        "scenes of the emoji world, 32 -> 128 px",
        SR3Config(
            width=32,
            channels=(32, 48, 96, 128),
            blocks=1,
            attends=(False,) * 4,
            mid_attention=False,
            groups=8,
        ),
        Plan(steps=1800, batch=8, lr=1e-3, cooldown=0.4, ema=0.998),
        # Minutes are too short to learn the noise too, as the paper's network does: this one tells
        # what bicubic lacks. That is nothing in most places, where L1 would have it stay.
        Enlarging(4, residual=4.0),
        crop=64,
        data="emoji",
        power=2,
        scheduler=dict(SAMPLE),
        steps=8,
        target=Target(
            "2 dB over bicubic, half its feature distance", "25 minutes, two CPU cores", GOAL
        ),
    ),
    "toy": SR3Preset(
        "emoji scenes, to try things with",
        SR3Config(
            width=8,
            channels=(8, 16),
            blocks=1,
            attends=(False, False),
            mid_attention=False,
            groups=4,
        ),
        Plan(steps=60, batch=8, warmup=5, ema=0.9, save_every=30, sample_every=60),
        Enlarging(2, residual=4.0),
        crop=32,
        data="emoji",
        world=World(objects=8),
        preprocess=Preprocess(size=64),
        power=2,
        scheduler=dict(SAMPLE),
        steps=2,
    ),
    # Table A.1; a cascade of both, and of 256 -> 1024, draws faces of 1024 pixels.
    "ffhq-16-128": SR3Preset(
        "SR3's of faces, 515 M, 16 -> 128 px",
        SR3Config(width=128, channels=(128, 256, 512, 1024, 1024), blocks=3, dropout=0.2),
        _PLAN,
        Enlarging(8, inference=_DRAWN),
        crop=128,
        preprocess=Preprocess(size=128, flip=0.5),
        target=Target(
            "PSNR 23.04, SSIM 0.65, consistency 2.7e-5",
            "64 TPU v3 chips, a million steps",
            "2104.07636, table 1",
        ),
    ),
    "ffhq-64-512": SR3Preset(
        "SR3's of faces, 564 M, 64 -> 512 px",
        SR3Config(
            width=64,
            channels=(64, 128, 256, 512, 512, 1024, 1024),
            blocks=3,
            attends=(False, False, False, False, False, True, False),
        ),
        _PLAN,
        Enlarging(8, inference=_DRAWN),
        crop=512,
        preprocess=Preprocess(size=512, flip=0.5),
    ),
    "ffhq-256-1024": SR3Preset(
        "SR3's of faces, 129 M, 256 -> 1024 px",
        SR3Config(
            width=16,
            channels=(16, 32, 64, 128, 256, 512, 512, 512),
            attends=(False,) * 8,
            groups=16,
        ),
        _PLAN,
        Enlarging(4, inference=_DRAWN),
        crop=1024,
        preprocess=Preprocess(size=1024, flip=0.5),
        shrinking=Shrinking(blurred=0.5),
    ),
    "imagenet-64-256": SR3Preset(
        "SR3's of ImageNet, 565 M, 64 -> 256 px",
        SR3Config(
            width=128,
            channels=(128, 256, 512, 512, 1024, 1024),
            blocks=3,
            attends=(False, False, False, False, True, False),
        ),
        _PLAN,
        Enlarging(4, inference=_DRAWN),
        crop=256,
        preprocess=Preprocess(size=256, flip=0.5),
        shrinking=Shrinking(blurred=0.5),
        target=Target(
            "FID 5.2, IS 180.1", "64 TPU v3 chips, a million steps", "2104.07636, table 2"
        ),
    ),
    "unclip-emoji": SR3Preset(
        "behind `train decoder --preset emoji64`, 64 -> 128 px",
        _convolutions(32, 64, 128, blocks=1),
        Plan(steps=4000, batch=16, lr=5e-4, cooldown=0.4, ema=0.998),
        Enlarging(2),
        crop=32,
        data="emoji",
        shrinking=Shrinking(blurred=0.5),
        power=2,
        scheduler=dict(_COSINE),
        steps=10,
    ),
    "unclip-toy": SR3Preset(
        "behind `train decoder --preset toy-pixels`, to try things with",
        _convolutions(32, 32, blocks=1),
        Plan(steps=4, batch=4, warmup=1, ema=0.9, save_every=4, sample_every=4),
        Enlarging(2),
        crop=16,
        data="emoji",
        world=World(objects=8),
        preprocess=Preprocess(size=32),
        shrinking=Shrinking(blurred=0.5),
        power=2,
        scheduler=dict(_COSINE),
        steps=2,
    ),
    "dalle2-256": SR3Preset(
        "DALL-E 2's first, 700 M, 64 -> 256 px",
        _convolutions(320, 640, 960, 1280, blocks=3, dropout=0.1),
        _UNCLIP,
        Enlarging(4),
        crop=64,
        preprocess=Preprocess(size=256),
        shrinking=Shrinking(blurred=1.0),
        power=2,
        scheduler=dict(_COSINE),
        steps=27,
    ),
    "dalle2-1024": SR3Preset(
        "DALL-E 2's second, 300 M, 256 -> 1024 px",
        _convolutions(192, 192, 384, 384, 768, 768, blocks=2),
        replace(_UNCLIP, batch=512, lr=1e-4),
        Enlarging(4),
        crop=256,
        preprocess=Preprocess(size=1024),
        shrinking=Shrinking(worn=1.0),
        power=2,
        scheduler=dict(_LINEAR),
        steps=15,
    ),
}
