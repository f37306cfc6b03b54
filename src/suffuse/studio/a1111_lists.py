"""What A1111 clients ask to know: samplers, models, LoRAs, a picture's parameters, memory."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from fastapi import APIRouter
from PIL import Image
from pydantic import BaseModel

from suffuse.diffusion.sampler_names import NAMES
from suffuse.studio import library
from suffuse.studio.a1111_options import title
from suffuse.studio.inputs import FORMATS, base64_bytes, decoding, picture
from suffuse.studio.problems import Problem
from suffuse.studio.service import Service
from suffuse.studio.settings import Limits
from suffuse.systems import infotext
from suffuse.systems.infotext import GRID_NAMES
from suffuse.systems.metadata import stored_text

# Lists of things that there are none of.
_EMPTY = (
    "sd-vae",
    "upscalers",
    "latent-upscale-modes",
    "hypernetworks",
    "face-restorers",
    "realesrgan-models",
    "prompt-styles",
    "script-info",
)
# Files are looked for whenever they are asked for, so there is nothing to refresh.
_REFRESH = ("refresh-checkpoints", "refresh-loras", "refresh-embeddings", "refresh-vae")
_RHO = {"Karras": 7.0, "Polyexponential": 1.0}


class Sent(BaseModel):
    """The body of png-info."""

    image: str


def add(api: APIRouter, service: Service) -> None:
    """Adds the routes."""

    @api.get("/samplers")
    def list_samplers() -> list[dict[str, Any]]:
        return samplers()

    @api.get("/schedulers")
    def list_schedulers() -> list[dict[str, Any]]:
        return schedulers()

    @api.get("/sd-models")
    def list_models() -> list[dict[str, Any]]:
        return models(service)

    @api.get("/loras")
    def list_loras() -> list[dict[str, Any]]:
        return loras(service.settings.folders)

    @api.get("/embeddings")
    def list_embeddings() -> dict[str, Any]:
        return embeddings(service.settings.folders)

    @api.post("/png-info")
    async def read_png(sent: Sent) -> dict[str, Any]:
        return await decoding(png_info, sent.image, service.settings.limits)

    @api.get("/memory")
    def tell_memory() -> dict[str, Any]:
        return memory()

    @api.get("/cmd-flags")
    def flags() -> dict[str, Any]:
        return {"api": True, "nowebui": False}

    @api.get("/scripts")
    def scripts() -> dict[str, Any]:
        return {"txt2img": [], "img2img": []}

    for name in _EMPTY:
        api.add_api_route(f"/{name}", _nothing, methods=["GET"], name=name)
    for name in _REFRESH:
        api.add_api_route(f"/{name}", _done, methods=["POST"], name=name)
    # The rest of the web UI's API; the page's folder would say that it takes no POST.
    methods = ["GET", "POST"]
    api.add_api_route("/{name:path}", _unknown, methods=methods, include_in_schema=False)


def _nothing() -> list[Any]:
    return []


def _done() -> None:
    return None


def _unknown(name: str) -> None:
    raise Problem(f"there is no {name[:100]!r} here", status=404)


def samplers() -> list[dict[str, Any]]:
    """Every sampler by the web UI's title; our own name is its alias."""
    return [{"name": e.title, "aliases": [name], "options": {}} for name, e in NAMES.items()]


def schedulers() -> list[dict[str, Any]]:
    """Every schedule by the web UI's name and label."""
    labels = ("Automatic", *GRID_NAMES.values(), "Normal")
    return [
        {
            "name": label.lower().replace(" ", "_"),
            "label": label,
            "aliases": None,
            "default_rho": _RHO.get(label, -1.0),
            "need_inner_model": False,
        }
        for label in labels
    ]


def models(service: Service) -> list[dict[str, Any]]:
    """Every model; its hash is known once it was opened."""
    return [
        {
            "title": title(model),
            "model_name": model.name,
            "hash": model.hash and model.hash[:10],
            "sha256": model.hash,
            "filename": model.name,
            "config": None,
        }
        for model in service.models()
    ]


def loras(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Every LoRA in the folders, by the name that a prompt's tag gives; no folder is told."""
    return [
        {"name": name, "alias": name, "path": path.name, "metadata": {}}
        for name, path in library.loras(folders).items()
    ]


def embeddings(folders: Sequence[Path]) -> dict[str, Any]:
    """Every learned word in the folders."""
    unknown = {"step": None, "sd_checkpoint": None, "sd_checkpoint_name": None}
    found = {
        word: {**unknown, "shape": known.width, "vectors": known.vectors}
        for word, known in library.words(folders).items()
    }
    return {"loaded": found, "skipped": {}}


def png_info(image: str, limits: Limits) -> dict[str, Any]:
    """What a picture says about its making. Raises Problem for what is no picture."""
    picture(image, "image", limits)  # judged before anything in it is read
    try:
        data = io.BytesIO(base64_bytes(image, "image"))
        with Image.open(data, formats=FORMATS) as file:
            items = stored_text(file)
    except (AttributeError, TypeError, ValueError):  # EXIF of another kind than it says
        raise Problem("what is written in the picture is damaged", field="image") from None
    info = items.get("parameters", "")
    return {"info": info, "items": items, "parameters": _fields(info) if info else {}}


def _fields(info: str) -> dict[str, str]:
    found = infotext.parse(info)
    fields = dict(found.fields)
    width, _, height = fields.pop("Size", "").partition("x")
    size = {"Size-1": width, "Size-2": height} if height else {}
    return {"Prompt": found.prompt, "Negative prompt": found.negative, **fields, **size}


def memory() -> dict[str, Any]:
    """Bytes of this machine's memory. What a graphics card holds only its worker knows."""
    ram = psutil.virtual_memory()
    told = {"free": ram.available, "used": ram.total - ram.available, "total": ram.total}
    return {"ram": told, "cuda": {"error": "only the workers know"}}
