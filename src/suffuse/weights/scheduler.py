"""diffusers' `scheduler_config.json`, translated: schedule, prediction kind, sampler and grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from suffuse.diffusion.grid import GridSpec
from suffuse.diffusion.guidance import clip, dynamic_threshold
from suffuse.diffusion.prediction import Denoiser, Kind
from suffuse.diffusion.sampler_names import NAMES, resolve
from suffuse.diffusion.schedule import Discrete, Flow, Schedule, betas, zero_terminal_snr
from suffuse.errors import SuffuseError
from suffuse.weights.scheduler_rules import CURVE_KEYS, SPACINGS, Config, flow_of, pick
from suffuse.weights.scheduler_table import CLASSES, STAND_INS, UNSUPPORTED, Row

KINDS: Mapping[str, Kind] = {
    "epsilon": "eps",
    "sample": "x0",
    "original_sample": "x0",
    "v_prediction": "v",
}


@dataclass(frozen=True)
class Sampling:
    """How a model is sampled: the content of a scheduler file in our terms."""

    sampler: str  # a key of NAMES
    grid: GridSpec
    options: Mapping[str, Any]  # of the sampler
    kind: Kind
    schedule: Schedule
    config: Config  # the file itself: another sampler may read other keys of it
    stable_diffusion: bool = False  # as given to `from_config`
    learned_var: bool = False  # the network's output has a second half; for `predict`
    clip: float | None = None  # the clean image is kept in [-clip, clip]
    dynamic: tuple[float, float] | None = None  # quantile and maximum of dynamic thresholding
    rederive: bool = False  # the noise follows the thresholded image

    def bound(self, denoiser: Denoiser) -> Denoiser:
        """`denoiser` with the file's clipping or thresholding, if it has any."""
        if self.dynamic is not None:
            return dynamic_threshold(denoiser, *self.dynamic, rederive=self.rederive)
        return denoiser if self.clip is None else clip(denoiser, self.clip, self.rederive)

    def using(self, sampler: str | None = None, grid: str | None = None) -> Sampling:
        """The same model under another sampler or grid; None keeps the file's.

        `sampler` is any name that `resolve` knows, `grid` a word of `grid.NAMES`; a curve in the
        sampler's name ("DPM++ 2M Karras") counts as a grid. What the file says about steps carries
        over, as with diffusers' `SomeScheduler.from_config(pipe.scheduler.config)`. Chaining works.
        A rectified flow keeps its class and so its grid: the others' know nothing of flow.

        Raises `SuffuseError` for an unknown sampler, and one of score SDEs.
        """
        config, options = dict(self.config), dict[str, Any]()
        name = self.sampler
        if sampler is not None:
            found = resolve(sampler)
            if found.name not in NAMES:
                raise SuffuseError(
                    f"sampler {sampler!r} is for score SDEs, which this model is not"
                )
            name, grid, options = found.name, grid or found.grid, dict(found.options)
            if not isinstance(self.schedule, Flow):
                config |= STAND_INS.get(name, self._class_of(name))
        if grid is not None:
            config |= {key: grid == word for word, key in CURVE_KEYS.items()}
            config |= {"use_lu_lambdas": False}
            if grid in SPACINGS:
                config["timestep_spacing"] = grid
        made = from_config(config, self.stable_diffusion)
        if sampler is None:
            options = dict(self.options)
        elif made.sampler == name:
            options = {**made.options, **options}
        spec = made.grid
        if grid is not None and grid != (spec.curve or spec.spacing):
            spec = spec.named(grid)  # the class has no key for it
        return replace(
            made,
            sampler=name,
            grid=spec,
            options=options,
            # What the network was trained on stays, whatever the other class makes of the file.
            kind=self.kind,
            schedule=self.schedule,
            learned_var=self.learned_var,
        )

    def _class_of(self, sampler: str) -> Config:
        """The class that stands for a sampler: the file's own if it does."""
        own = CLASSES[self.config["_class_name"]].sampler == sampler
        return {} if own else {"_class_name": NAMES[sampler].diffusers}


def from_config(config: Config, stable_diffusion: bool = False) -> Sampling:
    """Read a scheduler file; keys its class does not know are ignored, as diffusers does.

    `stable_diffusion` says that the file belongs to one of diffusers' Stable Diffusion pipelines,
    which overrule two mistakes of old files: `steps_offset` is 1 and nothing is clipped.

    Raises `SuffuseError` for a class or an option that is not supported here.
    """
    row, c = _read(config, stable_diffusion)
    try:
        schedule, grid, options = _schedule(c), row.grid(c), row.options(c)
    except (TypeError, ValueError) as error:
        raise SuffuseError(f"the scheduler file holds an unusable value: {error}") from error
    sampler = "dpm++_2m_sde" if row.sampler == "dpm++_2m" and "eta" in options else row.sampler
    thresholds = (c.get("dynamic_thresholding_ratio", 0.0), c.get("sample_max_value", 0.0))
    return Sampling(
        sampler,
        grid,
        options,
        "flow" if isinstance(schedule, Flow) else pick(KINDS, c, "prediction_type"),
        schedule,
        dict(config),
        stable_diffusion,
        learned_var=c.get("variance_type") in ("learned", "learned_range"),
        clip=c["clip_sample_range"] if c.get("clip_sample") else None,
        dynamic=thresholds if c.get("thresholding") else None,
        rederive=options.get("form") == "eps",
    )


def to_config(sampling: Sampling) -> dict[str, Any]:
    """The scheduler file of `sampling`, with every key of its class written out."""
    _, c = _read(sampling.config, sampling.stable_diffusion)
    return {"_class_name": sampling.config["_class_name"], **c}


def _read(config: Config, stable_diffusion: bool) -> tuple[Row, dict[str, Any]]:
    """The row of the file's class, and its keys with defaults where the file is silent."""
    name = config.get("_class_name")
    row = CLASSES.get(name) if isinstance(name, str) else None
    if row is None:
        raise SuffuseError(
            f"the scheduler class {name!r} is not supported; known ones are: {', '.join(CLASSES)}"
        )
    c = {**row.defaults, **{k: v for k, v in config.items() if k in row.defaults}}
    for key, sound in UNSUPPORTED.items():
        if c.get(key) and c[key] != sound:
            raise SuffuseError(f"{name}: {key}={c[key]!r} is not supported, only {sound!r}")
    if stable_diffusion:
        c |= {k: v for k, v in {"steps_offset": 1, "clip_sample": False}.items() if k in c}
    return row, c


def _schedule(c: Config) -> Schedule:
    """Betas in float32 throughout, rounding at the same places as diffusers."""
    if "shift" in c:
        return flow_of(c)
    if c.get("trained_betas") is not None:
        table = torch.tensor(c["trained_betas"], dtype=torch.float32)
    else:
        ends = {"start": c["beta_start"], "end": c["beta_end"]} if "beta_start" in c else {}
        table = betas(c["beta_schedule"], c["num_train_timesteps"], **ends, dtype=torch.float32)
    if c.get("rescale_betas_zero_snr"):
        alpha_bar = zero_terminal_snr((1 - table).cumprod(0))
        table = 1 - torch.cat([alpha_bar[:1], alpha_bar[1:] / alpha_bar[:-1]])  # (T,)
    return Discrete.from_betas(table)
