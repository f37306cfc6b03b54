"""What `--preset` names for CLIP: every number of a training run, as a table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from suffuse.data.emoji import World
from suffuse.data.preprocess import Preprocess
from suffuse.networks.clip import ClipTextConfig
from suffuse.networks.clip_resnet import ClipResNetConfig
from suffuse.networks.clip_vision import ClipVisionConfig
from suffuse.training.plan import Plan
from suffuse.training.presets import Target
from suffuse.weights.clip_input import ClipInput

# Where the text tower begins: in the bundled text-to-image model, or afresh, with a tokenizer that
# is learned from captions or with OpenAI's.
Words = Literal["bundled", "learned", "openai"]


@dataclass(frozen=True)
class ClipPreset:
    """image: the picture tower, a vision transformer or a modified ResNet
    frozen: first blocks of a text tower that begins in a model which stand still
    """

    about: str
    text: ClipTextConfig  # its `vocab` is what a learned tokenizer may have at most
    plan: Plan
    image: ClipVisionConfig | ClipResNetConfig
    input: ClipInput = field(default_factory=ClipInput)
    words: Words = "openai"
    frozen: int = 0
    data: Literal["emoji"] | None = None  # where none are named; None: they must be
    captions: int = 12_000  # whose words a tokenizer is learned from
    world: World = field(default_factory=World)  # of the emoji
    preprocess: Preprocess = field(default_factory=Preprocess)  # of data that are named
    target: Target | None = None


def _published(
    about: str,
    text: ClipTextConfig,
    image: ClipVisionConfig | ClipResNetConfig,
    lr: float,
    score: str,
    cost: str,
    beta: float = 0.999,
) -> ClipPreset:
    """Tables 18 to 20 of the paper: 32 epochs of 400 million pairs in batches of 32,768. The rate
    there falls along a cosine; here it is level and then falls along a line."""
    plan = Plan(
        steps=390_000,
        batch=32_768,
        lr=lr,
        warmup=2000,
        weight_decay=0.2,
        decayed="matrices",
        betas=(0.9, beta),
        save_every=1000,
        sample_every=10_000,
    )
    side = image.image
    return ClipPreset(
        about,
        text,
        plan,
        image,
        ClipInput(side, side),
        preprocess=Preprocess(side),
        target=Target(score, cost, "2103.00020, section 2.5, tables 11 and 18 to 20"),
    )


def _text(width: int, heads: int, projection: int) -> ClipTextConfig:
    return ClipTextConfig(width=width, heads=heads, intermediate=4 * width, projection=projection)


# Pictures as the autoencoder takes them, in [-1, 1].
EVEN = (0.5, 0.5, 0.5)

CLIPS = {
    "emoji": ClipPreset(
        "scenes of the emoji world, in English and Korean",
        ClipTextConfig(
            vocab=1536,
            width=192,
            layers=4,
            heads=4,
            context=32,
            intermediate=768,
            eos=1,
            projection=192,
        ),
        Plan(
            steps=900,
            batch=128,
            lr=2e-3,
            warmup=100,
            weight_decay=0.05,
            betas=(0.9, 0.98),
            ema=0.998,
            save_every=100,
            sample_every=400,
        ),
        ClipResNetConfig(128, (1, 1, 1, 1), 16, 8, 192),
        ClipInput(128, 128, EVEN, EVEN),
        words="bundled",
        frozen=2,
        data="emoji",
        preprocess=Preprocess(128),
    ),
    "toy": ClipPreset(
        "a vision transformer that trains in seconds and finds little",
        ClipTextConfig(
            vocab=600, width=32, layers=1, heads=2, context=32, intermediate=64, projection=16
        ),
        Plan(steps=4, batch=4, warmup=1, save_every=2, sample_every=4),
        ClipVisionConfig(128, 32, 32, 1, 2, 64, projection=16),
        ClipInput(128, 128),
        words="learned",
        data="emoji",
        captions=200,
        world=World(objects=8, shapes=False),
        preprocess=Preprocess(128),
    ),
    "rn50": _published(
        "RN50",
        _text(512, 8, 1024),
        ClipResNetConfig(),
        5e-4,
        "ImageNet, zero-shot: 59.6 %",
        "18 days on 592 V100s for RN50x64",
    ),
    "vit-b-32": _published(
        "ViT-B/32",
        _text(512, 8, 512),
        ClipVisionConfig(),
        5e-4,
        "ImageNet, zero-shot: 63.2 %",
        "12 days on 256 V100s for ViT-L/14",
        beta=0.98,
    ),
    "vit-l-14": _published(
        "ViT-L/14",
        _text(768, 12, 768),
        ClipVisionConfig(224, 14, 1024, 24, 16, 4096, projection=768),
        4e-4,
        "ImageNet, zero-shot: 75.3 %",
        "12 days on 256 V100s",
        beta=0.98,
    ),
}
