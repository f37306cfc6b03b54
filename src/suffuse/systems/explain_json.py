"""An explanation as JSON, for the studio's page and for `suffuse explain`: docs/explain.md."""

from __future__ import annotations

import base64
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from suffuse.systems.explain import Explanation, Size
from suffuse.systems.metadata import data_url, png_bytes

ESTIMATE = 256  # pixels, the longest side of a step's picture
MAPS = 20  # the most steps whose maps are told one by one
INFINITE = 40.0  # log-SNRs beyond are cut: JSON has no infinity


def described(e: Explanation) -> dict[str, Any]:
    """`Explanation.to_json`."""
    return {
        "words": _words(e),
        "prediction": e.kind,
        "steps": [_step(e, i) for i in range(len(e.alpha))],
        "attention": _attention(e) if e.attention else None,
        "latent": None if e.latent is None else {"channels": [grey(c) for c in e.latent]},
        "picture": data_url(png_bytes(e.picture)),
    }


def _words(e: Explanation) -> list[dict[str, Any]]:
    shares = e.shares().tolist() if e.attention else []
    return [
        {"text": word.text, "tokens": list(word.tokens), "share": share}
        for word, share in zip(e.words, shares)
    ]


def _step(e: Explanation, i: int) -> dict[str, Any]:
    push = e.guidance[i]
    estimate = e.draw(e.x0[i : i + 1])
    estimate.thumbnail((ESTIMATE, ESTIMATE))
    return {
        "i": i,
        "alpha": float(e.alpha[i]),
        "sigma": float(e.sigma[i]),
        "log_snr": float(e.log_snr[i].clamp(-INFINITE, INFINITE)),
        "x0": data_url(png_bytes(estimate)),
        "guidance": None if push is None else grey(push.abs().mean(0), low=0.0),
        "guidance_norm": None if push is None else float(push.norm()),
    }


def _attention(e: Explanation) -> dict[str, Any]:
    sizes = sorted(e.attention)
    finest = sizes[-1]
    whole = torch.stack([resized(e.maps(size), finest) for size in sizes]).mean(0)
    count = min(MAPS, len(whole))
    chosen = [round(k * (len(whole) - 1) / max(count - 1, 1)) for k in range(count)]
    return {
        "resolutions": [max(size) for size in sizes],
        "by_resolution": {
            str(max(size)): {"mean": [packed(m) for m in e.maps(size).mean(0)]} for size in sizes
        },
        "by_step": [{"i": i, "maps": [packed(m) for m in whole[i]]} for i in chosen],
    }


def resized(maps: Tensor, size: Size) -> Tensor:
    """(n, words, h, w) at another size; what sums to 1 over the words still does."""
    return interpolate(maps, size, mode="bilinear", align_corners=False)


def packed(part: Tensor) -> dict[str, Any]:
    """(h, w) of numbers from 0 -> bytes, 255 for the largest."""
    most = float(part.max())
    levels = (255 * part / most).round() if most > 0 else part
    data = base64.b64encode(levels.to(torch.uint8).contiguous().numpy().tobytes()).decode()
    return {"width": part.shape[1], "height": part.shape[0], "data": data, "max": most}


def grey(part: Tensor, low: float | None = None) -> str:
    """(h, w) -> a grey picture, black for `low` or its least number, white for its largest."""
    low = float(part.min()) if low is None else low
    span = max(float(part.max()) - low, torch.finfo(torch.float32).tiny)
    levels = (255 * (part - low) / span).clamp(0, 255).round().to(torch.uint8)
    return data_url(png_bytes(Image.fromarray(levels.contiguous().numpy())))
