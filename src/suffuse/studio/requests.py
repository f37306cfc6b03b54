"""Requests as the database keeps them, as strangers see them, and what a studio refuses.

In the database a picture is the hash of its file beside it; LoRAs and the like are paths, which
strangers never see.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from PIL.Image import Image

from suffuse.data.decode import to_rgb
from suffuse.errors import SuffuseError
from suffuse.studio.settings import Limits
from suffuse.studio.views import ModelView
from suffuse.systems.checks import text
from suffuse.systems.metadata import png_bytes
from suffuse.systems.request import OWN, PICTURES, Request, open_upright

LONGEST_NAME = 255  # characters of a client's name or a key


def pack(request: Request, keep: Callable[[bytes], str]) -> dict[str, Any]:
    """What `json` can write of a request; `keep` stores the bytes of a picture by their hash."""
    found = plain_fields(request)
    for name in PICTURES:
        given = getattr(request, name)
        if given is not None:
            found[name] = keep(png_bytes(_plain(open_upright(given, name)), level=1))
    return found


def plain_fields(request: Request) -> dict[str, Any]:
    """The same without the pictures."""
    found = {f.name: getattr(request, f.name) for f in fields(request) if f.name not in PICTURES}
    plain: dict[str, Any] = json.loads(json.dumps(found))  # tuples are lists when they come back
    return plain | dict.fromkeys(PICTURES)


def unpack(packed: Mapping[str, Any], find: Callable[[str], Path | None]) -> Request:
    """The reverse; `find` gives the file of a hash. Raises SuffuseError."""
    values = dict(packed)
    for name in PICTURES:
        if values[name] is not None:
            path = find(values[name])
            if path is None:
                raise SuffuseError(f"the {name} is no longer there: send it again")
            picture = open_upright(path, name)
            picture.info.clear()  # what its file said has been used, and is not sent on
            values[name] = picture
    return Request(**values)


def shown(packed: Mapping[str, Any]) -> dict[str, Any]:
    """A packed request without paths: pictures by hash and address, other files by name."""
    found = dict(packed)
    for name in PICTURES:
        if found[name] is not None:
            found[name] = {"sha256": found[name], "url": f"/api/inputs/{found[name]}.png"}
    if found["loras"] is not None:
        found["loras"] = [f"{Path(path).name}:{scale:g}" for path, scale in found["loras"]]
    if found["embeddings"] is not None:
        found["embeddings"] = [Path(path).name for path in found["embeddings"]]
    if found["classifier"] is not None:
        found["classifier"] = Path(found["classifier"]).name
    return found


def batch_key(request: Request, model: ModelView) -> str:
    """Equal for jobs that may run as one batch, as far as can be told without the model; whoever
    has the model asks `together.key`."""
    given = model.defaults.model_dump()
    found: dict[str, Any] = {"model": model.name}
    for field in fields(request):
        value = getattr(request, field.name)
        if field.name not in OWN:
            found[field.name] = given.get(field.name) if value is None else value
    guidance = model.defaults.guidance if request.guidance is None else request.guidance
    found["kind"] = (guidance == 1, request.image is None, request.mask is None)
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def check_limits(request: Request, limits: Limits) -> None:
    """Raises SuffuseError for a request that asks for more than a studio makes.

    Said of a resolved request it also counts what the model and the picture have added.
    """
    for name in ("steps", "n", "best_of", "width", "height"):
        value, most = getattr(request, name), getattr(limits, "n" if name == "best_of" else name)
        if value is not None and value > most:
            raise SuffuseError(f"{name} must be at most {most}, not {value}")
    for name in ("prompt", "negative"):
        words = getattr(request, name)
        if len(words) > limits.prompt:
            raise SuffuseError(
                f"{name} must be at most {limits.prompt} characters, not {len(words)}"
            )
        if "\0" in words:  # which PostgreSQL cannot keep
            raise SuffuseError(f"{name} has a NUL character: leave it out")
    for name in PICTURES:
        picture = getattr(request, name)
        if isinstance(picture, Image) and picture.width * picture.height > limits.pixels:
            raise SuffuseError(
                f"the {name} is {picture.width}x{picture.height}: at most {limits.pixels} pixels"
            )


def check_model(request: Request, model: ModelView) -> None:
    """Raises SuffuseError for what this model cannot draw, as far as is known without it."""
    if not model.known:
        return
    if model.kind == "text" and request.image is None and not request.prompt.strip():
        raise SuffuseError("the prompt is empty: say in a few words what to draw")
    if model.kind == "upscaler" and request.image is None:
        raise SuffuseError(f"{model.name} is an upscaler: name the image to enlarge")
    if request.boxes and "boxes" not in model.takes:
        raise SuffuseError(f"boxes are for grounded models; {model.name} takes none")
    for name in ("width", "height"):
        side, factor = getattr(request, name), model.factor or 1
        if side is not None and side % factor and model.kind != "upscaler":
            near = max(factor, round(side / factor) * factor)
            raise SuffuseError(
                f"{name} {side} is not divisible by {factor}, this model's factor: try {near}"
            )


def a_name(what: str, value: str) -> str:
    """A client's name or a key, as the database can hold it. Raises SuffuseError."""
    text(what, value)
    if not 0 < len(value) <= LONGEST_NAME or "\0" in value:
        raise SuffuseError(f"{what} must have 1 to {LONGEST_NAME} characters, none of them NUL")
    return value


def _plain(picture: Image) -> Image:
    """The picture in a mode that PNG has, with its transparency."""
    if "A" in picture.getbands() or "transparency" in picture.info:
        return picture.convert("RGBA")
    return picture.convert("L") if picture.mode in ("1", "L") else to_rgb(picture)
