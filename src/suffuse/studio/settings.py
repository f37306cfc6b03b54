"""What a studio is told when it starts: `Settings`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

BUNDLED = "bundled"
RAY = "ray"  # as a device: a replica on Ray, wherever that is
MIB = 1 << 20


class Limits(BaseModel):
    """What strangers may ask for at most."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    body: int = 32 * MIB  # bytes of one HTTP request
    pixels: int = 4096 * 4096  # of a picture that is sent
    width: int = 2048  # pixels of a picture that is made
    height: int = 2048
    steps: int = 150
    n: int = 16  # pictures a job
    prompt: int = 20_000  # characters
    queued_per_client: int = 200  # jobs that wait
    queued: int = 5000


def default_data() -> Path:
    """`$SUFFUSE_DATA`, else `suffuse/studio` in the folder where the platform keeps such data."""
    if told := os.environ.get("SUFFUSE_DATA"):
        return Path(told).expanduser()
    home = os.environ.get("XDG_DATA_HOME")
    base = Path(home) if home else Path.home() / ".local" / "share"
    return base / "suffuse" / "studio"


def _bundled() -> dict[str, str | None]:
    return {BUNDLED: None}


class Settings(BaseModel):
    """A studio's settings; frozen, and plain enough to be sent to another process.

    `models` maps a name that people see to what `suffuse.load` takes; None is the bundled model.
    `default_model` is the first of them unless said.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path = Field(default_factory=default_data)
    # An SQLAlchemy URL, which may hold a password; None = SQLite in `data`
    database: str | None = Field(default=None, repr=False)
    models: dict[str, str | None] = Field(default_factory=_bundled, min_length=1)
    default_model: str = ""
    folders: tuple[Path, ...] = ()  # LoRAs, embeddings and classifiers are named from here only
    api_key: str | None = Field(default=None, repr=False)
    limits: Limits = Limits()
    devices: tuple[str, ...] = Field(("auto",), min_length=1)  # one worker process each
    memory: int | None = Field(
        default=None, gt=0
    )  # bytes of models kept loaded; None = half of all
    batch: int = Field(default=8, ge=1)  # pictures that share a batch

    @model_validator(mode="before")
    @classmethod
    def _first_model(cls, values: Any) -> Any:
        if isinstance(values, dict) and not values.get("default_model"):
            names = list(values.get("models") or _bundled())
            values = {**values, "default_model": names[0]}
        return values

    @model_validator(mode="after")
    def _known_model(self) -> Settings:
        if self.default_model not in self.models:
            raise ValueError(f"default_model {self.default_model!r} is not one of the models")
        return self
