"""From what a client of A1111's web UI sends to `Request`s."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import ImageOps
from PIL.Image import Image

from suffuse.diffusion.sampler_names import resolve
from suffuse.errors import SuffuseError
from suffuse.studio import canvas, library
from suffuse.studio.a1111_asked import Asked, AskedFromPicture, refuse_what_cannot_be
from suffuse.studio.asked import find
from suffuse.studio.inputs import picture
from suffuse.studio.problems import Problem
from suffuse.studio.settings import Limits, Settings
from suffuse.systems.additions import LoraFile
from suffuse.systems.infotext import GRIDS
from suffuse.systems.request import Request


def requests_of(asked: Asked, options: Mapping[str, Any], settings: Settings) -> list[Request]:
    """`n_iter` requests for `batch_size` pictures each; picture i of all of them has seed + i.

    `options` are the client's, with the request's `override_settings`. Raises SuffuseError.
    """
    refuse_what_cannot_be(asked)
    limits, count = settings.limits, asked.batch_size * asked.n_iter
    if count > limits.n:
        told = f"batch_size x n_iter is {count} pictures: at most {limits.n} are drawn at a time"
        raise Problem(told, field="n_iter", status=422)
    seed = secrets.randbelow(2**32) if asked.seed == -1 else asked.seed
    sampler, eta = sampler_of(asked)
    first = replace(
        _words(asked, settings.folders),
        n=asked.batch_size,
        seed=seed,
        steps=asked.steps,
        guidance=asked.cfg_scale,
        sampler=sampler,
        grid=grid_of(asked.scheduler),
        eta=eta,
        clip_skip=options["CLIP_stop_at_last_layers"] - 1,
        **_start(asked, limits),
    )
    return [replace(first, seed=seed + i * asked.batch_size) for i in range(asked.n_iter)]


# ---- prompts ------------------------------------------------------------------------------------

_TAG = re.compile(r"<(\w+):([^<>]*)>")


def tags(prompt: str) -> tuple[str, list[tuple[str, float]]]:
    """A prompt without its `<lora:name:0.8>`, and the names with their scales.

    Raises Problem (422) for other kinds of networks and what is no number.
    """
    found = [_lora(kind, rest) for kind, rest in _TAG.findall(prompt)]
    return (_TAG.sub("", prompt).strip() if found else prompt), found


def _lora(kind: str, rest: str) -> tuple[str, float]:
    if kind != "lora":
        raise Problem(f"<{kind}:…> in the prompt: only <lora:…> is known", status=422)
    name, *scales = rest.split(":")
    try:
        numbers = [float(scale) for scale in scales] or [1.0]
    except ValueError:
        raise Problem(f"<lora:{rest}>: its scale is not a number", status=422) from None
    if len(set(numbers)) > 1:
        # The web UI's further numbers are those of the U-Net and of its rank.
        raise Problem(f"<lora:{rest}>: one scale holds for the whole model", status=422)
    return name, numbers[0]


def words_in(text: str, known: Iterable[str]) -> list[str]:
    """Those that stand in the text as words of their own, case aside."""
    return [w for w in known if re.search(rf"(?<!\w){re.escape(w)}(?!\w)", text, re.IGNORECASE)]


def _words(asked: Asked, folders: Sequence[Path]) -> Request:
    """The prompts, with the LoRAs that their tags name and the learned words in them."""
    negative, prompt = asked.negative_prompt or "", asked.prompt
    tagged: list[tuple[str, float]] = []
    if not asked.disable_extra_networks:
        prompt, tagged = tags(prompt)
    loras = [LoraFile(str(find(name, "LoRA", folders)), scale) for name, scale in tagged]
    words = library.words(folders)
    used = words_in(f"{prompt}\n{negative}", words)
    return Request(
        prompt,
        negative,
        loras=tuple(loras) or None,
        embeddings=tuple(str(words[word].path) for word in used) or None,
    )


# ---- samplers -----------------------------------------------------------------------------------

# Clients send eta with every sampler; as in the web UI, it counts for DDIM and those that draw
# noise at each step. (Ours would take it for more, "DPM++ 2M" for one.)
WITH_ETA = ("ddim", "euler_a", "dpm2_a", "dpm++_2s_a", "dpm++_sde", "dpm++_2m_sde", "dpm++_3m_sde")


def grid_of(scheduler: str | None) -> str | None:
    """Our grid for one of the web UI's schedulers, by its name or its label.

    None for "Automatic". Raises Problem (404) for one that is not ours.
    """
    if not scheduler:
        return None
    plain = scheduler.lower().replace("_", " ")
    if plain not in GRIDS:
        raise Problem(f"unknown scheduler {scheduler!r}", field="scheduler", status=404)
    return GRIDS[plain]


def sampler_of(asked: Asked) -> tuple[str, float | None]:
    """The sampler's name, and eta if that sampler uses one. Raises Problem (404)."""
    name = asked.sampler_name or asked.sampler_index or "Euler"
    try:
        found = resolve(name)
    except SuffuseError as problem:
        raise Problem(str(problem), field="sampler_name", status=404) from None
    return name, asked.eta if found.name in WITH_ETA else None


# ---- pictures -----------------------------------------------------------------------------------


def _start(asked: Asked, limits: Limits) -> dict[str, Any]:
    """What img2img begins with, as `Request`'s fields. Raises Problem."""
    size = {"width": asked.width, "height": asked.height}
    if not isinstance(asked, AskedFromPicture):
        return size
    canvas.check_size((asked.width or 1, asked.height or 1), limits)
    given = asked.init_images or []
    if not given:
        raise Problem("Init image not found", field="init_images", status=404)
    if len(given) > 1:
        raise Problem("init_images: send one picture a request", field="init_images", status=422)
    image = picture(given[0], "init_images", limits)
    mask = _mask(asked, image.size, limits)
    # With a mask, the web UI's "only masked" gives a picture of the size it was sent; so do our
    # masks if the picture is not resized before.
    if mask is None or not asked.inpaint_full_res:
        wanted, crop = (asked.width or image.width, asked.height or image.height), asked.resize_mode
        image = canvas.fitted(image, wanted, crop == 1)
        mask = mask and canvas.crisp(canvas.fitted(mask, wanted, crop == 1))
    if mask is not None and asked.inpainting_fill != 1:
        image = canvas.bleed(image, mask)
    return {**size, "image": image, "mask": mask, "strength": asked.denoising_strength or 0.75}


def _mask(asked: AskedFromPicture, size: canvas.Size, limits: Limits) -> Image | None:
    if not asked.mask:
        return None
    mask = picture(asked.mask, "mask", limits)
    # As the web UI has it, what is painted on a transparent layer is white whatever its colour.
    mask = mask.getchannel("A") if "A" in mask.getbands() else mask.convert("L")
    mask = canvas.crisp(canvas.fitted(mask, size))
    return ImageOps.invert(mask) if asked.inpainting_mask_invert else mask
