"""What `POST /api/jobs` takes, and the `Request` in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from suffuse.errors import SuffuseError
from suffuse.studio.inputs import picture
from suffuse.studio.problems import Problem, one_line
from suffuse.studio.settings import Settings
from suffuse.systems.request import PICTURES, Request

LISTS = ("loras", "embeddings", "boxes")  # in a form, fields that may stand there several times
MOST_BOXES = 100
MOST_FILES = 16  # LoRAs or learned words on one model

Count = Annotated[int, Field(ge=1)]
Picture = Annotated[str, Field(description="base64, or a data URL, of PNG, JPEG, WebP or GIF")]


class Asked(BaseModel):
    """A job: the fields of `Request`, and what the studio does with it.

    What is left out is left to the model. Ranges are those of `Request` and of `/api/options`.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, title="JobRequest")

    prompt: str = ""
    negative: str = ""
    steps: Count | None = None
    guidance: Annotated[float, Field(ge=0)] | None = None
    rescale: float = Field(0.0, ge=0, le=1)
    sampler: str | None = None
    grid: str | None = None
    eta: Annotated[float, Field(ge=0)] | None = None
    seed: Annotated[int, Field(ge=-1)] | None = None
    n: Count = 1
    best_of: Count | None = Field(None, description="draw so many, keep the n nearest to prompt")
    width: Count | None = None
    height: Count | None = None
    image: Picture | None = None
    mask: Picture | None = Field(None, description="white is repainted")
    strength: float = Field(0.8, gt=0, le=1)
    clip_skip: int = Field(0, ge=0)
    loras: list[str] | None = Field(None, description="NAME or NAME:SCALE of files in the folders")
    embeddings: list[str] | None = Field(None, description="names of files in the folders")
    boxes: list[Any] | None = Field(
        None,
        max_length=MOST_BOXES,
        description="[label, x0, y0, x1, y1] each, or LABEL:X0,Y0,X1,Y1; sides from 0 to 1",
    )
    respacing: str | None = None
    guidance_interval: tuple[float, float] | None = None
    classifier: str | None = Field(None, description="name of a file in the folders")
    classifier_scale: float = Field(1.0, ge=0)

    model: str | None = Field(None, description="one of /api/models")
    priority: int = Field(0, ge=-100, le=100, description="higher goes first")
    film: bool = Field(False, description="keep the previews of all steps as one picture")
    explain: bool = Field(False, description="record what /explanation.json then tells")
    preview: int = Field(0, ge=0, description="send one every so many steps; 0 = none")

    def settings(self) -> dict[str, Any]:
        """What the studio is told beside the Request."""
        return {name: getattr(self, name) for name in _OF_THE_STUDIO}


_OF_THE_STUDIO = ("model", "priority", "film", "explain", "preview")


def parse(body: bytes) -> Asked:
    """The JSON of a body, strict about names and types. Raises Problem."""
    try:
        return Asked.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise _first(error) from None


def parse_form(given: Mapping[str, Any]) -> Asked:
    """Form fields, where numbers are text. Raises Problem."""
    try:
        return Asked.model_validate(given)
    except ValidationError as error:
        raise _first(error) from None


def request_of(asked: Asked, files: Mapping[str, bytes], settings: Settings) -> Request:
    """The Request, with its pictures decoded, its files found, and everything judged that can be
    without a model. `files` are pictures that came as they are. Raises Problem.

    Takes the time that decoding takes: call it in a thread.
    """
    values = asked.model_dump(exclude={*_OF_THE_STUDIO, *PICTURES})
    for name in PICTURES:
        sent = files.get(name, getattr(asked, name))
        if sent is not None:
            values[name] = picture(sent, name, settings.limits)
    for name, what in (("loras", "LoRA"), ("embeddings", "embedding")):
        if values[name] is not None:
            values[name] = _found(values[name], name, what, settings.folders)
    if asked.classifier is not None:
        values["classifier"] = str(find(asked.classifier, "classifier", settings.folders))
    _check_respacing(asked.respacing, settings)
    try:
        request = Request(**values).check()
        _check_labels(request, settings)
        return request
    except SuffuseError as error:
        raise named(error) from None


def named(error: SuffuseError) -> Problem:
    """The same as a Problem that names the field, where the message begins with one."""
    if isinstance(error, Problem):
        return error
    first = re.match(r"(?:the |a |unknown )?(\w+)", str(error))
    field = first[1] if first and first[1] in Request.__dataclass_fields__ else None
    return Problem(str(error), field=field)


def find(name: str, what: str, folders: Iterable[Path]) -> Path:
    """The file or folder of that name, with its ending or without, in one of `folders`.

    Names are compared with what is there and never made into a path. Raises Problem.
    """
    for folder in folders:
        if folder.is_dir():
            for path in sorted(folder.iterdir()):
                if name in (path.name, path.stem) and not path.name.startswith("."):
                    return path
    raise Problem(f"there is no {what} {one_line(name, 100)!r} in the studio's folders")


def _found(
    names: list[str], field: str, what: str, folders: tuple[Path, ...]
) -> list[tuple[str, float]] | list[str]:
    if len(names) > MOST_FILES:
        raise Problem(f"{field} may name {MOST_FILES} files at most", field=field)
    try:
        if field == "embeddings":
            return [str(find(name, what, folders)) for name in names]
        split = [_scaled(name) for name in names]
        return [(str(find(name, what, folders)), scale) for name, scale in split]
    except Problem as problem:
        problem.field = field
        raise


def _scaled(given: str) -> tuple[str, float]:
    name, colon, scale = given.rpartition(":")
    if not colon:
        return given, 1.0
    try:
        return name, float(scale)
    except ValueError:
        raise Problem(f"the scale of a LoRA must be a number, not {scale[:40]!r}") from None


def _check_respacing(respacing: str | None, settings: Settings) -> None:
    """Steps are limited however they are asked for."""
    numbers = [int(number[:9]) for number in re.findall(r"[0-9]+", respacing or "")]
    most = settings.limits.steps
    if sum(numbers) > most:
        said = f"respacing must ask for at most {most} steps, not {sum(numbers)}"
        raise Problem(said, field="respacing")


def _check_labels(request: Request, settings: Settings) -> None:
    most = settings.limits.prompt
    if sum(len(box.label) for box in request.boxes or ()) > most:
        raise Problem(f"the labels of boxes must be at most {most} characters", field="boxes")


def _first(error: ValidationError) -> Problem:
    """The first thing that is wrong, in one sentence."""
    found = error.errors(include_url=False, include_input=False, include_context=False)[0]
    if found["type"] == "json_invalid":
        return Problem("the body is not valid JSON")
    field = str(found["loc"][0])[:100] if found["loc"] else None
    if found["type"] == "extra_forbidden":
        return Problem(f"unknown field {field!r}: {_KNOWN}", field=field)
    message = found["msg"][:1].lower() + found["msg"][1:]
    return Problem(f"{field}: {message}" if field else f"the body: {message}", field=field)


_KNOWN = "the fields are those of JobRequest in /openapi.json"
