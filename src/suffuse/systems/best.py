"""Which of many pictures are kept: those that a CLIP finds nearest to the prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from suffuse.systems.request import Progress, Request

if TYPE_CHECKING:
    from suffuse.systems.clip import Clip


def chosen(
    request: Request, drawn: Sequence[Progress], judge: Clip | None, device: torch.device
) -> Iterator[Progress]:
    """The last steps of a request's pictures: without a result those that are left out, then the
    `n` nearest to the prompt by the cosine of their embeddings, the nearest first.

    judge: None = the bundled CLIP, on `device`. Raises SuffuseError.
    """
    clip = _bundled(str(device)) if judge is None else judge
    pictures = [step.result for step in drawn if step.result is not None]
    nearness = clip.images(pictures) @ clip.texts([request.prompt])[0]  # (pictures,)
    # Stable, so that of equal pictures the first seed is kept on every machine.
    order = nearness.argsort(descending=True, stable=True).tolist()
    for i in sorted(order[request.n :]):
        yield drawn[i]._replace(result=None)
    for i in order[: request.n]:
        yield drawn[i]


@lru_cache(maxsize=2)
def _bundled(device: str) -> Clip:
    from suffuse.systems.clip import load_clip

    return load_clip(None, device=device)
