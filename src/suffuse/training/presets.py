"""What `--preset` names: every number of a training run, as a table.

`emoji` is for the model that is to come with Suffuse; `toy` trains in seconds and draws nothing
worth looking at. The others are published models, with the score to reach and what it took.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from suffuse.data.emoji import World
from suffuse.data.preprocess import Preprocess
from suffuse.errors import SuffuseError
from suffuse.networks.autoencoder import AutoencoderConfig
from suffuse.networks.clip import ClipTextConfig
from suffuse.networks.families import SDConfig
from suffuse.training.noising import Noising
from suffuse.training.plan import Plan
from suffuse.training.reconstruction import Losses
from suffuse.weights.single_file import SCHEDULER


@dataclass(frozen=True)
class Target:
    """The score of a preset, what it costs to reach, and who says so."""

    score: str
    cost: str
    source: str


@dataclass(frozen=True)
class AutoencoderPreset:
    about: str
    config: AutoencoderConfig
    plan: Plan
    losses: Losses = field(default_factory=lambda: Losses(bands=0.25))
    world: World = field(default_factory=World)  # where no data are named
    preprocess: Preprocess = field(default_factory=Preprocess)  # of data that are
    average: bool = False  # codes follow their latents instead of learning by gradient
    noise: float | None = None  # train the decoder alone, on latents with noise up to this
    target: Target | None = None


# diffusers' scheduler configuration. Without terminal signal (zero terminal SNR, 2305.08891) a
# model learns backgrounds of any colour; v-prediction is what makes that level learnable.
V_SCHEDULER: Mapping[str, Any] = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "set_alpha_to_one": True,
    "clip_sample": False,
    "steps_offset": 0,
}


# That of latent diffusion and Stable Diffusion 1 (CompVis/stable-diffusion, v1-inference.yaml).
SD_SCHEDULER: Mapping[str, Any] = {**SCHEDULER, "clip_sample": False}


@dataclass(frozen=True)
class LatentPreset:
    about: str
    unet: SDConfig
    text: ClipTextConfig  # its `vocab` is what the tokenizer may have at most
    plan: Plan
    scenes: int = 24_576  # encoded once, before the first step, where no data are named
    captions: int = 12_000  # scenes whose captions the tokenizer learns from
    world: World = field(default_factory=World)
    preprocess: Preprocess = field(default_factory=Preprocess)  # of data that are named
    text_trained: bool = True  # else the text encoder stands still, as it came with --init
    # The text encoder's lessons before the U-Net begins, in the emoji world; it then stands still.
    reading: Plan | None = None
    noising: Noising = field(default_factory=Noising)
    dropout: float = 0.12  # share of the captions left out, for classifier-free guidance
    scheduler: Mapping[str, Any] = field(default_factory=lambda: dict(V_SCHEDULER))
    steps: int = 20  # recommended to whoever samples
    guidance: float = 3.0
    target: Target | None = None


GOAL = "this project's goal"
ZOO = "2112.10752, table 8, and the model zoo of CompVis/latent-diffusion"

# The KL models of 2112.10752 as CompVis/latent-diffusion configures them (configs/autoencoder): 12
# pictures a GPU, gradients of two batches added, so that one GPU has a rate of 24 * 4.5e-6. Steps
# are those of the model zoo; there is neither warm-up, decay, clipping nor averaging.
LDM_PLAN = Plan(
    steps=246_803,
    batch=24,
    lr=1.08e-4,
    warmup=1,
    cooldown=0.0,
    weight_decay=0.0,
    betas=(0.5, 0.9),
    clip=math.inf,
    ema=0.0,
    save_every=1000,
    sample_every=1000,
    accumulate=2,
)
LDM_LOSSES = Losses(
    reduction="sum", perceptual=1.0, logvar=0.0, adversarial=0.5, start=50_001, bands=0.0
)
# The VQ models have the losses of VQGAN (2012.09841); their discriminator's start and weight are
# those of taming-transformers' custom_vqgan.yaml. There the weight of 0.25 stands at the codebook's
# term and not, as in the paper, at the commitment's (`legacy` in its quantize.py).
VQ_LOSSES = Losses(
    perceptual=1.0, adversarial=0.8, start=10_000, bands=0.0, codebook=0.25, commitment=1.0
)


def _ldm(
    channels: tuple[int, ...],
    latent: int,
    steps: int,
    score: str,
    *,
    attention: tuple[int, ...] = (),
    codes: int = 0,
    cost: str = "not published",
) -> AutoencoderPreset:
    """An autoencoder of 2112.10752, by the multiples of its 128 channels."""
    f, kind = 2 ** (len(channels) - 1), f"{codes} codes" if codes else "KL"
    return AutoencoderPreset(
        f"f = {f}, {latent} channels, {kind}",
        AutoencoderConfig(
            channels=tuple(128 * c for c in channels),
            latent=latent,
            attention=attention,
            codes=codes,
        ),
        replace(LDM_PLAN, steps=steps),
        VQ_LOSSES if codes else LDM_LOSSES,
        preprocess=Preprocess(size=256, crop="random"),
        target=Target(f"{score} on ImageNet's validation set", cost, ZOO),
    )


EMOJI = AutoencoderConfig(
    channels=(128,),
    blocks=1,
    patch=8,
    latent=4,
    quant=False,
    shortcut=True,
    decoder=(32, 64, 128),  # cells of 8 pixels would show in what it draws
)

AUTOENCODERS = {
    "emoji": AutoencoderPreset(
        "f = 8, 4 channels, KL, 128 px",
        EMOJI,
        Plan(steps=1000, batch=16, lr=1e-3, warmup=60, cooldown=0.5, ema=0.99, sample_every=300),
        preprocess=Preprocess(size=128),
        target=Target("PSNR 30 dB on held-out scenes", "two CPU cores", GOAL),
    ),
    "toy": AutoencoderPreset(
        "to try things with",
        AutoencoderConfig(channels=(32,), blocks=1, patch=8, latent=8, quant=False, shortcut=True),
        Plan(steps=100, batch=4, warmup=5, ema=0.9, save_every=50, sample_every=100),
        world=World(objects=6),
        preprocess=Preprocess(size=64),
    ),
    "ldm-f4": _ldm((1, 2, 4), 3, 176_991, "rFID 0.27, PSNR 27.53 dB"),
    "ldm-f8": _ldm((1, 2, 4, 4), 4, 246_803, "rFID 0.90, PSNR 24.19 dB"),
    "ldm-f16": _ldm((1, 1, 2, 2, 4), 16, 442_998, "rFID 0.87, PSNR 24.08 dB", attention=(16,)),
    "ldm-f32": _ldm((1, 1, 2, 2, 4, 4), 64, 406_763, "rFID 2.04, PSNR 22.27 dB", attention=(16, 8)),
    "ldm-vq-f4": _ldm(
        (1, 2, 4),
        3,
        533_066,
        "rFID 0.58, PSNR 27.43 dB",
        codes=8192,
        cost="29 V100-days (table 18)",
    ),
    "ldm-vq-f8": _ldm(
        (1, 2, 2, 4),
        4,
        971_043,
        "rFID 1.14, PSNR 23.07 dB",
        attention=(32,),
        codes=16_384,
        cost="66 V100-days (table 18)",
    ),
    "emoji-decoder": AutoencoderPreset(
        "its decoder alone, after the U-Net",
        EMOJI,
        Plan(steps=1500, batch=16, lr=1e-3, warmup=60, cooldown=0.5, ema=0.99, sample_every=300),
        preprocess=Preprocess(size=128),
        noise=0.3,
        target=Target("PSNR 30 dB on held-out scenes", "two CPU cores", GOAL),
    ),
}

# What the published latent models share; their clipping, if any, is not told.
BIG = Plan(
    steps=390_000,
    batch=680,
    lr=1e-4,
    warmup=10_000,
    cooldown=0.0,
    betas=(0.9, 0.999),
    clip=math.inf,
    ema=0.9999,
    save_every=1000,
    sample_every=5000,
    precision="bfloat16",
)

LATENTS = {
    "emoji": LatentPreset(
        "U-Net and text encoder, 128 px",
        SDConfig(
            in_channels=4,
            out_channels=4,
            channels=(64, 128, 224),
            blocks=1,
            depth=(0, 1, 1),
            heads=(4, 4, 4),
            context=192,
        ),
        ClipTextConfig(1536, width=192, layers=4, heads=4, context=32, intermediate=768, eos=1),
        Plan(steps=8000, batch=16, lr=1.2e-3, ema=0.998, sample_every=500, save_every=250),
        preprocess=Preprocess(size=128),
        target=Target(
            "held-out objects 90 %, relations 75 %, backgrounds 97 %", "two CPU cores", GOAL
        ),
        reading=Plan(steps=4000, batch=64, lr=1e-3, warmup=50, cooldown=0.5),
        # What a caption says shows only at noisy levels: there the objects are learned.
        noising=Noising(power=0.5),
    ),
    "toy": LatentPreset(
        "to try things with",
        SDConfig(
            in_channels=8,
            out_channels=8,
            channels=(32, 32),
            blocks=1,
            depth=(0, 1),
            heads=(2, 2),
            context=32,
        ),
        ClipTextConfig(600, width=32, layers=1, heads=2, context=64, intermediate=64, eos=1),
        Plan(steps=100, batch=4, warmup=5, ema=0.9, save_every=50, sample_every=100),
        scenes=128,
        reading=Plan(steps=20, batch=16, warmup=5),
        captions=200,
        world=World(objects=6),
        preprocess=Preprocess(size=64),
        steps=4,
    ),
    # Tables 15 and 17. The paper's text encoder looks both ways, with heads of 64, and reads BERT's
    # word pieces; ours of the same width and depth looks back only, with heads of 160, and learns
    # its pieces from the captions. The paper gives no warm-up, decay of the average or dropout;
    # those here are Stable Diffusion's.
    "ldm-f8": LatentPreset(
        "text to image, 1.5 B, 256 px",
        SDConfig(context=1280),
        ClipTextConfig(
            30_522, width=1280, layers=32, heads=8, intermediate=5120, activation="gelu", eos=1
        ),
        BIG,
        captions=200_000,
        preprocess=Preprocess(size=256),
        dropout=0.1,
        scheduler=dict(SD_SCHEDULER),
        steps=250,
        guidance=1.5,
        target=Target(
            "FID 12.63, IS 30.29 on MS-COCO (guidance 1.5; without, FID 23.31)",
            "not published (one A100)",
            "2112.10752, tables 2 and 15",
        ),
    ),
    # The steps of 1.5 and of what it grew out of: 237k at 256 px, 194k, 515k and 595k at 512 px on
    # ever choicer subsets of LAION; captions are left out in the last part only.
    "sd1": LatentPreset(
        "Stable Diffusion 1.5, U-Net of 860 M, 512 px",
        SDConfig(),
        ClipTextConfig(),
        replace(BIG, steps=1_541_000, batch=2048, recompute=True),
        preprocess=Preprocess(size=512),
        text_trained=False,
        dropout=0.1,
        scheduler=dict(SD_SCHEDULER),
        steps=50,
        guidance=7.5,
        target=Target(
            "FID-30k 9.62 on MS-COCO at 256 px",
            "6,250 A100-days (150,000 hours)",
            "score: 2303.05511; cost, steps, batch, rate: model card",
        ),
    ),
}

P = TypeVar("P")


def preset(table: Mapping[str, P], name: str) -> P:
    """Raises SuffuseError listing the known names."""
    if name not in table:
        raise SuffuseError(f"unknown preset {name!r}: choose one of {', '.join(table)}")
    return table[name]
