"""CLIP score: do pictures show what was asked for? (2104.08718, without its factor of 2.5.)

Both towers come from a folder in transformers' layout, through that library's `CLIPModel`. Pictures
are prepared here, as the folder's `preprocessor_config.json` says: the library's own way would
need torchvision.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from suffuse.errors import SuffuseError
from suffuse.weights.load import locate_source
from suffuse.weights.parts import Place

PREPROCESSOR = "preprocessor_config.json"


@dataclass(frozen=True)
class ClipInput:
    """How a CLIP takes pictures; the defaults are OpenAI's.

    size: what the shorter side is brought to, bicubic;  crop: the side of the middle that is kept
    """

    size: int = 224
    crop: int = 224
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    spread: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)

    @classmethod
    def load(cls, folder: Path) -> ClipInput:
        """What the folder says; OpenAI's where it says nothing. Raises SuffuseError."""
        path = folder / PREPROCESSOR
        if not path.is_file():
            return cls()
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            size, crop = raw.get("size", 224), raw.get("crop_size", 224)
            made = cls(
                int(size["shortest_edge"] if isinstance(size, dict) else size),
                int(crop["height"] if isinstance(crop, dict) else crop),
                tuple(map(float, raw.get("image_mean", cls.mean))),
                tuple(map(float, raw.get("image_std", cls.spread))),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
            line = " ".join(str(problem).split())
            raise SuffuseError(f"{path}: is not a CLIP's preprocessing ({line})") from None
        if raw.get("resample", 3) != Image.Resampling.BICUBIC or made.crop > made.size:
            raise SuffuseError(f"{path}: only bicubic resizing, then a smaller crop, is supported")
        return made

    def prepare(self, image: Image.Image) -> Tensor:
        """An RGB picture of any size -> (3, crop, crop)."""
        width, height = image.size
        short = min(width, height)
        sides = (self.size * width // short, self.size * height // short)
        image = image.resize(sides, Image.Resampling.BICUBIC)
        x, y = (sides[0] - self.crop) // 2, (sides[1] - self.crop) // 2
        image = image.crop((x, y, x + self.crop, y + self.crop))
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255  # (3, H, W)
        mean, spread = (torch.tensor(row)[:, None, None] for row in (self.mean, self.spread))
        return (pixels - mean) / spread


class Clip:
    """A CLIP that judges. `source` names it, for reports."""

    def __init__(self, model: Any, tokenizer: Any, prepare: ClipInput, source: str):
        self.model, self.tokenizer, self.input, self.source = model, tokenizer, prepare, source

    @torch.inference_mode()
    def scores(self, pairs: Iterable[tuple[Image.Image, str]]) -> Tensor:
        """100 max(0, cosine) of each picture (RGB) with its text, (N,)."""
        found = [self._score(image, text) for image, text in pairs]
        return torch.stack(found) if found else torch.empty(0)

    def _score(self, image: Image.Image, text: str) -> Tensor:
        window = self.model.config.text_config.max_position_embeddings
        words = self.tokenizer([text], truncation=True, max_length=window, return_tensors="pt")
        device = self.model.device
        seen = self.model(
            pixel_values=self.input.prepare(image)[None].to(device),
            input_ids=words["input_ids"].to(device),
            attention_mask=words["attention_mask"].to(device),
        )
        one, other = seen.image_embeds.float(), seen.text_embeds.float()
        return 100 * torch.cosine_similarity(one, other).clamp_min(0)[0].cpu()


def open_clip(source: str | PathLike[str], device: torch.device | str = "cpu") -> Clip:
    """A CLIP in transformers' layout, from a folder or the Hub; only safetensors are opened.

    Raises SuffuseError where it is none, or transformers is not installed.
    """
    try:
        from transformers import CLIPModel, CLIPTokenizer
        from transformers.utils import logging
    except ImportError:
        raise SuffuseError("a CLIP score needs transformers: pip install transformers") from None
    folder = locate_source(source, Place())[0]
    if not (folder / "config.json").is_file():
        raise SuffuseError(f"{folder}: is no CLIP in transformers' layout, it has no config.json")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # it would write across ours
    try:
        model = CLIPModel.from_pretrained(folder, use_safetensors=True, local_files_only=True)
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as problem:  # the library raises what it likes
        line = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        raise SuffuseError(f"{folder}: cannot be opened as a CLIP ({line[:160]})") from None
    finally:
        if shown:
            logging.enable_progress_bar()
    return Clip(model.eval().to(device), tokenizer, ClipInput.load(folder), str(source))
