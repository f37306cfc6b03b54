"""What the layers that a LoRA changes are called, and the two factors of each.

diffusers and PEFT write the path of the layer with its part before it. kohya's sd-scripts, which
most shared files come from, write it with underscores, in diffusers' names or CompVis'. From such a
name alone the path cannot be told ("to_q" has one too), so all names are made from the layers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from suffuse.networks.families import SDConfig
from suffuse.weights.mapping import KeyMap
from suffuse.weights.maps.diffusers_unet import DIFFUSERS_UNET
from suffuse.weights.maps.hf_clip_text import HF_CLIP_TEXT
from suffuse.weights.maps.ldm_unet import ldm_unet

# What a part is called in diffusers' files, then in kohya's; the first is written. PEFT's own files
# hold one part and do not name it.
DOTTED = {
    "unet": ("unet.", "", "base_model.model."),
    "text": ("text_encoder.", "base_model.model."),
}
FLAT = {"unet": ("lora_unet_",), "text": ("lora_te_", "lora_te1_")}

# How names end: PEFT's, diffusers' of 2023, kohya's. "A" is the factor next to the input.
DOTTED_LEAVES = {
    ".lora_A.weight": "A",
    ".lora_B.weight": "B",
    ".lora.down.weight": "A",
    ".lora.up.weight": "B",
    ".lora_linear_layer.down.weight": "A",
    ".lora_linear_layer.up.weight": "B",
}
FLAT_LEAVES = {".lora_down.weight": "A", ".lora_up.weight": "B", ".alpha": "alpha"}

# diffusers' files before 0.20: `attn1.processor.to_q_lora.down.weight`.
_PROCESSOR = {"to_q": "to_q", "to_k": "to_k", "to_v": "to_v", "to_out.0": "to_out"}


class Place(NamedTuple):
    part: str  # unet or text
    layer: str  # our name
    leaf: str  # A, B or alpha


def places(
    layers: dict[str, Iterable[str]], config: SDConfig
) -> tuple[dict[str, Place], dict[tuple[str, str], str]]:
    """Every name that a file may have -> what it means; and the path of each layer in diffusers.

    layers: our names of the layers of each part
    """
    known: dict[str, Place] = {}
    paths: dict[tuple[str, str], str] = {}
    maps: dict[str, tuple[KeyMap, ...]] = {
        "unet": (DIFFUSERS_UNET, ldm_unet(config)),
        "text": (HF_CLIP_TEXT,),
    }
    for part, names in layers.items():
        for name in names:
            for keys in maps[part]:
                for path in _paths(keys, name):
                    paths.setdefault((part, name), path)
                    for spelling, leaf in _spellings(part, path):
                        known[spelling] = Place(part, name, leaf)
    return known, paths


def _paths(keys: KeyMap, layer: str) -> list[str]:
    return [theirs.removesuffix(".weight") for theirs, _ in keys.spellings(f"{layer}.weight")]


def _spellings(part: str, path: str) -> list[tuple[str, str]]:
    found = [(f"{p}{path}{end}", leaf) for p in DOTTED[part] for end, leaf in DOTTED_LEAVES.items()]
    flat = path.replace(".", "_")
    found += [(f"{p}{flat}{end}", leaf) for p in FLAT[part] for end, leaf in FLAT_LEAVES.items()]
    block, _, rest = path.partition(".attn")
    number, _, last = rest.partition(".")
    if part == "unet" and last in _PROCESSOR:
        old = f"{block}.attn{number}.processor.{_PROCESSOR[last]}_lora"
        for prefix in DOTTED[part]:
            found += [(f"{prefix}{old}.down.weight", "A"), (f"{prefix}{old}.up.weight", "B")]
    return found
