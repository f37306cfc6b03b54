"""What an OpenAI client sends, read as a `Request`.

Names and meanings are OpenAI's; `seed`, `steps`, `guidance`, `negative_prompt`, `sampler` and
`strength` are ours, which its client sends as `extra_body`. Unknown names are refused, as there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from PIL.Image import Image
from pydantic import BaseModel, ConfigDict, Field

from suffuse.studio import canvas
from suffuse.studio.problems import Problem
from suffuse.studio.settings import Limits
from suffuse.studio.views import ModelView
from suffuse.systems.request import Request

_VARIATION = 0.6  # how far from its picture a variation begins: what it shows stays, redrawn
MOST_PARTIALS = 3  # pictures before the finished one, as OpenAI has it


class Asked(BaseModel):
    """The fields that all three have."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    prompt: str
    model: str | None = None
    n: int | None = Field(None, ge=1)
    size: str | None = None  # "WxH" or "auto", the model's own
    response_format: Literal["url", "b64_json"] | None = None
    output_format: Literal["png", "jpeg", "webp"] | None = None
    output_compression: int | None = Field(None, ge=0, le=100)  # 100 = the best picture
    background: Literal["auto", "opaque", "transparent"] | None = None
    stream: bool | None = None
    partial_images: int | None = Field(None, ge=0, le=MOST_PARTIALS)
    # ours
    seed: int | None = Field(None, ge=-1)
    steps: int | None = Field(None, ge=1)
    guidance: float | None = Field(None, ge=0)
    negative_prompt: str | None = None
    sampler: str | None = None
    # taken for the sake of clients, and without effect: nothing here has such a knob
    quality: str | None = None
    style: str | None = None
    moderation: str | None = None
    user: str | None = None
    safety_identifier: str | None = None

    @property
    def format(self) -> Literal["png", "jpeg", "webp"]:
        return self.output_format or "png"

    @property
    def partials(self) -> int:
        return self.partial_images or 0

    def wanted_size(self) -> canvas.Size | None:
        """Width and height, None for the model's own. Raises Problem."""
        if self.size in (None, "", "auto"):
            return None
        found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", str(self.size))
        if not found:
            raise Problem(f"size {self.size!r} is not WIDTHxHEIGHT or auto", field="size")
        return int(found[1]), int(found[2])

    def check(self) -> None:
        """Raises Problem for what no model here can do, and for fields that contradict."""
        if self.background == "transparent":
            told = "the models here draw no transparency: background can be opaque or auto"
            raise Problem(told, field="background")
        if self.format == "png" and self.output_compression not in (None, 100):
            told = "output_compression is for jpeg and webp: png loses nothing"
            raise Problem(told, field="output_compression")
        if self.response_format == "url" and (self.format != "png" or self.stream):
            told = "response_format url gives the kept PNG file: ask for b64_json instead"
            raise Problem(told, field="response_format")
        if self.partials and not self.stream:
            raise Problem("partial_images needs stream", field="partial_images")


class AskedGeneration(Asked):
    """The body of /v1/images/generations."""


class AskedEdit(Asked):
    """The form of /v1/images/edits, without its pictures."""

    strength: float | None = Field(None, gt=0, le=1)
    input_fidelity: str | None = None  # without effect


class AskedVariation(AskedEdit):
    """The form of /v1/images/variations; OpenAI's takes no prompt, ours may have one."""

    prompt: str = ""


@dataclass(frozen=True)
class Start:
    """The picture to start from and where it may change, None = everywhere."""

    image: Image
    mask: Image | None = None


def edit_start(asked: AskedEdit, image: Image, mask: Image | None, limits: Limits) -> Start:
    """What is transparent in the mask, or else in the picture, is drawn anew. Raises Problem."""
    if mask is not None and mask.size != image.size:
        sizes = f"{mask.width}x{mask.height} and {image.width}x{image.height}"
        raise Problem(f"mask and image differ in size, {sizes}: send equal ones", field="mask")
    where = canvas.holes(image if mask is None else mask)
    if mask is not None and where is None:
        raise Problem("the mask has no transparent pixel: nothing would change", field="mask")
    if (clear := canvas.holes(image)) is not None:
        image = canvas.bleed(image, clear)
    if (size := asked.wanted_size()) is not None:
        canvas.check_size(size, limits)
        image = canvas.fitted(image.convert("RGB"), size)
        where = where and canvas.crisp(canvas.fitted(where, size))
    return Start(image, where)


def request_of(asked: Asked, start: Start | None = None) -> Request:
    """Raises SuffuseError."""
    asked.check()
    width, height = asked.wanted_size() or (None, None)
    fields: dict[str, Any] = {}
    if start is not None:
        fields = {"image": start.image, "mask": start.mask, "strength": _strength(asked, start)}
    return Request(
        asked.prompt,
        asked.negative_prompt or "",
        n=asked.n or 1,
        seed=asked.seed,
        steps=asked.steps,
        guidance=asked.guidance,
        sampler=asked.sampler,
        width=width,
        height=height,
        **fields,
    ).check()


def _strength(asked: Asked, start: Start) -> float:
    """What was cut out leaves nothing behind; a whole picture does."""
    if isinstance(asked, AskedEdit) and asked.strength is not None:
        return asked.strength
    if isinstance(asked, AskedVariation):
        return _VARIATION
    return Request.strength if start.mask is None else 1.0


def model_named(given: str | None, models: list[ModelView]) -> ModelView:
    """None is the default model. Raises Problem (404)."""
    for model in models:
        if model.name == given or (not given and model.default):
            return model
    names = ", ".join(model.name for model in models)
    told = f"the model {given!r} does not exist; there is {names}"
    raise Problem(told, field="model", status=404)


def preview_every(asked: Asked, model: ModelView) -> int:
    """Steps from one partial picture to the next, so that all that were asked for come before the
    last step; 0 = none."""
    steps = asked.steps or model.defaults.steps or 30
    return max(1, steps // (asked.partials + 1)) if asked.stream and asked.partials else 0
