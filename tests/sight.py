"""A tiny CLIP with random weights, made of the package's own networks, and pictures to show it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tiny import TOKENIZER, randomise

from suffuse.networks import clip as networks
from suffuse.networks.clip import ClipText, ClipTextConfig
from suffuse.networks.clip_vision import ClipVision, ClipVisionConfig
from suffuse.systems.clip import Clip
from suffuse.text.tokenizer import load_tokenizer
from suffuse.weights.clip import ClipParts, save_clip
from suffuse.weights.clip_input import ClipInput

SIDE = 32  # pixels that it sees


def clip(seed: int = 1) -> Clip:
    """One for each seed."""
    tokenizer = load_tokenizer(TOKENIZER)
    words = ClipTextConfig(
        vocab=tokenizer.size, width=32, layers=1, heads=2, intermediate=64, projection=16
    )
    sight = ClipVisionConfig(SIDE, 8, 32, 1, 2, 64, projection=16)
    model = networks.Clip(ClipText(words), ClipVision(sight)).eval()
    randomise(model, seed)
    with torch.no_grad():
        model.logit_scale.fill_(1.0)
    return Clip(ClipParts(model, tokenizer, ClipInput(SIDE, SIDE)))


def saved(folder: Path, seed: int = 1) -> Path:
    """The folder of one, as commands open it."""
    save_clip(clip(seed).parts, folder, torch.float32)
    return folder


def picture(seed: int, size: tuple[int, int] = (40, 32)) -> Image.Image:
    """Coloured blobs, others for each seed."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(small).resize(size)
