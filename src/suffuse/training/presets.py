"""What `--preset` names: every number of a training run, as a table.

`emoji` made the bundled model; `toy` trains in seconds and draws nothing worth looking at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from suffuse.data.emoji import World
from suffuse.errors import SuffuseError
from suffuse.networks.autoencoder import AutoencoderConfig
from suffuse.networks.clip import ClipTextConfig
from suffuse.networks.families import SDConfig
from suffuse.training.loop import Plan


@dataclass(frozen=True)
class AutoencoderPreset:
    config: AutoencoderConfig
    plan: Plan
    world: World = field(default_factory=World)
    kl: float = 1e-6
    perceptual: float = 0.25


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


@dataclass(frozen=True)
class LatentPreset:
    unet: SDConfig
    text: ClipTextConfig  # its `vocab` is what the tokenizer may have at most
    plan: Plan
    scenes: int  # encoded once, before the first step
    captions: int = 12_000  # scenes whose captions the tokenizer learns from
    world: World = field(default_factory=World)
    reading: Plan | None = None  # of the text encoder alone, before the U-Net begins
    text_frozen: bool = True  # whether the text encoder then stands still
    timestep_power: float = 1.0  # below 1 prefers noisy levels: see `spread_timesteps`
    dropout: float = 0.12  # share of the captions left out, for classifier-free guidance
    scheduler: Mapping[str, Any] = field(default_factory=lambda: dict(V_SCHEDULER))
    steps: int = 20  # recommended to whoever samples
    guidance: float = 3.0


AUTOENCODERS = {
    "emoji": AutoencoderPreset(
        AutoencoderConfig(channels=(128,), blocks=1, patch=8, latent=8, quant=False, shortcut=True),
        Plan(steps=1000, batch=16, lr=1e-3, warmup=60, cooldown=0.5, ema=0.99, sample_every=300),
    ),
    "toy": AutoencoderPreset(
        AutoencoderConfig(channels=(32,), blocks=1, patch=8, latent=8, quant=False, shortcut=True),
        Plan(steps=100, batch=4, warmup=5, ema=0.9, save_every=50, sample_every=100),
        World(objects=6),
    ),
}

LATENTS = {
    "emoji": LatentPreset(
        SDConfig(
            in_channels=8,
            out_channels=8,
            channels=(64, 128, 224),
            blocks=1,
            depth=(0, 1, 1),
            heads=(4, 4, 4),
            context=192,
        ),
        ClipTextConfig(1536, width=192, layers=3, heads=4, context=32, intermediate=768, eos=1),
        Plan(steps=11_000, batch=16, lr=8e-4, ema=0.998, sample_every=500, save_every=250),
        scenes=24_576,
        reading=Plan(steps=2600, batch=64, lr=2e-3, warmup=50),
        # What a caption says shows only at noisy levels: there the objects are learned.
        timestep_power=0.4,
    ),
    "toy": LatentPreset(
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
        steps=4,
    ),
}

P = TypeVar("P")


def preset(table: Mapping[str, P], name: str) -> P:
    """Raises SuffuseError listing the known names."""
    if name not in table:
        raise SuffuseError(f"unknown preset {name!r}: choose one of {', '.join(table)}")
    return table[name]
