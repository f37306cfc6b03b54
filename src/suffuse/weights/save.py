"""`save_parts`: a model as a diffusers folder, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
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
from suffuse.text.tokenizer import Tokenizer
from suffuse.weights.configs import autoencoder_json, text_json, unet_json
from suffuse.weights.folder import INDEX, OWN
from suffuse.weights.mapping import KeyMap, export
from suffuse.weights.maps.diffusers_unet import DIFFUSERS_UNET
from suffuse.weights.maps.diffusers_vae import DIFFUSERS_VAE
from suffuse.weights.maps.hf_clip_text import HF_CLIP_TEXT
from suffuse.weights.parts import Parts


def save_parts(
    parts: Parts, folder: str | PathLike[str], dtype: torch.dtype = torch.float16
) -> None:
    """Write a folder that `open_parts` and diffusers' StableDiffusionPipeline open.

    An autoencoder with a patch is, to diffusers, one over more channels: each component opens
    there, and its pictures are to be folded back (`torch.pixel_shuffle`). diffusers has no shift
    of latents for this pipeline. An existing model in `folder` is replaced once the new one is
    complete. Raises SuffuseError when `folder` cannot be written, holds something else, or a
    weight does not fit `dtype`.
    """
    folder = Path(folder).expanduser().resolve()
    if folder.exists() and not _replaceable(folder):
        raise SuffuseError(f"{folder}: exists and is not a model folder; name another one")
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh.mkdir()
        _write(parts, fresh, dtype)
        _swap(fresh, folder)
    except OSError as problem:
        raise SuffuseError(f"{folder}: cannot be written ({problem.strerror})") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _replaceable(folder: Path) -> bool:
    return folder.is_dir() and ((folder / INDEX).is_file() or not any(folder.iterdir()))


def _swap(fresh: Path, folder: Path) -> None:
    """Put the new folder in the old one's place."""
    if not folder.exists():
        os.rename(fresh, folder)
        return
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    os.rename(folder, old)
    os.rename(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)


def _write(parts: Parts, folder: Path, dtype: torch.dtype) -> None:
    height, width = parts.latent_size
    vae, tokenizer = parts.autoencoder.config, parts.tokenizer
    unet = unet_json(parts.unet_config, height if height == width else [height, width])
    pixels = height * vae.factor // vae.patch
    vae_raw = autoencoder_json(vae, parts.latent_scale, parts.latent_shift, pixels)
    text = text_json(parts.text.config, tokenizer.bos, tokenizer.pad)
    diffusers, hf = "diffusion_pytorch_model.safetensors", "model.safetensors"
    _component(folder / "unet", unet, parts.unet, DIFFUSERS_UNET, diffusers, dtype)
    _component(folder / "vae", vae_raw, parts.autoencoder, DIFFUSERS_VAE, diffusers, dtype)
    _component(folder / "text_encoder", text, parts.text, HF_CLIP_TEXT, hf, dtype)
    _tokenizer(folder / "tokenizer", tokenizer)
    _json(folder / "scheduler" / "scheduler_config.json", parts.sampling.config)
    own: dict[str, Any] = {k: v for k, v in asdict(parts.defaults).items() if v is not None}
    if vae.patch > 1:
        own["patch"] = vae.patch
    if own:
        _json(folder / OWN, own)
    _json(folder / INDEX, _index(text["architectures"][0], parts.sampling.config["_class_name"]))


def _index(text: str, scheduler: str) -> dict[str, Any]:
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
        "vae": ["diffusers", "AutoencoderKL"],
    }


def _component(
    folder: Path,
    config: Mapping[str, Any],
    network: nn.Module,
    keys: KeyMap,
    name: str,
    dtype: torch.dtype,
) -> None:
    _json(folder / "config.json", config)
    save_file(export(network, keys, dtype), folder / name, metadata={"format": "pt"})


def _tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """`tokenizer.json`, which transformers and `load_tokenizer` read alike."""
    folder.mkdir()
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
    _json(folder / "tokenizer_config.json", config)


def _json(file: Path, content: Mapping[str, Any]) -> None:
    file.parent.mkdir(exist_ok=True)
    text = json.dumps(dict(content), indent=2, ensure_ascii=False) + "\n"
    file.write_text(text, encoding="utf-8")
