"""What fine-tuning presets name: every number of a run, as a table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from suffuse.data.preprocess import Preprocess
from suffuse.errors import SuffuseError
from suffuse.networks.lora import BLOCKS, LoraConfig
from suffuse.training.noising import Noising
from suffuse.training.plan import Plan

# What is said of a picture whose subject has a word of its own, {}.
TEMPLATES = (
    "a photo of {}",
    "a picture of {}",
    "a close-up photo of {}",
    "a bright photo of {}",
    "a dark photo of {}",
    "a cropped photo of {}",
    "a good photo of {}",
    "a photo of one {}",
)


@dataclass(frozen=True)
class Prior:
    """Pictures of the class that the model drew before, and how much they weigh."""

    count: int = 200
    weight: float = 1.0  # lambda of 2208.12242, eq. 2

    def __post_init__(self) -> None:
        if self.count < 1 or self.weight < 0:
            raise SuffuseError(
                f"prior preservation needs pictures and a weight of at least 0, not {self.count} "
                f"and {self.weight}"
            )


@dataclass(frozen=True)
class FinetunePreset:
    about: str
    plan: Plan
    method: Literal["full", "lora", "word"] = "lora"
    text_trained: bool = False  # full: the text encoder as well
    lora: LoraConfig = field(default_factory=LoraConfig)  # of the U-Net
    text_lora: LoraConfig | None = None  # of the text encoder
    tokens: int = 1  # that a new word is made of
    templates: tuple[str, ...] = TEMPLATES  # word: captions
    prior: Prior | None = None
    noising: Noising = field(default_factory=Noising)
    dropout: float = 0.0  # share of the captions left out, for classifier-free guidance
    preprocess: Preprocess | None = None  # None: the model's own size, cut out of the centre


def _plan(steps: int, lr: float, *, batch: int = 1, decay: float = 0.01, ema: float = 0.0) -> Plan:
    """A constant rate after a short start: there is little data and a good beginning."""
    return Plan(
        steps=steps,
        batch=batch,
        lr=lr,
        warmup=min(100, steps // 10),
        cooldown=0.0,
        weight_decay=decay,
        betas=(0.9, 0.999),
        ema=ema,
    )


FINETUNES = {
    # diffusers' examples/text_to_image: 15,000 steps of 4, rate 1e-5, averaged.
    "full": FinetunePreset(
        "the whole U-Net, on captioned pictures",
        _plan(15_000, 1e-5, batch=4, ema=0.9999),
        method="full",
        dropout=0.1,
    ),
    # The same examples' LoRA has rank 4 and rate 1e-4.
    "lora": FinetunePreset(
        "LoRA of rank 8 on attention, on captioned pictures",
        _plan(5000, 1e-4, batch=4),
        lora=LoraConfig(rank=8),
        dropout=0.05,
    ),
    "lora-blocks": FinetunePreset(
        "LoRA of rank 16 on every block, convolutions too, and on the text encoder",
        _plan(5000, 1e-4, batch=4),
        lora=LoraConfig(rank=16, alpha=8, targets=BLOCKS),
        text_lora=LoraConfig(rank=8),
        dropout=0.05,
    ),
    # diffusers' examples/textual_inversion: 3,000 steps of 4, rate 5e-4 times 4. Decay would pull
    # the word towards nothing.
    "textual-inversion": FinetunePreset(
        "a new word for what a few pictures show",
        _plan(3000, 2e-3, batch=4, decay=0.0),
        method="word",
    ),
    # 2208.12242, section 3.3: 1,000 steps at 5e-6 for Stable Diffusion, lambda = 1.
    "dreambooth": FinetunePreset(
        "the whole U-Net, on a few pictures of one subject, with prior preservation",
        _plan(1000, 5e-6),
        method="full",
        prior=Prior(),
    ),
    "dreambooth-lora": FinetunePreset(
        "LoRA of rank 8, on a few pictures of one subject, with prior preservation",
        _plan(1000, 1e-4),
        lora=LoraConfig(rank=8),
        prior=Prior(),
    ),
    "toy": FinetunePreset(
        "to try things with: LoRA of rank 4",
        Plan(steps=40, batch=2, lr=1e-3, warmup=5, ema=0.0, save_every=20, sample_every=40),
        lora=LoraConfig(rank=4),
    ),
}
