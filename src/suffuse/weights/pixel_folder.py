"""Folders of pixel-space models that diffusers has no class for: ADM, its classifier, SR3, NCSN++.

They look like diffusers' own: `unet/` with `config.json` and weights, `scheduler/`, and
`suffuse.json`. The fields of `config.json` are those of our configuration, and weights have the
names of the public implementation, so that its code can read them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from torch import nn

from suffuse.errors import SuffuseError
from suffuse.networks.classifier import ClassifierConfig, classifier
from suffuse.networks.ncsnpp import NCSNpp, NCSNppConfig
from suffuse.networks.pixel import ADMConfig, SR3Config, adm, sr3
from suffuse.weights.containers import find_weights, open_tensors
from suffuse.weights.fields import configured, numbers, plain
from suffuse.weights.folder import INDEX, OWN, read_json, read_own
from suffuse.weights.mapping import KeyMap
from suffuse.weights.maps.adm import adm_classifier, adm_unet
from suffuse.weights.maps.score_sde import score_sde
from suffuse.weights.maps.sr3 import sr3_unet
from suffuse.weights.parts import Info, Place, build, files_of, precision
from suffuse.weights.pixel import PixelConfig, PixelModel

SCHEDULER = Path("scheduler") / "scheduler_config.json"


@dataclass(frozen=True)
class Family:
    """What a configuration's class leads to."""

    fresh: PixelConfig  # of which `config.json` changes fields
    network: Callable[[Any], nn.Module]
    keys: Callable[[Any], KeyMap]


FAMILIES = {
    "ADM": Family(ADMConfig(), adm, adm_unet),
    "Classifier": Family(ClassifierConfig(ADMConfig()), classifier, adm_classifier),
    "SR3": Family(SR3Config(), sr3, sr3_unet),
    "NCSNpp": Family(NCSNppConfig(), NCSNpp, score_sde),
}


def family_of(config: PixelConfig) -> str:
    """The family of a network that is not DDPM's, which is diffusers' own."""
    return next(name for name, family in FAMILIES.items() if type(config) is type(family.fresh))


def folder_family(folder: Path) -> str | None:
    """The family whose folder this is; None if it is none of them."""
    if not (folder / INDEX).is_file():
        return None
    name = read_json(folder / INDEX).get("_class_name")
    return name if name in FAMILIES else None


def open_pixel(folder: str | PathLike[str], place: Place | None = None) -> PixelModel[Any]:
    """The model of a folder that `save_pixel` wrote for one of the families.

    Raises SuffuseError naming the file and what is wrong with it.
    """
    folder, place = Path(folder).expanduser(), place or Place()
    name = folder_family(folder)
    if name is None:
        raise SuffuseError(f"{folder}: its {INDEX} names none of {', '.join(FAMILIES)}")
    family, where = FAMILIES[name], folder / "unet" / "config.json"
    raw = read_json(where)
    size = numbers(raw, "sample_size", (1, 1), str(where)) if "sample_size" in raw else None
    fields = {k: v for k, v in raw.items() if k not in ("_class_name", "sample_size")}
    config, own = configured(family.fresh, fields, str(where)), read_own(folder)
    classes = own.classes
    if isinstance(config, ADMConfig | ClassifierConfig):
        classes = classes or tuple(map(str, range(config.classes)))
        if len(classes) != config.classes:
            raise SuffuseError(
                f"{folder / OWN}: names {len(classes)} classes, the network has {config.classes}"
            )
    file = open_tensors(find_weights(folder / "unet", variant=precision(place)))
    return PixelModel(
        unet=build(lambda: family.network(config), family.keys(config), file, place),
        config=config,
        info=Info(folder.resolve().name, "model folder", folder, files_of(file)),
        scheduler=read_json(folder / SCHEDULER) if (folder / SCHEDULER).is_file() else {},
        size=None if size is None else (size[0], size[-1]),
        classes=classes,
        defaults=own.defaults,
        enlarging=own.enlarging,
    )


def family_json(model: PixelModel[Any], name: str) -> Mapping[str, Any]:
    """The `config.json` of a network."""
    sized = {} if model.size is None else {"sample_size": list(model.size)}
    return {"_class_name": name, **sized, **plain(model.config)}
