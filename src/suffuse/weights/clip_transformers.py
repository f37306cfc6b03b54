"""CLIP in transformers' layout: a `config.json` that says everything, beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from suffuse.errors import SuffuseError
from suffuse.networks.clip import Clip, ClipText
from suffuse.networks.clip_vision import ClipVision, ClipVisionConfig
from suffuse.text.tokenizer import Tokenizer
from suffuse.weights.clip_input import PREPROCESSOR, ClipInput
from suffuse.weights.configs import text_json, text_tower, vision_json, vision_tower
from suffuse.weights.fields import check_class, number, refuse
from suffuse.weights.folder import read_json
from suffuse.weights.formats import recognise
from suffuse.weights.mapping import export
from suffuse.weights.maps.hf_clip import HF_CLIP, HF_CLIP_VISION
from suffuse.weights.parts import Hints, Place, build, with_text_hints
from suffuse.weights.save import write_json
from suffuse.weights.tensorfile import TensorFile

_LOGIT_SCALE = 2.6592  # what transformers starts training from; no trained model uses it


def is_transformers(file: TensorFile) -> bool:
    """Whether the names are transformers', of both towers."""
    found = recognise(file)
    return found is not None and found.name == "CLIP (transformers)"


def open_transformers(file: TensorFile, folder: Path, hints: Hints, place: Place) -> Clip:
    """Both towers, as the folder's `config.json` says. Raises SuffuseError."""
    where = str(folder / "config.json")
    raw = read_json(folder / "config.json")
    check_class(raw, "model_type", ("clip",), where)
    shared = number(raw, "projection_dim", 512, where)
    text = with_text_hints(text_tower(_tower(raw, "text_config", where), shared, where), hints)
    image = vision_tower(_tower(raw, "vision_config", where), shared, where)
    image = _with_hints(image, hints, where)
    return build(lambda: Clip(ClipText(text), ClipVision(image)), HF_CLIP, file, place)


def open_image_tower(file: TensorFile, folder: Path, hints: Hints, place: Place) -> ClipVision:
    """The picture tower, alone or out of a whole CLIP. Raises SuffuseError."""
    where = str(folder / "config.json")
    raw = read_json(folder / "config.json")
    check_class(raw, "model_type", ("clip_vision_model", "clip"), where)
    if raw["model_type"] == "clip":
        tower = open_transformers(file, folder, hints, place).image
        assert isinstance(tower, ClipVision)
        return tower
    projected = "visual_projection.weight" in file
    projection = number(raw, "projection_dim", 512, where) if projected else None
    config = _with_hints(vision_tower(raw, projection, where), hints, where)
    return build(lambda: ClipVision(config), HF_CLIP_VISION, file, place)


def write_transformers(
    folder: Path, model: Clip, words: Tokenizer, prepare: ClipInput, dtype: torch.dtype
) -> None:
    """The networks, and how pictures are prepared, as CLIPModel reads them."""
    text, image = model.text.config, model.image.config
    assert isinstance(image, ClipVisionConfig)
    config = {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": image.projection,
        "logit_scale_init_value": _LOGIT_SCALE,
        "torch_dtype": str(dtype).removeprefix("torch."),
        "text_config": text_json(text, words.bos, words.pad),
        "vision_config": vision_json(image),
    }
    weights = export(model, HF_CLIP, dtype)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", config)
    write_json(folder / PREPROCESSOR, prepare.json())


def _tower(raw: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    """The configuration of a tower; an older spelling goes before it, as in transformers."""
    older = raw.get(f"{name}_dict")
    found = raw.get(name) if older is None else older
    if found is not None and not isinstance(found, dict):
        refuse(raw, name, where)
    return found or {}


def _with_hints(config: ClipVisionConfig, hints: Hints, where: str) -> ClipVisionConfig:
    if hints.heads is not None and not isinstance(hints.heads, int):
        raise SuffuseError(f"{where}: a CLIP has one number of heads, not {hints.heads}")
    return replace(
        config,
        heads=hints.heads or config.heads,
        activation=hints.activation or config.activation,
    )
