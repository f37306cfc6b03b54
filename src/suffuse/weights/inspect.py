"""What a checkpoint is and holds, from its headers alone: no weight is read.

describe("model.ckpt").components    what networks are inside, how large, in which precision
describe("model.ckpt").short_hash()  A1111's model hash (this one reads the file)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from suffuse.errors import SuffuseError
from suffuse.weights.adm import published_as
from suffuse.weights.clip_openai import recognised_model
from suffuse.weights.containers import choose_weights, find_weights, open_tensors
from suffuse.weights.folder import INDEX, OWN, read_json
from suffuse.weights.formats import part_of, recognise
from suffuse.weights.parts import Info, files_of
from suffuse.weights.pixel_folder import folder_family
from suffuse.weights.score_scheduler import CLASSES as SDE_CLASSES
from suffuse.weights.score_sde import FORMAT as SCORE_SDE
from suffuse.weights.tensorfile import TensorFile

UNKNOWN = "unknown"
_LONGEST = 200  # characters of a metadata value that are worth showing


@dataclass(frozen=True)
class Component:
    """One network (or the schedule) of a checkpoint."""

    name: str
    tensors: int = 0
    parameters: int = 0
    bytes: int = 0
    dtypes: tuple[str, ...] = ()  # most numerous first
    kind: str | None = None  # the class, where a configuration names it
    file: str | None = None  # within a folder


@dataclass(frozen=True)
class Description:
    """What `describe` found. Everything but `files` is plain data, fit for JSON.

    `hints` is what the checkpoint says about how to sample from it (prediction, input channels,
    task); `extras` what else is in it (averaged weights, training steps, titles, variants).
    """

    path: str
    format: str
    container: str
    components: tuple[Component, ...]
    hints: dict[str, Any] = field(default_factory=dict)
    extras: dict[str, Any] = field(default_factory=dict)
    files: tuple[Path, ...] = ()

    @property
    def parameters(self) -> int:
        return sum(c.parameters for c in self.components)

    @property
    def bytes(self) -> int:
        return sum(c.bytes for c in self.components)

    def short_hash(self) -> str:
        """The ten hex digits A1111 calls the model hash: of the file's SHA-256, or of the U-Net's
        files in a folder. Reads them, once."""
        digest = Info(self.path, self.format, files=self.files).hash()
        if digest is None:
            raise SuffuseError(f"{self.path}: holds no weights to take a hash of")
        return digest[:10]


def describe(path: str | PathLike[str]) -> Description:
    """Describe a checkpoint file, an index of shards, a diffusers folder or one component of it.

    An unknown layout is described too, with the keys that were seen. Raises SuffuseError for what
    is missing, damaged or no checkpoint at all.
    """
    path = Path(path)
    if not path.is_dir():
        return _describe_file(path)
    if (path / INDEX).is_file():
        return _describe_pipeline(path)
    return _describe_component(path)


def _describe_file(path: Path) -> Description:
    file = open_tensors(path)
    if not file:
        raise SuffuseError(f"{path}: holds no weights")
    found = recognise(file)
    components = _split(file, found.component if found else None)
    extras = _extras(file)
    if found is None:
        extras["keys"] = _some_keys(file)
    name = found.name if found else UNKNOWN
    return Description(
        str(path), name, file.container, components, _hints(file, name), extras, files_of(file)
    )


def _split(file: TensorFile, whole: str | None) -> tuple[Component, ...]:
    """The file's weights by component, in the order in which components first occur."""
    names: dict[str, list[str]] = {}
    for key in file:
        names.setdefault(part_of(key, whole), []).append(key)
    return tuple(_component(part, file, keys) for part, keys in names.items())


def _component(
    name: str,
    held: TensorFile,
    keys: Iterable[str],
    kind: str | None = None,
    file: str | None = None,
) -> Component:
    entries = [held.entries[k] for k in keys]
    counts: dict[str, int] = {}
    for e in entries:
        dtype = str(e.dtype).removeprefix("torch.")
        counts[dtype] = counts.get(dtype, 0) + e.count
    return Component(
        name,
        len(entries),
        sum(e.count for e in entries),
        sum(e.nbytes for e in entries),
        tuple(sorted(counts, key=lambda d: -counts[d])),
        kind,
        file,
    )


def _extras(file: TensorFile) -> dict[str, Any]:
    extras: dict[str, Any] = {}
    if any(k.startswith(("model_ema.", "ema.")) for k in file):
        extras["ema"] = True
    if file.envelope:
        extras["envelope"] = ".".join(file.envelope)
    short = {k: v[:_LONGEST] if isinstance(v, str) else v for k, v in file.metadata.items()}
    if short:
        extras["metadata"] = short
    return extras


def _hints(file: TensorFile, name: str) -> dict[str, Any]:
    """What tells how to sample. The prediction is hardly ever in a file: what is said is named as
    convention where it is one."""
    hints: dict[str, Any] = {}
    said = file.metadata.get("modelspec.prediction_type") or file.metadata.get("prediction_type")
    if "v_pred" in file:  # a marker some trainers leave
        hints["prediction"] = "v"
    elif said:
        hints["prediction"] = said
    elif name.startswith("Stable Diffusion 2") and file.metadata.get("global_step") == 875000:
        hints["prediction"] = "epsilon"  # 2.0 base: the only published file that says its steps
    elif name.startswith("Stable Diffusion 2"):
        hints["prediction"] = "not in the file: v for 768-pixel models, epsilon for base models"
    elif name.startswith(("Stable Diffusion 1", "Stable Diffusion XL")):
        hints["prediction"] = "epsilon by convention"
    elif name.startswith("Stable Diffusion 3"):
        hints["prediction"] = "flow"
    elif name == "U-Net (guided-diffusion)":
        hints["published"] = published_as(file)
    elif name == SCORE_SDE:
        hints["config"] = "not in the file: a name such as ve/cifar10_ncsnpp_continuous"
    if "ztsnr" in file:
        hints["zero_terminal_snr"] = True
    return hints | _unet_hints(file) | _clip_hints(file)


def _clip_hints(file: TensorFile) -> dict[str, Any]:
    model = recognised_model(file)
    return {} if model is None else {"model": model}


def _unet_hints(file: TensorFile) -> dict[str, Any]:
    hints: dict[str, Any] = {}
    for prefix in ("model.diffusion_model.", ""):
        stem = f"{prefix}input_blocks.0.0.weight"
        if stem in file and len(file.shape(stem)) == 4:
            hints["in_channels"] = file.shape(stem)[1]
            task = {9: "inpainting", 8: "instructions (InstructPix2Pix)"}.get(file.shape(stem)[1])
            if task and prefix:
                hints["task"] = task
            break
    widths = [file.shape(k) for k in file if k.endswith("attn2.to_k.weight")]
    if widths and len(widths[0]) == 2:
        hints["context_width"] = widths[0][1]
    return hints


def _some_keys(file: TensorFile) -> list[str]:
    """A few keys for a person to recognise: one of each beginning, then the first ones."""
    first: dict[str, str] = {}
    for key in file:
        first.setdefault(key.partition(".")[0], key)
    return list(dict.fromkeys([*list(first.values())[:12], *list(file)[:6]]))


def _describe_pipeline(folder: Path) -> Description:
    index = read_json(folder / INDEX)
    components: list[Component] = []
    containers: dict[str, None] = {}
    hints: dict[str, Any] = {}
    extras: dict[str, Any] = {}
    files: tuple[Path, ...] = ()
    for name, kind in index.items():
        if not isinstance(kind, list) or len(kind) != 2 or not kind[1] or Path(name).name != name:
            continue
        part = folder / name
        if name.endswith("scheduler"):
            hints |= _scheduler(part, name)
        names = sorted(p.name for p in part.iterdir()) if part.is_dir() else []
        if choose_weights(names) is None:
            if "config.json" in names:
                components.append(Component(name, kind=str(kind[1])))
            continue
        file = open_tensors(find_weights(part))
        containers[file.container] = None
        where = file.path.relative_to(folder).as_posix()
        components.append(_component(name, file, file, kind=str(kind[1]), file=where))
        if name in ("unet", "transformer"):
            files = files_of(file)
            hints |= _config_hints(part)
        found = _variants(names)
        if found:
            extras.setdefault("variants", {})[name] = found
            if "non_ema" in found:
                extras["ema"] = True
    named = "Suffuse" if (folder / OWN).is_file() else str(index.get("_class_name", "pipeline"))
    family = folder_family(folder)
    title = f"{named} (diffusers folder)" if family is None else f"{family} (model folder)"
    lacking = [c.name for c in components if not c.tensors]
    if lacking:
        extras["without weights"] = lacking
    return Description(
        str(folder), title, ", ".join(containers) or "none",
        tuple(components), hints, extras, files,
    )  # fmt: skip


def _describe_component(folder: Path) -> Description:
    """A folder of one network: `config.json` beside its weights."""
    file = open_tensors(find_weights(folder))
    config = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    kind = _class(config)
    found = recognise(file)
    name = f"{kind} (folder)" if kind else found.name if found else UNKNOWN
    part = found.component if found and found.component else folder.resolve().name
    extras = _extras(file)
    variants = _variants(p.name for p in folder.iterdir())
    if variants:
        extras["variants"] = variants
    if name == UNKNOWN:
        extras["keys"] = _some_keys(file)
    component = _component(part, file, file, kind=kind, file=file.path.name)
    return Description(
        str(folder), name, file.container, (component,),
        _config_hints(folder) | _clip_hints(file), extras, files_of(file),
    )  # fmt: skip


def _class(config: Mapping[str, Any]) -> str | None:
    """diffusers writes `_class_name`, transformers `architectures`."""
    named = config.get("_class_name") or config.get("architectures")
    if isinstance(named, list):
        named = named[0] if named else None
    return named if isinstance(named, str) else None


def _scheduler(folder: Path, name: str) -> dict[str, Any]:
    """The sampler a folder asks for, and what its network predicts."""
    file = folder / "scheduler_config.json"
    if not file.is_file():
        return {}
    config = read_json(file)
    hints = {name: _class(config)}
    if name == "scheduler" and config.get("_class_name") not in SDE_CLASSES:
        flow = "FlowMatch" in (_class(config) or "")
        hints["prediction"] = "flow" if flow else config.get("prediction_type", "epsilon")
        for key in ("beta_schedule", "timestep_spacing", "rescale_betas_zero_snr", "shift"):
            if config.get(key):
                hints[key] = config[key]
    return hints


def _config_hints(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    config = read_json(file) if file.is_file() else {}
    wanted = {"in_channels": "in_channels", "cross_attention_dim": "context_width",
              "sample_size": "sample_size"}  # fmt: skip
    hints = {ours: config[key] for key, ours in wanted.items() if config.get(key) is not None}
    if config.get("in_channels") == 9:
        hints["task"] = "inpainting"
    return hints


def _variants(names: Iterable[str]) -> list[str]:
    """The variants ("fp16", "non_ema") that a component's folder offers beside its plain files."""
    found = set()
    for name in names:
        infixes = set(name.split(".")[1:-1]) - {"safetensors", "bin", "index"}
        found |= {v for v in infixes if choose_weights([name], variant=v) == name}
    return sorted(found)
