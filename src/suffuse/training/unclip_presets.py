"""What `--preset` names for unCLIP's stages: every number of a training run, as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from suffuse.data.emoji import World
from suffuse.data.preprocess import Preprocess
from suffuse.networks.lora import TRANSFORMERS, LoraConfig
from suffuse.networks.pixel import ADMConfig
from suffuse.training.noising import Noising
from suffuse.training.plan import Plan

# diffusers' configuration of Karlo's prior: the embedding itself is predicted (2204.06125, eq. 2).
PRIOR_SCHEDULER: Mapping[str, Any] = {
    "_class_name": "UnCLIPScheduler",
    "num_train_timesteps": 1000,
    "prediction_type": "sample",
    "variance_type": "fixed_small_log",
    "clip_sample": True,
    "clip_sample_range": 5.0,
}


@dataclass(frozen=True)
class PriorPreset:
    """A diffusion prior.

    dropout: share of the captions that are left out, for classifier-free guidance
    steps, guidance, draws: how it is sampled where nothing else is asked for
    """

    about: str
    plan: Plan
    width: int
    layers: int
    heads: int
    dropout: float = 0.1
    steps: int = 25
    guidance: float = 2.0
    draws: int = 2
    scheduler: Mapping[str, Any] = field(default_factory=lambda: dict(PRIOR_SCHEDULER))
    scenes: int = 12_288  # looked at once, before the first step, where no data are named
    held_out: int = 256  # further scenes that tell which checkpoint is best
    world: World = field(default_factory=World)
    preprocess: Preprocess = field(default_factory=Preprocess)  # of data that are named


@dataclass(frozen=True)
class DecoderPreset:
    """A decoder beside a text-to-image model: layers of low rank, and what embeddings come in by.

    tokens: that an embedding becomes; as many as a caption's first learn to be what the text
        encoder says of the picture, in the emoji world
    hidden: width of the middle layer on the way to them, None for none
    lesson: steps of that
    without, silent: shares of the pictures whose embedding, and whose caption, is left out
    """

    about: str
    plan: Plan
    lora: LoraConfig
    tokens: int = 4
    hidden: int | None = None
    lesson: Plan | None = None
    without: float = 0.1
    silent: float = 0.5
    steps: int = 20
    guidance: float = 3.0
    noising: Noising = field(default_factory=Noising)
    scenes: int = 12_288
    held_out: int = 256
    world: World = field(default_factory=World)
    preprocess: Preprocess | None = None  # of data that are named; None: the model's size


# diffusers' of Karlo's decoder: the cosine, the variance learned between its bounds (2102.09672).
DECODER_SCHEDULER: Mapping[str, Any] = {
    "_class_name": "UnCLIPScheduler",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "variance_type": "learned_range",
    "clip_sample": True,
}


@dataclass(frozen=True)
class PixelDecoderPreset:
    """A decoder of pixels, the paper's own.

    unet: its context is what embeddings and captions become;  size: of its pictures
    tokens: that an embedding becomes, beside the caption's
    without, silent: shares of the pictures whose embedding, and whose caption, is left out
    preprocess: of data that are named, as the CLIP is to see them: its size is a multiple of `size`
    """

    about: str
    plan: Plan
    unet: ADMConfig
    size: int = 64
    tokens: int = 4
    without: float = 0.1
    silent: float = 0.5
    steps: int = 25
    guidance: float = 3.0
    scheduler: Mapping[str, Any] = field(default_factory=lambda: dict(DECODER_SCHEDULER))
    held_out: int = 128  # scenes that tell which checkpoint is best, where no data are named
    world: World = field(default_factory=World)
    preprocess: Preprocess = field(default_factory=Preprocess)


PRIORS = {
    "emoji": PriorPreset(
        "from captions to CLIP's embeddings of scenes",
        Plan(
            steps=2000,
            batch=64,
            lr=1e-3,
            warmup=100,
            cooldown=0.5,
            weight_decay=0.06,
            betas=(0.9, 0.96),
            ema=0.998,
            sample_every=100_000,
        ),
        width=256,
        layers=4,
        heads=4,
    ),
    "toy": PriorPreset(
        "to try things with",
        Plan(steps=4, batch=8, warmup=1, save_every=2, sample_every=100),
        width=32,
        layers=1,
        heads=2,
        scenes=64,
        held_out=8,
        world=World(objects=8),
    ),
    # Table 3 of the paper; a batch of 4,096, 600,000 steps.
    "dalle2": PriorPreset(
        "DALL-E 2's, a billion weights",
        Plan(
            steps=600_000,
            batch=4096,
            lr=1.1e-4,
            warmup=5000,
            weight_decay=6e-2,
            betas=(0.9, 0.96),
            ema=0.9999,
            save_every=5000,
            sample_every=1_000_000,
        ),
        width=2048,
        layers=24,
        heads=32,
        steps=64,
    ),
}

DECODERS: dict[str, DecoderPreset | PixelDecoderPreset] = {
    "emoji": DecoderPreset(
        "the bundled model, drawing what CLIP saw",
        Plan(
            steps=2000,
            batch=16,
            lr=5e-4,
            warmup=50,
            ema=0.998,
            save_every=100,
            sample_every=250,
        ),
        LoraConfig(32, targets=TRANSFORMERS),
        tokens=32,
        hidden=768,
        lesson=Plan(
            steps=4000,
            batch=128,
            lr=2e-3,
            warmup=50,
            cooldown=0.7,
            save_every=1000,
            sample_every=100_000,
        ),
        scenes=32_768,
    ),
    "toy": DecoderPreset(
        "to try things with",
        Plan(steps=2, batch=2, warmup=1, save_every=2, sample_every=2),
        LoraConfig(2),
        scenes=8,
        held_out=8,
        world=World(objects=8),
        steps=2,
    ),
    "emoji64": PixelDecoderPreset(
        "pixels of the emoji world under the bundled CLIP, 64 px",
        Plan(steps=10_000, batch=16, lr=5e-4, cooldown=0.4, weight_decay=0.0, ema=0.998),
        ADMConfig(
            width=32,
            channels=(32, 64, 128),
            blocks=1,
            attends=(False, False, True),
            heads=(1, 1, 2),
            context=128,
        ),
    ),
    "toy-pixels": PixelDecoderPreset(
        "a decoder of pixels, to try things with",
        Plan(steps=2, batch=2, warmup=1, save_every=2, sample_every=2),
        ADMConfig(
            width=32,
            channels=(32, 32),
            blocks=1,
            attends=(False, True),
            heads=(1, 1),
            context=16,
        ),
        size=16,
        steps=2,
        held_out=4,
        world=World(objects=8),
        preprocess=Preprocess(size=32),
    ),
    # Table 3 of the paper, which leaves open the width of the context, beta1 and warm-up. Its
    # captions go through a transformer of their own (24 layers, 2048 wide, 256 tokens), which is
    # trained along; here the CLIP's stands in for it, as in Karlo, whose context this is.
    "dalle2": PixelDecoderPreset(
        "DALL-E 2's, with --clip and --data",
        Plan(
            steps=800_000,
            batch=2048,
            lr=1.2e-4,
            warmup=1,
            cooldown=0.0,
            weight_decay=0.0,
            betas=(0.9, 0.999),
            clip=math.inf,
            ema=0.9999,
            save_every=5000,
            sample_every=10_000,
            precision="bfloat16",
        ),
        ADMConfig(
            width=512,
            channels=(512, 1024, 1536, 2048),
            blocks=3,
            attends=(False, True, True, True),
            heads=(8, 16, 24, 32),
            context=2048,
            dropout=0.1,
        ),
        steps=250,
    ),
}
