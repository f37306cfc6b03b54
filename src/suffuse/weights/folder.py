"""diffusers folders: `model_index.json`, and one folder for each component."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from suffuse.errors import SuffuseError
from suffuse.networks.autoencoder import Autoencoder, autoencoder
from suffuse.networks.clip import ClipText
from suffuse.networks.families import stable_diffusion
from suffuse.text.tokenizer import load_tokenizer
from suffuse.weights.configs import text_config, unet_config
from suffuse.weights.containers import find_weights, open_tensors
from suffuse.weights.fields import configured, numbers
from suffuse.weights.maps.diffusers_unet import DIFFUSERS_UNET
from suffuse.weights.maps.diffusers_vae import DIFFUSERS_VAE
from suffuse.weights.maps.hf_clip_text import HF_CLIP_TEXT
from suffuse.weights.parts import (
    Defaults,
    Hints,
    Info,
    Parts,
    Place,
    build,
    files_of,
    precision,
    sampling_of,
    with_heads,
    with_text_hints,
)
from suffuse.weights.pixel import Enlarging
from suffuse.weights.tensorfile import show
from suffuse.weights.vae_config import KL, VQ, autoencoder_config, latent_scaling

INDEX = "model_index.json"
OWN = "suffuse.json"  # what diffusers' files have no place for

# Pipelines that are the same parts used differently.
PIPELINES = (
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionInpaintPipelineLegacy",
)
# Safety checker and feature extractor are not among them: Suffuse does not judge pictures.
_COMPONENTS = {
    "unet": ("UNet2DConditionModel",),
    "vae": (KL, VQ),
    "text_encoder": ("CLIPTextModel", "CLIPTextModelWithProjection"),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast", "PreTrainedTokenizerFast"),
    "scheduler": (),
}


def open_folder(folder: Path, hints: Hints, place: Place, name: str | None = None) -> Parts:
    """The parts of a diffusers folder; `name` where the folder's own says nothing.

    Raises SuffuseError naming the file and what is wrong with it.
    """
    check_index(folder, PIPELINES)
    return open_components(folder, hints, place, name)


def open_components(
    folder: Path, hints: Hints, place: Place, name: str | None = None, vector: bool = False
) -> Parts:
    """The same of any pipeline with Stable Diffusion's components.

    vector: whether the U-Net has that door
    """
    own = read_own(folder)
    unet_file = folder / "unet" / "config.json"
    raw = read_json(unet_file)
    config = with_heads(unet_config(raw, str(unet_file), vector), hints, str(unet_file))
    variant = "non_ema" if hints.ema is False else precision(place)
    unet_weights = open_tensors(find_weights(folder / "unet", variant=variant))
    vae = read_json(folder / "vae" / "config.json")
    scale, shift = latent_scaling(vae)
    scheduler = folder / "scheduler" / "scheduler_config.json"
    return Parts(
        unet=build(lambda: stable_diffusion(config), DIFFUSERS_UNET, unet_weights, place),
        unet_config=config,
        autoencoder=_autoencoder(folder / "vae", vae, own, place),
        text=open_text(folder / "text_encoder", hints, place),
        tokenizer=load_tokenizer(hints.tokenizer or folder / "tokenizer"),
        sampling=sampling_of(read_json(scheduler), hints, str(scheduler)),
        latent_scale=scale if hints.scale is None else hints.scale,
        latent_shift=shift,
        latent_size=latent_size(raw, str(unet_file)),
        defaults=own.defaults,
        info=Info(
            name or folder.resolve().name, "diffusers folder", folder, files_of(unet_weights)
        ),
    )


def open_autoencoder(folder: Path, place: Place | None = None) -> Autoencoder:
    """The autoencoder of a model folder, or one that `save_autoencoder` wrote, or one's own folder.

    Raises SuffuseError naming the file and what is wrong with it.
    """
    inside = folder if (folder / "config.json").is_file() else folder / "vae"
    raw = read_json(inside / "config.json")
    return _autoencoder(inside, raw, read_own(folder), place or Place())


def _autoencoder(folder: Path, raw: dict[str, Any], own: Own, place: Place) -> Autoencoder:
    config = autoencoder_config(raw, str(folder / "config.json"), own.patch)
    config = replace(config, shortcut=own.shortcut, decoder=own.decoder)
    weights = open_tensors(find_weights(folder, variant=precision(place)))
    return build(lambda: autoencoder(config), DIFFUSERS_VAE, weights, place)


def open_text(folder: Path, hints: Hints, place: Place) -> ClipText:
    """The text tower in a component's folder. Raises SuffuseError."""
    file = folder / "config.json"
    config = with_text_hints(text_config(read_json(file), str(file)), hints)
    weights = open_tensors(find_weights(folder, variant=precision(place)))
    return build(lambda: ClipText(config), HF_CLIP_TEXT, weights, place)


def check_index(folder: Path, pipelines: tuple[str, ...]) -> None:
    """Refuse a pipeline that is none of these, or a component of one that is not what we build."""
    file = folder / INDEX
    index = read_json(file)
    if index.get("_class_name") not in pipelines:
        raise SuffuseError(
            f"{file}: the pipeline class {show(index.get('_class_name'))} is not supported; "
            f"supported are {', '.join(pipelines)}"
        )
    for part, known in _COMPONENTS.items():
        entry = index.get(part)
        found = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
        if found not in known if known else found is None:
            raise SuffuseError(f"{file}: {part} = {show(entry)} is not supported")


def latent_size(raw: Mapping[str, Any], where: str) -> tuple[int, int]:
    """Height and width in latent cells that a U-Net was trained at; 64 if it does not say.

    Folders written before diffusers 0.9 may say 32, the class default of those days, and mean 64
    (`pipeline_stable_diffusion.py` corrects them too).
    """
    size = raw.get("sample_size")
    sides = [64] if size is None else size if isinstance(size, list) else [size]
    if len(sides) not in (1, 2) or not all(type(n) is int and n > 0 for n in sides):
        raise SuffuseError(f"{where}: sample_size = {show(size)} is not supported")
    old = re.match(r"0\.[0-8]\.", str(raw.get("_diffusers_version")))
    return (64, 64) if old and sides[0] < 64 else (sides[0], sides[-1])


@dataclass(frozen=True)
class Own:
    """`suffuse.json`: recommended settings, and what diffusers' files have no field for."""

    defaults: Defaults = field(default_factory=Defaults)
    patch: int = 1  # side of the square of pixels behind each input of the autoencoder
    shortcut: bool = False  # whether the autoencoder has one
    decoder: tuple[int, ...] = ()  # its decoder's channels, if not the encoder's
    classes: tuple[str, ...] = ()  # names of a pixel model's classes
    enlarging: Enlarging | None = None  # of an upscaler
    prior: Mapping[str, Any] = field(default_factory=dict)  # how that of an unCLIP is sampled
    upsamplers: int = 0  # of an unCLIP: how many it has


def read_own(folder: Path) -> Own:
    """A folder's `suffuse.json`, if it has one. Raises SuffuseError for what it does not know."""
    file = folder / OWN
    if not file.is_file():
        return Own()
    raw = read_json(file)
    for name, value in raw.items():
        # `type`, because to `isinstance` a bool is an int as well.
        fits = type(value) in _OWN_KINDS.get(name, ())
        if not fits or (type(value) in (int, float) and value <= 0):
            raise SuffuseError(f"{file}: {name} = {show(value)} is not supported")
    patch, shortcut = raw.pop("patch", 1), raw.pop("shortcut", False)
    decoder = numbers(raw, "decoder", (), str(file)) if "decoder" in raw else ()
    raw.pop("decoder", None)
    classes = tuple(map(str, raw.pop("classes", ())))
    upscale = raw.pop("upscale", None)
    enlarging = None if upscale is None else configured(Enlarging(), upscale, f"{file}: upscale")
    raw.pop("perceptual", None)  # for people: what its training compared pictures with
    prior, upsamplers = raw.pop("prior", {}), raw.pop("upsamplers", 0)
    told = Defaults(**raw)
    return Own(told, patch, shortcut, decoder, classes, enlarging, prior, upsamplers)


_OWN_KINDS: dict[str, tuple[type, ...]] = {
    "steps": (int,),
    "guidance": (int, float),
    "card": (str,),
    "objects": (int,),
    "patch": (int,),
    "shortcut": (bool,),
    "decoder": (list,),
    "perceptual": (str,),
    "classes": (list,),
    "upscale": (dict,),
    "prior": (dict,),
    "upsamplers": (int,),
}


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object. Raises SuffuseError naming the file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SuffuseError(f"{file}: this file of the model is missing") from None
    except (OSError, ValueError, RecursionError) as problem:
        raise SuffuseError(f"{file}: not readable as JSON ({show(str(problem))})") from None
    if not isinstance(content, dict):
        raise SuffuseError(f"{file}: expected a JSON object")
    return content
