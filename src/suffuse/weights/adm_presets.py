"""OpenAI's published pixel-space models: what their files do not say.

A file shows its shapes. The number of heads, the order of q, k and v and the schedule are in the
README's flags alone (openai/guided-diffusion and openai/improved-diffusion), so they stand here, in
a row that the shapes lead to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from suffuse.networks.pixel import ADMConfig


@dataclass(frozen=True)
class Published:
    """A network with its published training: `names` are the files that have it.

    `rescaled`: labels run to 1000 however many `steps` there are. `low` is the side of the picture
    that an upsampler starts from.
    """

    names: tuple[str, ...]
    config: ADMConfig
    size: int  # side of its pictures
    new_order: bool = False  # of q, k and v in the file
    schedule: str = "linear"
    steps: int = 1000
    rescaled: bool = False
    low: int = 0


# Channels of each level as multiples of the width, by the side of the picture.
_MULTIPLES: dict[int, tuple[float, ...]] = {
    32: (1, 2, 2, 2),
    64: (1, 2, 3, 4),
    128: (1, 1, 2, 3, 4),
    256: (1, 1, 2, 2, 4, 4),
    512: (0.5, 1, 1, 2, 2, 4, 4),
}


def improved(
    size: int,
    width: int,
    blocks: int,
    *,
    attention: Sequence[int] = (32, 16, 8),
    heads: int | None = None,
    multiples: Sequence[float] | None = None,
    classes: int = 1000,
    inputs: int = 3,
    scale_shift: bool = True,
    res_resample: bool = True,
) -> ADMConfig:
    """A configuration in the flags' terms: attention at these sides, heads 64 wide or so many."""
    multiples = multiples or _MULTIPLES[size]
    channels = tuple(int(width * multiple) for multiple in multiples)
    return ADMConfig(
        in_channels=inputs,
        width=width,
        channels=channels,
        blocks=blocks,
        attends=tuple(size >> level in attention for level in range(len(channels))),
        heads=tuple(heads or max(1, n // 64) for n in channels),
        classes=classes,
        scale_shift=scale_shift,
        res_resample=res_resample,
    )


def _first(
    size: int,
    width: int,
    attention: Sequence[int],
    *,
    blocks: int = 3,
    heads: int = 4,
    classes: int = 0,
    inputs: int = 3,
    scale_shift: bool = True,
) -> ADMConfig:
    """Improved DDPM: convolutions change the resolution, heads are counted."""
    return improved(
        size,
        width,
        blocks,
        attention=attention,
        heads=heads,
        classes=classes,
        inputs=inputs,
        scale_shift=scale_shift,
        res_resample=False,
    )


PUBLISHED = (
    Published(
        ("64x64_diffusion",), improved(64, 192, 3), 64, new_order=True, schedule="cosine"
    ),
    Published(("128x128_diffusion",), improved(128, 256, 2, heads=4), 128),
    Published(("256x256_diffusion",), improved(256, 256, 2), 256),
    Published(
        ("256x256_diffusion_uncond", "lsun_bedroom", "lsun_cat", "lsun_horse",
         "lsun_horse_nodropout"),
        improved(256, 256, 2, classes=0), 256,
    ),
    Published(("512x512_diffusion",), improved(512, 256, 2), 512),
    Published(
        ("64_256_upsampler",), improved(256, 192, 2, heads=4, inputs=6), 256, low=64
    ),
    Published(
        ("128_512_upsampler",),
        improved(512, 192, 2, attention=(32, 16), multiples=_MULTIPLES[256], inputs=6),
        512, low=128,
    ),
    Published(
        ("imagenet64_uncond_100M_1500K", "imagenet64_uncond_vlb_100M_1500K"),
        _first(64, 128, (16, 8)), 64, schedule="cosine", steps=4000, rescaled=True,
    ),
    Published(
        ("imagenet64_cond_270M_250K",),
        _first(64, 192, (16, 8), classes=1000), 64, schedule="cosine", steps=4000,
    ),
    Published(
        ("cifar10_uncond_50M_500K", "cifar10_uncond_vlb_50M_500K"),
        _first(32, 128, (16, 8)), 32, schedule="cosine", steps=4000, rescaled=True,
    ),
    Published(
        ("upsample_cond_500K",),
        _first(256, 192, (16, 8), blocks=2, classes=1000, inputs=6), 256, steps=4000, low=64,
    ),
    Published(
        ("lsun_uncond_100M_1200K_bs128", "lsun_uncond_100M_2400K_bs64"),
        _first(256, 128, (16,), blocks=2, heads=1, scale_shift=False), 256,
    ),
)  # fmt: skip


USUAL = 1000  # steps, of a linear schedule, where nothing is known


def scheduler(row: Published | None, learned: bool) -> dict[str, Any]:
    """diffusers' `scheduler_config.json` of a row's training; the usual one of no row."""
    steps = row.steps if row else USUAL
    cosine = row is not None and row.schedule == "cosine"
    return {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": steps,
        "beta_schedule": "squaredcos_cap_v2" if cosine else "linear",
        "beta_start": 0.1 / steps,  # DDPM's ends, for its thousand steps
        "beta_end": 20 / steps,
        "variance_type": "learned_range" if learned else "fixed_large",
        "clip_sample": True,
        "timestep_spacing": "leading",
    }


def published(shape: ADMConfig) -> Published | None:
    """The row with these shapes, or None; heads are not compared."""

    def visible(c: ADMConfig) -> ADMConfig:
        return replace(c, heads=(), up_heads=None, dropout=0.0, label_scale=1.0)

    return next((row for row in PUBLISHED if visible(row.config) == visible(shape)), None)
