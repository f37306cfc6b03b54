"""`save_parts`: a model as a diffusers folder, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

import tokenizers
import torch
from safetensors.torch import save_file
from tokenizers import processors
from torch import nn

from suffuse.errors import SuffuseError
from suffuse.networks.autoencoder import Autoencoder
from suffuse.networks.pixel import DDPMConfig
from suffuse.text.tokenizer import Tokenizer
from suffuse.weights.configs import text_json, unet_json
from suffuse.weights.fields import plain
from suffuse.weights.folder import INDEX, OWN
from suffuse.weights.mapping import KeyMap, export, some
from suffuse.weights.maps.diffusers_unet import DIFFUSERS_UNET, DIFFUSERS_UNET2D
from suffuse.weights.maps.diffusers_vae import DIFFUSERS_VAE
from suffuse.weights.maps.hf_clip_text import HF_CLIP_TEXT
from suffuse.weights.parts import Parts
from suffuse.weights.pixel import PixelModel
from suffuse.weights.pixel_folder import FAMILIES, SCHEDULER, family_json, family_of
from suffuse.weights.unet2d import unet2d_json
from suffuse.weights.vae_config import autoencoder_json, class_name

# All that a folder of ours may hold, so that nothing else is ever replaced.
_OURS = {INDEX, OWN, "preprocessing.json", "unet", "vae", "text_encoder", "tokenizer", "scheduler"}


def save_parts(
    parts: Parts, folder: str | PathLike[str], dtype: torch.dtype = torch.float16
) -> None:
    """Write a folder that `open_parts` and diffusers' StableDiffusionPipeline open.

    An autoencoder with a patch is, to diffusers, one over more channels: each component opens
    there, and its pictures are to be folded back (`torch.pixel_shuffle`). diffusers has no shift
    of latents for this pipeline. An earlier model in `folder` is replaced once the new one is
    complete. Raises SuffuseError when `folder` cannot be written, holds something else, or a
    weight does not fit `dtype`.
    """

    def write(fresh: Path) -> None:
        unet = unet_json(parts.unet_config, parts.latent_size)
        text = text_json(parts.text.config, parts.tokenizer.bos, parts.tokenizer.pad)
        write_component(fresh / "unet", unet, parts.unet, DIFFUSERS_UNET, dtype)
        write_component(fresh / "text_encoder", text, parts.text, HF_CLIP_TEXT, dtype, "model")
        _vae(fresh, parts.autoencoder, dtype, parts)
        write_tokenizer(fresh / "tokenizer", parts.tokenizer)
        scheduler = parts.sampling.config
        write_json(fresh / "scheduler" / "scheduler_config.json", scheduler)
        vae = class_name(parts.autoencoder.config)
        write_json(fresh / INDEX, _index(text["architectures"][0], scheduler["_class_name"], vae))

    replace_folder(Path(folder), write)


def save_autoencoder(
    autoencoder: Autoencoder,
    folder: str | PathLike[str],
    dtype: torch.dtype = torch.float16,
    perceptual: str | None = None,
) -> None:
    """Write an autoencoder alone, as `open_autoencoder` reads it; its latents' scale is not known.

    `perceptual` says what its training compared pictures with. Raises SuffuseError as `save_parts`
    does.
    """
    own = {} if perceptual is None else {"perceptual": perceptual}
    replace_folder(Path(folder), lambda fresh: _vae(fresh, autoencoder, dtype, own=own))


def save_pixel(
    model: PixelModel[Any], folder: str | PathLike[str], dtype: torch.dtype = torch.float32
) -> None:
    """Write a folder that `open_unet2d` opens, and diffusers' DDPMPipeline; of a network that
    diffusers does not have, one for `open_pixel`.

    That pipeline knows no classes: of a model that has some it opens the parts and cannot draw.
    Raises SuffuseError as `save_parts` does, and for a DDPM of unknown size.
    """
    config: Mapping[str, Any]
    if isinstance(model.config, DDPMConfig):
        if model.size is None:
            raise SuffuseError(f"{model.info.name}: a model of unknown size cannot be saved")
        config, keys = unet2d_json(model.config, model.size), DIFFUSERS_UNET2D
        index = ("DDPMPipeline", "diffusers", "UNet2DModel")
    else:
        family = family_of(model.config)
        config, keys = family_json(model, family), FAMILIES[family].keys(model.config)
        index = (family, "suffuse", family)
    said = {**asdict(model.defaults), "classes": list(model.classes) or None}
    said["upscale"] = None if model.enlarging is None else plain(model.enlarging)

    def write(fresh: Path) -> None:
        write_component(fresh / "unet", config, model.unet, keys, dtype)
        write_json(fresh / OWN, {name: value for name, value in said.items() if value is not None})
        parts = {"unet": [index[1], index[2]]}
        if model.scheduler:
            write_json(fresh / SCHEDULER, model.scheduler)
            parts["scheduler"] = [index[1], model.scheduler["_class_name"]]
        write_json(fresh / INDEX, {"_class_name": index[0], **parts})

    replace_folder(Path(folder), write)


def replace_folder(
    folder: Path, write: Callable[[Path], None], ours: Collection[str] = _OURS
) -> None:
    """Let `write` fill a new folder, then put it in the place of `folder`.

    ours: all that it may hold, so that nothing else is ever replaced. Raises SuffuseError.
    """
    folder = folder.expanduser().resolve()
    _check_replaceable(folder, ours)
    fresh, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{n}") for n in ("new", "old"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(fresh, ignore_errors=True)  # of a crashed process with the same number
        fresh.mkdir()
        write(fresh)
        if folder.exists():
            os.rename(folder, old)
        try:
            os.rename(fresh, folder)
        except OSError:
            if old.exists():
                os.rename(old, folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except OSError as problem:
        raise SuffuseError(f"{folder}: cannot be written ({problem.strerror})") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _check_replaceable(folder: Path, ours: Collection[str]) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise SuffuseError(f"{folder}: is a file; name a folder")
    other = sorted(p.name for p in folder.iterdir() if p.name not in ours)
    if other:
        raise SuffuseError(f"{folder}: holds {some(other)} besides a model; name another folder")


def _vae(
    folder: Path,
    autoencoder: Autoencoder,
    dtype: torch.dtype,
    parts: Parts | None = None,
    own: Mapping[str, Any] | None = None,
) -> None:
    """The autoencoder, and what diffusers' files have no field for: `suffuse.json`."""
    c = autoencoder.config
    scale, shift = (parts.latent_scale, parts.latent_shift) if parts else (1.0, 0.0)
    raw = autoencoder_json(c, scale, shift, (parts.latent_size[0] if parts else 64) * c.factor)
    write_component(folder / "vae", raw, autoencoder, DIFFUSERS_VAE, dtype)
    said = {**(own or {}), **(asdict(parts.defaults) if parts else {})}
    said["patch"] = c.patch if c.patch > 1 else None
    said["shortcut"] = c.shortcut or None
    said["decoder"] = list(c.decoder) or None
    write_json(folder / OWN, {name: value for name, value in said.items() if value is not None})


def _index(text: str, scheduler: str, vae: str) -> dict[str, Any]:
    return {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", scheduler],
        "text_encoder": ["transformers", text],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", vae],
    }


def write_component(
    folder: Path,
    config: Mapping[str, Any],
    network: nn.Module,
    keys: KeyMap,
    dtype: torch.dtype,
    stem: str = "diffusion_pytorch_model",
) -> None:
    """The folder of one network in diffusers' layout."""
    write_json(folder / "config.json", config)
    weights = export(network, keys, dtype)
    save_file(weights, folder / f"{stem}.safetensors", metadata={"format": "pt"})


def write_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """`tokenizer.json`, which transformers and `load_tokenizer` read alike."""
    folder.mkdir(exist_ok=True)
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    token = {role: backend.id_to_token(getattr(tokenizer, role)) for role in ("bos", "eos", "pad")}
    backend.post_processor = processors.TemplateProcessing(
        single=[token["bos"], "$A", token["eos"]],
        special_tokens=[(token[role], getattr(tokenizer, role)) for role in ("bos", "eos")],
    )
    backend.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {f"{role}_token": text for role, text in token.items()}
    unknown = getattr(backend.model, "unk_token", None)
    if unknown is not None:
        config["unk_token"] = unknown
    config |= {"model_max_length": tokenizer.window, "tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(folder / "tokenizer_config.json", config)


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.parent.mkdir(exist_ok=True)
    text = json.dumps(dict(content), indent=2, ensure_ascii=False) + "\n"
    file.write_text(text, encoding="utf-8")
