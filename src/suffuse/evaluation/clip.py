"""CLIP score: do pictures show what was asked for? (2104.08718, without its factor of 2.5.)

Both towers come from a folder in transformers' layout, through that library's `CLIPModel`. Pictures
are prepared here, as the folder's `preprocessor_config.json` says: the library's own way would
need torchvision.
"""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from suffuse.errors import SuffuseError
from suffuse.weights.clip_input import ClipInput
from suffuse.weights.load import locate_source
from suffuse.weights.parts import Place


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
