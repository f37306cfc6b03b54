"""What `--preset` names for ADMs and for the classifiers that guide them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from suffuse.data.preprocess import Preprocess
from suffuse.networks.pixel import ADMConfig
from suffuse.training.pixel_presets import COSINE, LINEAR, ClassifierPreset, PixelPreset
from suffuse.training.plan import Plan
from suffuse.training.presets import GOAL, Target
from suffuse.weights.adm_presets import improved

# The variance is learned between its two bounds (2102.09672, section 3.1).
LEARNED: Mapping[str, Any] = {"variance_type": "learned_range"}
ADM_COSINE: Mapping[str, Any] = {**COSINE, **LEARNED}
ADM_LINEAR: Mapping[str, Any] = {**LINEAR, **LEARNED}

SMALL = ADMConfig(
    in_channels=1,
    width=64,
    channels=(64, 64),
    blocks=2,
    attends=(False, True),
    heads=(1, 1),
    dropout=0.1,
)
TINY = replace(SMALL, width=32, channels=(32, 32), blocks=1, dropout=0.0)
COLOUR = ADMConfig(
    width=64, channels=(64, 128, 192), blocks=1, attends=(False, False, True), heads=(1, 2, 3)
)

# Tables 11 and 12 of 2105.05233; guided-diffusion has neither warm-up nor decay nor clipping, and
# computes in half precision.
PAPER = Plan(
    steps=540_000,
    batch=2048,
    lr=3e-4,
    warmup=1,
    cooldown=0.0,
    weight_decay=0.0,
    betas=(0.9, 0.999),
    clip=math.inf,
    ema=0.9999,
    save_every=5000,
    sample_every=10_000,
    precision="bfloat16",
)
TABLE = "2105.05233, tables 5 and 11; its compute: table 10"


def _imagenet(size: int, net: ADMConfig, plan: Plan, target: Target, **fields: Any) -> PixelPreset:
    """A row for `--data IMAGENET --labels`."""
    return PixelPreset(
        f"ADM's, ImageNet at {size} px, with --data and --labels",
        net,
        plan,
        preprocess=Preprocess(size=size, halve=True, flip=0.5),
        target=target,
        **{"scheduler": dict(ADM_LINEAR), "dropout": 0.0, "guidance": 1.0, "steps": 250, **fields},
    )


ADMS = {
    "digits": PixelPreset(
        "handwritten digits, 10 classes, 8 px",
        SMALL,
        Plan(steps=2000, batch=64, lr=1e-3, warmup=100, cooldown=0.4, ema=0.998),
        data="digits",
        preprocess=Preprocess(size=8),
        scheduler=dict(ADM_COSINE),
        target=Target(
            "95 % read as asked under guidance, with a classifier or without",
            "15 minutes, two CPU cores",
            GOAL,
        ),
    ),
    "emoji": PixelPreset(
        "single things of the emoji world, by class, 32 px",
        COLOUR,
        Plan(steps=8000, batch=16, lr=5e-4, ema=0.998),
        data="emoji",
        preprocess=Preprocess(size=32),
        scheduler=dict(ADM_LINEAR),
    ),
    "toy": PixelPreset(
        "digits, to try things with",
        TINY,
        Plan(steps=60, batch=16, warmup=5, ema=0.9, save_every=30, sample_every=60),
        data="digits",
        preprocess=Preprocess(size=8),
        scheduler=dict(ADM_COSINE),
        steps=10,
    ),
    "imagenet64": _imagenet(
        64,
        replace(improved(64, 192, 3), dropout=0.1),
        PAPER,
        Target("FID 2.07", "see source", TABLE),
        scheduler=dict(ADM_COSINE),
    ),
    # Classifier-free guidance: a tenth of the labels left out. The paper trains it in continuous
    # time; network, batch and rate are ADM's there too.
    "imagenet128": _imagenet(
        128,
        improved(128, 256, 2, heads=4),
        replace(PAPER, steps=2_700_000, batch=256, lr=1e-4),
        Target("FID 2.43 (w = 0.3, that is guidance 1.3)", "not published", "2207.12598, table 2"),
        dropout=0.1,
        guidance=1.3,
        steps=256,
    ),
    "imagenet256": _imagenet(
        256,
        improved(256, 256, 2),
        replace(PAPER, steps=1_980_000, batch=256, lr=1e-4),
        Target("FID 10.94; with a classifier 4.59; and with upsampling 3.94", "see source", TABLE),
    ),
}

CLASSIFIERS = {
    "digits": ClassifierPreset(
        "handwritten digits under noise, 8 px",
        replace(SMALL, blocks=1),
        Plan(steps=1500, batch=64, lr=1e-3, warmup=50, weight_decay=0.05, ema=0.99),
        data="digits",
        preprocess=Preprocess(size=8),
    ),
    "emoji": ClassifierPreset(
        "single things of the emoji world under noise, 32 px",
        COLOUR,
        Plan(steps=4000, batch=32, lr=5e-4, weight_decay=0.05, ema=0.998),
        data="emoji",
        preprocess=Preprocess(size=32),
        scheduler=dict(LINEAR),
    ),
    "toy": ClassifierPreset(
        "digits, to try things with",
        TINY,
        Plan(steps=60, batch=16, warmup=5, ema=0.9, save_every=30, sample_every=60),
        data="digits",
        preprocess=Preprocess(size=8),
    ),
    # Table 13, which tells no accuracy; the rate falls over the whole run and crops are random.
    "imagenet64": ClassifierPreset(
        "ADM's, ImageNet at 64 px, with --data",
        improved(64, 128, 4, classes=0),
        replace(PAPER, steps=300_000, batch=1024, lr=6e-4, cooldown=1.0, weight_decay=0.2, ema=0.0),
        preprocess=Preprocess(size=64, halve=True, crop="random", flip=0.5),
    ),
}
