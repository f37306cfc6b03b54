"""The `parameters` text that AUTOMATIC1111's web UI stores in pictures, written and read.

The prompt, then `Negative prompt: …`, both over any number of lines, then one line of fields:
`Steps: 20, Sampler: Euler a, Schedule type: Karras, CFG scale: 7, Seed: 1, Size: 512x512, …`.
A value that holds a comma, a colon or a newline, or begins with a bracket, is written as a JSON
string. The format has no escape for a prompt line that itself begins with `Negative prompt:`; such
a prompt comes back split there, which is why Suffuse stores its own JSON beside this text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from suffuse.errors import SuffuseError
from suffuse.systems.request import Request

_NEGATIVE = "Negative prompt:"
# A name, then a JSON string, a JSON object or list (some write them bare), or all up to a comma.
# Names are bounded so that a long prompt without a colon does not take quadratic time.
_FIELD = re.compile(
    r'(\w[\w \-/]{0,80}): *("(?:\\.|[^\\"])*"|\{[^{}]*\}|\[[^\[\]]*\]|[^,]*)(?:,|$)'
)
_STEPS = re.compile(r"\s*Steps: *\d")

# What the web UI calls our spacings, or what comes nearest.
GRID_NAMES = {
    "leading": "DDIM",
    "trailing": "SGM Uniform",
    "linspace": "Uniform",
    "karras": "Karras",
    "exponential": "Exponential",
    "polyexponential": "Polyexponential",
    "beta": "Beta",
}
# The other way: our word for what the web UI shows, in small letters.
GRIDS: dict[str, str | None] = {shown.lower(): name for name, shown in GRID_NAMES.items()}
GRIDS |= {"automatic": None, "normal": "linspace"}


@dataclass(frozen=True)
class Parameters:
    """The three parts of the text; `fields` in the order they stand."""

    prompt: str
    negative: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)


def write(parameters: Parameters) -> str:
    """The text of `parameters`."""
    lines = [parameters.prompt]
    if parameters.negative:
        lines.append(f"{_NEGATIVE} {parameters.negative}")
    if parameters.fields:
        lines.append(", ".join(f"{k}: {_quote(v)}" for k, v in parameters.fields.items()))
    return "\n".join(lines)


def parse(text: str) -> Parameters:
    """Read the text, also as other programs write it.

    The fields are the last line that begins with `Steps:` (some extensions add lines after it),
    or else a last line that holds at least three of them.
    """
    lines = text.rstrip().split("\n")
    at = next((i for i in reversed(range(len(lines))) if _STEPS.match(lines[i])), None)
    if at is None and len(_FIELD.findall(lines[-1])) >= 3:
        at = len(lines) - 1
    fields = {} if at is None else {k: _unquote(v) for k, v in _FIELD.findall(lines[at])}
    words = lines[:at]
    cut = next((i for i, line in enumerate(words) if line.startswith(_NEGATIVE)), len(words))
    negative = "\n".join(words[cut:])[len(_NEGATIVE) :].removeprefix(" ")
    return Parameters("\n".join(words[:cut]), negative, fields)


def describe(
    request: Request, model: str | None, model_hash: str | None, pictures: Mapping[str, str]
) -> Parameters:
    """The text for a resolved request; `pictures` holds the SHA-256 of its image and mask."""
    sampler, grid = _titles(request)
    values: dict[str, Any] = {"Steps": request.steps, "Sampler": sampler, "Schedule type": grid}
    values |= {"CFG scale": request.guidance, "Seed": request.seed}
    if request.width and request.height:
        values["Size"] = f"{request.width}x{request.height}"
    values["Model hash"] = model_hash and model_hash[:10]
    values["Model"] = model
    if request.image is not None:
        values["Denoising strength"] = request.strength
        values["Init image hash"] = pictures.get("image", "")[:10]
    if request.mask is not None:
        values["Mask hash"] = pictures.get("mask", "")[:10]
    if request.clip_skip:
        values["Clip skip"] = request.clip_skip + 1  # the web UI counts from 1
    values["Eta"] = request.eta
    values["CFG rescale"] = request.rescale or None
    if request.guidance_interval is not None:
        values["CFG interval"] = ",".join(_show(end) for end in request.guidance_interval)
    if request.classifier is not None:
        values["Classifier"] = request.classifier
        values["Classifier scale"] = request.classifier_scale
    fields = {name: _show(value) for name, value in values.items() if value is not None}
    return Parameters(request.prompt, request.negative, fields)


def request_values(parameters: Parameters) -> dict[str, Any]:
    """The `Request` fields that the text states, ready for `Request(**values)`.

    Raises SuffuseError for a number or a schedule type that cannot be read.
    """
    fields = parameters.fields
    values: dict[str, Any] = {"prompt": parameters.prompt, "negative": parameters.negative}
    for name, (key, kind) in _NUMBERS.items():
        if key in fields:
            values[name] = _read(key, fields[key], kind)
    if "clip_skip" in values:
        values["clip_skip"] = max(values["clip_skip"] - 1, 0)
    if "Size" in fields:
        size = re.fullmatch(r"\s*(\d+)\s*x\s*(\d+)\s*", fields["Size"])
        if not size:
            raise SuffuseError(f"the picture's Size is {fields['Size']!r}, which is not WxH")
        values["width"], values["height"] = int(size[1]), int(size[2])
    values["guidance_interval"] = fields.get("CFG interval")
    values["sampler"] = fields.get("Sampler")  # `resolve` knows the web UI's names
    values["grid"] = _grid(fields.get("Schedule type"))
    return values


_NUMBERS: dict[str, tuple[str, type]] = {
    "steps": ("Steps", int),
    "guidance": ("CFG scale", float),
    "seed": ("Seed", int),
    "strength": ("Denoising strength", float),
    "clip_skip": ("Clip skip", int),
    "eta": ("Eta", float),
    "rescale": ("CFG rescale", float),
}


def _titles(request: Request) -> tuple[str | None, str | None]:
    """The web UI's names of the sampler and the schedule, whatever names the request uses."""
    if request.sampler is None:
        return None, request.grid and GRID_NAMES[request.grid]
    from suffuse.diffusion.sampler_names import NAMES, resolve

    found = resolve(request.sampler)
    # A name that stands for options beyond its sampler's is kept, or they would be lost; so are
    # those of score SDEs, which the web UI does not know.
    kept = found.options or found.name not in NAMES
    sampler = request.sampler if kept else NAMES[found.name].title
    grid = request.grid or found.grid
    return sampler, grid and GRID_NAMES[grid]


def _grid(schedule: str | None) -> str | None:
    if schedule is None:
        return None
    if schedule.lower() not in GRIDS:
        known = ", ".join(GRID_NAMES.values())
        raise SuffuseError(f"the picture's schedule type {schedule!r} is not one of ours: {known}")
    return GRIDS[schedule.lower()]


def _read(key: str, value: str, kind: type) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise SuffuseError(f"the picture's {key} is {value!r}, which is not a number") from None


def _show(value: Any) -> str:
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return str(value)


def _quote(value: str) -> str:
    # What begins like a string, an object or a list might be read on into the next field.
    plain = not re.search(r'[,:\n]|^["{[]', value) and value == value.strip()
    return value if plain else json.dumps(value, ensure_ascii=False)


def _unquote(value: str) -> str:
    value = value.strip()
    if len(value) < 2 or not (value.startswith('"') and value.endswith('"')):
        return value
    try:
        found = json.loads(value)
    except ValueError:
        return value
    return found if isinstance(found, str) else value
