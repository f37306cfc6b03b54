"""CLIP in use: pictures and texts as points of one space, near each other where they agree.

Radford et al. 2021, "Learning transferable visual models from natural language supervision"
(arXiv 2103.00020). Every point has length 1, so a dot product is a cosine.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from suffuse.data.decode import upright
from suffuse.systems.latent import choose_device, choose_dtype
from suffuse.text.tokenizer import Tokenizer
from suffuse.weights.clip import ClipParts, open_clip_parts
from suffuse.weights.parts import Hints, Info

if TYPE_CHECKING:
    from PIL.Image import Image

_BATCH = 64  # pictures or texts that go through a tower together
_SHOWN = 24  # characters of a text in messages


def load_clip(
    source: str | PathLike[str] | None = None,
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
    **hints: Any,
) -> Clip:
    """Opens a CLIP: the bundled one without a source, a folder, a file, a Hub name.

    `device` and `dtype` are as for `load`. `hints` say what a file cannot: activation ("gelu",
    "quick_gelu"), heads, text_heads, tokenizer (a folder). Raises SuffuseError.
    """
    place = choose_device(device)
    chosen = choose_dtype(dtype, place)
    return Clip(open_clip_parts(source, device=place, dtype=chosen, hints=Hints(**hints)))


def _warn(line: str) -> None:
    warnings.warn(line, stacklevel=4)


@dataclass(frozen=True, eq=False)
class Clip:
    """Two towers made of `parts`; it holds no state between calls."""

    parts: ClipParts

    @property
    def info(self) -> Info:
        """Name, format, files and hash of the checkpoint."""
        return self.parts.info

    @property
    def width(self) -> int:
        """Numbers of a point."""
        return self.parts.width

    @property
    def scale(self) -> float:
        """What cosines are multiplied with before a softmax: 1 / temperature."""
        return float(self.parts.model.logit_scale.detach().float().exp())

    @property
    def device(self) -> torch.device:
        return self.parts.model.logit_scale.device

    def images(self, pictures: Sequence[Image]) -> Tensor:
        """Pictures of any size, mode and rotation -> (N, D) float32 on the CPU, of length 1."""
        found = [
            self.embed(torch.stack([self.prepare(picture) for picture in group]))
            for group in _groups(pictures)
        ]
        return torch.cat(found) if found else torch.empty(0, self.width)

    def texts(self, texts: Sequence[str], note: Callable[[str], None] = _warn) -> Tensor:
        """Texts -> (N, D) float32 on the CPU, of length 1.

        What does not fit into the window is cut off, and `note` gets a line that says where.
        """
        found = [self._embed_texts(self.ids(group, note)) for group in _groups(texts)]
        return torch.cat(found) if found else torch.empty(0, self.width)

    def prepare(self, picture: Image) -> Tensor:
        """A picture of any size, mode and rotation -> (3, side, side), as `embed` takes it.

        This is all that is done to it on the CPU, so it may run in other threads.
        """
        return self.parts.prepare.prepare(upright(picture))

    @torch.inference_mode()
    def embed(self, pixels: Tensor) -> Tensor:
        """Prepared pictures (B, 3, side, side) -> (B, D) float32 on the CPU, of length 1."""
        scale = self.parts.model.logit_scale
        made = self.parts.model.embed_images(pixels.to(scale.device, scale.dtype))
        return normalize(made.float(), dim=1).cpu()

    def ids(self, texts: Sequence[str], note: Callable[[str], None] = _warn) -> Tensor:
        """Texts -> (B, window) int64, one window each; `note` as for `texts`."""
        return window_ids(self.parts.tokenizer, texts, note)

    @torch.inference_mode()
    def _embed_texts(self, ids: Tensor) -> Tensor:
        made = self.parts.model.embed_texts(ids.to(self.device))
        return normalize(made.float(), dim=1).cpu()


def window_ids(
    tokenizer: Tokenizer, texts: Sequence[str], note: Callable[[str], None] = _warn
) -> Tensor:
    """Texts -> (B, window) int64, one window each; `note` gets a line for each that is cut."""
    room = tokenizer.window - 2
    rows = [tokenizer.windows(text) for text in texts]  # (W, window) each
    for text, row in zip(texts, rows):
        if len(row) > 1:
            end = tokenizer.spans(text)[room - 1][1]
            note(
                f"a text is longer than the {room} tokens that this CLIP reads: cut after "
                f"{_tail(text[:end])!r}, before {_head(text[end:])!r}"
            )
    first = [torch.from_numpy(row[0]) for row in rows]
    return torch.stack(first) if first else torch.empty(0, tokenizer.window, dtype=torch.long)


def _groups(things: Sequence[Any]) -> list[Sequence[Any]]:
    return [things[i : i + _BATCH] for i in range(0, len(things), _BATCH)]


def _tail(text: str) -> str:
    return text if len(text) <= _SHOWN else "…" + text[-_SHOWN:]


def _head(text: str) -> str:
    text = text.lstrip()
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
