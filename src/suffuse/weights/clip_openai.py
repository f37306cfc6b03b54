"""CLIP in OpenAI's layout: its archives, what people save of them, and open_clip's files.

Sizes are read off the shapes of weights. What they cannot tell is convention, or stands in the
`open_clip_config.json` beside the file: heads, and which GELU (the wrong one moves the output by
about half a percent, and nothing else shows it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import isfinite, isqrt
from pathlib import Path
from typing import Any

from suffuse.errors import SuffuseError
from suffuse.networks.clip import Clip, ClipText, ClipTextConfig
from suffuse.networks.clip_resnet import ClipResNet, ClipResNetConfig
from suffuse.networks.clip_vision import ClipVision, ClipVisionConfig
from suffuse.networks.transformer import Activation
from suffuse.weights.clip_input import ClipInput
from suffuse.weights.fields import honour, number, refuse
from suffuse.weights.first_stage import count, shape
from suffuse.weights.folder import read_json
from suffuse.weights.maps.openai_clip import OPENAI_CLIP, OPENAI_CLIP_RESNET, SCALARS
from suffuse.weights.parts import Hints, Place, build
from suffuse.weights.tensorfile import TensorFile

CONFIG = "open_clip_config.json"
_HEAD = 64  # width of a head; picture towers wider than 1,024 (H, g, bigG) have 16 wider ones
_MOST_HEADS = 16
# Where a text is read: at the largest id, which ends it in OpenAI's vocabulary, or at `eos_id`.
_POOLS = ("argmax", "eos")
_CELL = 32  # pixels to a place of a ResNet's last map
_MODELS = {
    ((3, 4, 6, 3), 64): "RN50",
    ((3, 4, 23, 3), 64): "RN101",
    ((4, 6, 10, 6), 80): "RN50x4",
    ((6, 8, 18, 8), 96): "RN50x16",
    ((3, 15, 36, 10), 128): "RN50x64",
}
_SIZES = {384: "S", 512: "M", 768: "B", 1024: "L", 1280: "H", 1408: "g", 1664: "bigG", 1792: "e"}


def is_openai(file: TensorFile) -> bool:
    """Whether the names are OpenAI's: both towers, whichever kind the one for pictures is."""
    return "visual.conv1.weight" in file and "token_embedding.weight" in file


def open_openai(file: TensorFile, config: Mapping[str, Any], hints: Hints, place: Place) -> Clip:
    """The networks. Raises SuffuseError naming what is missing or unknown, or does not fit.

    config: `open_clip_config.json`, or nothing
    """
    said = _said(config, str(file.path.parent / CONFIG))
    activation = hints.activation or _activation(file, said)
    text = _text(file, activation, hints.text_heads or said.get("text_heads"))
    text = replace(text, eos=said.get("eos", text.eos))
    image = image_shape(file, activation)
    heads = hints.heads or said.get("heads")
    if heads is not None:
        if not isinstance(heads, int):
            raise SuffuseError(f"{file.path}: a CLIP has one number of heads, not {heads}")
        image = replace(image, heads=heads)
    keys = OPENAI_CLIP if isinstance(image, ClipVisionConfig) else OPENAI_CLIP_RESNET

    def make() -> Clip:
        tower = ClipVision(image) if isinstance(image, ClipVisionConfig) else ClipResNet(image)
        return Clip(ClipText(text), tower)

    # A traced model keeps each layer's mask as if it were a weight.
    kept = {name: e for name, e in file.entries.items() if not name.endswith("attn_mask")}
    return build(make, keys, replace(file, entries=kept), place)


def openai_json(model: Clip, prepare: ClipInput) -> dict[str, Any]:
    """The `open_clip_config.json` that `open_openai` and open_clip read of a modified ResNet.

    Raises SuffuseError for what that format has no words for.
    """
    text, image = model.text.config, model.image.config
    assert isinstance(image, ClipResNetConfig)
    if text.activation != "quick_gelu" or image.heads * _HEAD != image.width * 32:
        raise SuffuseError(
            "a CLIP with a ResNet is saved with quick-GELU and heads of 64 channels, as published"
        )
    return {
        "model_cfg": {
            "embed_dim": image.projection,
            "quick_gelu": True,
            "vision_cfg": {
                "image_size": image.image,
                "layers": list(image.layers),
                "width": image.width,
                "patch_size": None,
            },
            "text_cfg": {
                "context_length": text.context,
                "vocab_size": text.vocab,
                "width": text.width,
                "heads": text.heads,
                "layers": text.layers,
                "mlp_ratio": text.intermediate / text.width,
                "pool_type": "argmax" if text.eos == 2 else "eos",
                **({} if text.eos == 2 else {"eos_id": text.eos}),
            },
        },
        "preprocess_cfg": {
            "size": image.image,
            "mode": "RGB",
            "interpolation": "bicubic",
            "resize_mode": "shortest",
            "mean": list(prepare.mean),
            "std": list(prepare.spread),
        },
    }


def open_clip_config(folder: Path) -> dict[str, Any]:
    """What a folder says in open_clip's way; empty if it does not."""
    return read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}


def open_clip_input(config: Mapping[str, Any], image: int, where: str) -> ClipInput:
    """How `open_clip_config.json` has pictures prepared; OpenAI's way without one."""
    raw = config.get("preprocess_cfg") or {}
    if not isinstance(raw, dict):
        refuse(config, "preprocess_cfg", where)
    plain = {"mode": "RGB", "interpolation": "bicubic", "resize_mode": "shortest", "fill_color": 0}
    honour(raw, plain, {"mean", "std", "size"}, where)
    plainly = ClipInput(image, image, rounded=True)
    mean, spread = raw.get("mean", plainly.mean), raw.get("std", plainly.spread)
    for name, row in (("mean", mean), ("std", spread)):
        sound = isinstance(row, (list, tuple)) and len(row) == 3
        if not sound or not all(type(n) in (int, float) and isfinite(n) for n in row):
            refuse(raw, name, where)
    if min(spread) <= 0:
        refuse(raw, "std", where)
    return replace(plainly, mean=tuple(map(float, mean)), spread=tuple(map(float, spread)))


def model_name(config: ClipVisionConfig | ClipResNetConfig) -> str:
    """What the model with such a picture tower is called: "ViT-L/14@336", "RN50x4"."""
    if isinstance(config, ClipResNetConfig):
        return _MODELS.get((config.layers, config.width), "ResNet")
    size = _SIZES.get(config.width, str(config.width))
    more = "" if config.image == 224 else f"@{config.image}"
    return f"ViT-{size}/{config.patch}{more}"


def recognised_model(file: TensorFile) -> str | None:
    """What a CLIP of either layout is called, by its shapes; None where they do not say."""
    try:
        if is_openai(file):
            return model_name(image_shape(file))
        stem = "vision_model.embeddings"
        width, _, patch, _ = shape(file, f"{stem}.patch_embedding.weight", 4)
        cells = shape(file, f"{stem}.position_embedding.weight", 2)[0] - 1
        image = _side(file, cells) * patch
        return model_name(ClipVisionConfig(image=image, patch=patch, width=width, heads=1))
    except SuffuseError:
        return None


# ---- shapes ------------------------------------------------------------------------------------


def _text(file: TensorFile, activation: Activation, heads: int | None) -> ClipTextConfig:
    vocab, width = shape(file, "token_embedding.weight", 2)
    return ClipTextConfig(
        vocab=vocab,
        width=width,
        layers=count(file, "transformer.resblocks."),
        heads=heads or max(1, width // _HEAD),
        context=shape(file, "positional_embedding", 2)[0],
        intermediate=shape(file, "transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
        activation=activation,
        projection=shape(file, "text_projection", 2)[1],
    )


def image_shape(
    file: TensorFile, activation: Activation = "quick_gelu"
) -> ClipVisionConfig | ClipResNetConfig:
    """The picture tower's configuration. Raises SuffuseError naming a gap."""
    if "visual.attnpool.positional_embedding" in file:
        return _resnet(file)
    width, _, patch, _ = shape(file, "visual.conv1.weight", 4)
    cells = shape(file, "visual.positional_embedding", 2)[0] - 1
    return ClipVisionConfig(
        image=_side(file, cells) * patch,
        patch=patch,
        width=width,
        layers=count(file, "visual.transformer.resblocks."),
        heads=max(1, min(_MOST_HEADS, width // _HEAD)),
        intermediate=shape(file, "visual.transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
        activation=activation,
        projection=shape(file, "visual.proj", 2)[1],
    )


def _resnet(file: TensorFile) -> ClipResNetConfig:
    width = shape(file, "visual.layer1.0.conv1.weight", 4)[0]
    one, two, three, four = (count(file, f"visual.layer{level}.") for level in (1, 2, 3, 4))
    cells = shape(file, "visual.attnpool.positional_embedding", 2)[0] - 1
    return ClipResNetConfig(
        image=_side(file, cells) * _CELL,
        layers=(one, two, three, four),
        width=width,
        heads=max(1, width * 32 // _HEAD),
        projection=shape(file, "visual.attnpool.c_proj.weight", 2)[0],
    )


def _side(file: TensorFile, cells: int) -> int:
    side = isqrt(max(0, cells))
    if side < 1 or side * side != cells:
        raise SuffuseError(f"{file.path}: a picture of {cells} places is not square")
    return side


# ---- what shapes do not tell -------------------------------------------------------------------


def _activation(file: TensorFile, said: Mapping[str, Any]) -> Activation:
    """OpenAI's models have quick-GELU, and so have all published ResNets; open_clip's only where
    the model's name says so.

    OpenAI's files are archives, or hold the archive's scalars, or weights in half precision beside
    norms in float32.
    """
    if "activation" in said:
        return said["activation"]
    named = "quickgelu" in f"{file.path.parent.name}/{file.path.name}".lower().replace("_", "")
    mixed = (
        file.dtype("visual.conv1.weight").itemsize < file.dtype("token_embedding.weight").itemsize
    )
    resnet = "visual.attnpool.positional_embedding" in file
    archive = file.container == "TorchScript" or any(name in file for name in SCALARS)
    return "quick_gelu" if named or mixed or resnet or archive else "gelu"


def _said(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Of `open_clip_config.json`, what shapes do not tell. Refuses networks that are not built."""
    model = config.get("model_cfg")
    if model is None:
        return {}
    if not isinstance(model, dict):
        raise SuffuseError(f"{where}: model_cfg is not a configuration")
    honour(model, {}, {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}, where)
    vision, text = model.get("vision_cfg") or {}, model.get("text_cfg") or {}
    if not (isinstance(vision, dict) and isinstance(text, dict)):
        raise SuffuseError(f"{where}: its towers are not configurations")
    sizes = {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio"}
    honour(vision, {"patch_dropout": 0.0}, sizes, where)
    sizes = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "eos_id"}
    pool = text.get("pool_type", "argmax")
    honour(text, {"pool_type": pool if pool in _POOLS else None}, sizes, where)
    said: dict[str, Any] = {"activation": "quick_gelu" if model.get("quick_gelu") else "gelu"}
    if isinstance(vision.get("layers"), list):  # a ResNet
        if vision.get("head_width", _HEAD) != _HEAD:
            refuse(vision, "head_width", where)
    elif vision:
        width, head = number(vision, "width", 768, where), number(vision, "head_width", 64, where)
        said["heads"] = max(1, width // head)
    if text:
        said["text_heads"] = number(text, "heads", 8, where)
    if pool == "eos":
        said["eos"] = number(text, "eos_id", 2, where)
    return said
