"""The web UI's settings: four of them do something here, all others are only kept.

Each client has its own, for as long as the service runs; a stranger's do not touch yours.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import from_json

from suffuse.studio.problems import Problem
from suffuse.studio.views import ModelView

MOST_CLIENTS, MOST_BYTES = 1000, 1 << 16
DEFAULTS: Mapping[str, Any] = {
    "CLIP_stop_at_last_layers": 1,
    "live_previews_enable": True,
    "show_progress_every_n_steps": 10,
    "samples_format": "png",
    "sd_vae": "Automatic",
}
MODEL = "sd_model_checkpoint"


class Options:
    """Settings by client. Used by one thread only, that of the event loop."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def of(self, client: str) -> dict[str, Any]:
        """All settings of a client but the default model, unless it chose one."""
        return {**DEFAULTS, **self._kept.get(client, {})}

    def put(self, client: str, changes: Mapping[str, Any]) -> None:
        """Keeps the changes. Raises Problem (422) where a client keeps too much."""
        kept = {**self._kept.get(client, {}), **changes}
        if checked(kept) > MOST_BYTES:
            raise Problem(f"at most {MOST_BYTES} bytes of options are kept", status=422)
        self._kept[client] = kept
        self._kept.move_to_end(client)
        while len(self._kept) > MOST_CLIENTS:
            self._kept.popitem(last=False)


def checked(options: Mapping[str, Any]) -> int:
    """How many bytes of JSON they are. Raises Problem (422) for a value that its setting cannot
    have, or that JSON cannot carry back."""
    for name, least in (("CLIP_stop_at_last_layers", 1), ("show_progress_every_n_steps", -1)):
        value = options.get(name, least)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise Problem(f"{name} must be a whole number, {least} or more", field=name, status=422)
    if not isinstance(options.get("live_previews_enable", True), bool):
        raise Problem("live_previews_enable must be true or false", status=422)
    if not isinstance(options.get(MODEL, ""), str | None):
        raise Problem(f"{MODEL} must be the name of a model", field=MODEL, status=422)
    try:
        told = json.dumps(options, ensure_ascii=False, allow_nan=False).encode()
        from_json(told)  # which refuses what is nested too deeply to be sent back
        return len(told)
    except (ValueError, RecursionError):  # NaN, half a character, lists in lists in lists …
        raise Problem("an option has a value that JSON does not know", status=422) from None


def previews(options: Mapping[str, Any]) -> int:
    """Steps from one preview to the next; 0 = none."""
    every = options["show_progress_every_n_steps"]
    return max(0, every) if options["live_previews_enable"] else 0


def title(model: ModelView) -> str:
    """What the web UI shows: the name and the beginning of the checkpoint's hash."""
    return f"{model.name} [{model.hash[:10]}]" if model.hash else model.name


def model_named(given: str | None, models: Sequence[ModelView]) -> ModelView:
    """By its title, its name or its hash; None is the default. Raises Problem (404)."""
    if not given:
        return next(model for model in models if model.default)
    for model in models:
        hashes = (model.hash, model.hash[:10]) if model.hash else ()
        if given in (model.name, title(model), *hashes):
            return model
    raise Problem(f"model {given!r} not found", field=MODEL, status=404)
