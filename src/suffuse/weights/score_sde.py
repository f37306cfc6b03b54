"""Opens score_sde's checkpoints (`checkpoint_N.pth`): NCSN++, DDPM++ and its DDPM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path

from suffuse.errors import SuffuseError
from suffuse.networks.ncsnpp import PUBLISHED, NCSNpp, NCSNppConfig
from suffuse.weights.containers import open_tensors
from suffuse.weights.fields import Json
from suffuse.weights.maps.score_sde import score_sde
from suffuse.weights.parts import Info, Place, build, files_of
from suffuse.weights.pixel import PixelModel
from suffuse.weights.tensorfile import TensorFile

FORMAT = "NCSN++ or DDPM++ (score_sde)"  # as `formats` calls it
# `module.` is DataParallel's; a file that was left with the weights alone has no `model.`.
_PREFIXES = ("model.module.", "module.")
_AVERAGES = "ema.shadow_params."
_UNTRAINED = ("sigmas", "all_modules.0.W")  # buffers, and the frequencies of a Fourier embedding

_VP: Json = {"_class_name": "ScoreSdeVpScheduler", "num_train_timesteps": 1000}
_VE: Json = {"_class_name": "ScoreSdeVeScheduler", "num_train_timesteps": 1000, "snr": 0.16}

# The SDEs and samplers of the published configurations, by the first part of their names; those of
# large images have their own noise.
_SCHEDULERS: Mapping[str, Json] = {
    "ve": {**_VE, "sigma_max": 50.0},
    "vp": _VP,
    "subvp": {**_VP, "_class_name": "ScoreSdeSubVpScheduler"},
    "ve/celebahq_256_ncsnpp_continuous": {
        **_VE, "num_train_timesteps": 2000, "sigma_max": 348.0, "snr": 0.075
    },
    "ve/ffhq_ncsnpp_continuous": {
        **_VE, "num_train_timesteps": 2000, "sigma_max": 1348.0, "snr": 0.15
    },
}  # fmt: skip


def scheduler_of(name: str) -> Json:
    """The scheduler file of a published configuration."""
    return _SCHEDULERS.get(name) or _SCHEDULERS[name.partition("/")[0]]


def open_published(
    path: str | PathLike[str], name: str | None, *, ema: bool = True, place: Place | None = None
) -> PixelModel[NCSNpp]:
    """The model of a checkpoint of the configuration `name`, one of `PUBLISHED`.

    Raises SuffuseError as `open_score_sde` does, and where no such configuration is named.
    """
    path = Path(path).expanduser()
    if name not in PUBLISHED:
        known = ", ".join(PUBLISHED)
        lacks = f"there is no configuration {name!r}" if name else "does not say its configuration"
        raise SuffuseError(f'{path}: {lacks}; suffuse.load(path, config="…") takes one of: {known}')
    config = PUBLISHED[name]
    return PixelModel(
        unet=open_score_sde(path, config, ema=ema, place=place),
        config=config,
        info=Info(path.stem, FORMAT, path, files_of(open_tensors(path))),
        published=name,
        scheduler=scheduler_of(name),
        size=(config.size, config.size),
    )


def open_score_sde(
    path: str | PathLike[str],
    config: NCSNppConfig,
    *,
    ema: bool = True,
    place: Place | None = None,
) -> NCSNpp:
    """The network of a checkpoint, with its averaged weights unless `ema` is off.

    The file does not tell its configuration: `networks.ncsnpp.PUBLISHED` has those of published
    ones. Raises SuffuseError naming what is missing, unknown or of another shape.
    """
    file = open_tensors(Path(path).expanduser())
    below = next((p for p in _PREFIXES if any(n.startswith(f"{p}all_modules.") for n in file)), "")
    if not below:
        raise SuffuseError(f"{file.path}: holds no network in score_sde's layout")
    file = averaged(file, below) if ema else file
    return build(lambda: NCSNpp(config), score_sde(config), file, place or Place(), below)


def averaged(file: TensorFile, below: str) -> TensorFile:
    """The network's names with the averages in place of the last weights.

    Averages are a list without names, in the order of the trained parameters, which is that of the
    network's own names. Raises SuffuseError when the two do not match in number and shape.
    """
    trained = [
        name
        for name in file
        if name.startswith(below) and name.removeprefix(below) not in _UNTRAINED
    ]
    averages = [name for name in file if name.startswith(_AVERAGES)]
    shapes = [[file.shape(name) for name in names] for names in (trained, averages)]
    if shapes[0] != shapes[1]:
        raise SuffuseError(
            f"{file.path}: its {len(averages)} averaged weights do not match its {len(trained)} "
            "trained ones; open the last weights instead (ema=False)"
        )
    entries = {name: e for name, e in file.entries.items() if name.startswith(below)}
    entries |= {ours: file.entries[theirs] for ours, theirs in zip(trained, averages)}
    return replace(file, entries=entries)
