"""What a client of A1111's web UI sends, read as a `Request`.

Field names and defaults are the web UI's. Fields that would change the picture and that nothing
here can do are refused by name (`_CANNOT`); the others that it knows are taken and mean nothing
here, as docs/studio.md lists them. Names that neither knows are ignored, as the web UI does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import ImageOps
from PIL.Image import Image
from pydantic import BaseModel, Field

from suffuse.studio import canvas
from suffuse.studio.inputs import picture
from suffuse.studio.problems import Problem
from suffuse.studio.settings import Limits
from suffuse.systems.infotext import GRIDS

Number = int | float


class Asked(BaseModel):
    """The body of txt2img, and what img2img's has in common with it."""

    prompt: str = ""
    negative_prompt: str | None = ""
    seed: int = -1
    sampler_name: str | None = None
    sampler_index: str | None = "Euler"  # the older name of the same
    scheduler: str | None = None
    batch_size: int = Field(1, ge=1)
    n_iter: int = Field(1, ge=1)
    steps: int | None = Field(50, ge=1)
    cfg_scale: float | None = Field(7.0, allow_inf_nan=False)
    width: int | None = Field(None, ge=1)  # the web UI's is 512, ours the model's own
    height: int | None = Field(None, ge=1)
    eta: float | None = Field(None, ge=0, allow_inf_nan=False)
    denoising_strength: float | None = None
    override_settings: dict[str, Any] | None = None
    disable_extra_networks: bool | None = False
    send_images: bool = True
    # What follows is judged by `_CANNOT` alone.
    enable_hr: bool | None = False
    restore_faces: bool | None = None
    tiling: bool | None = None
    subseed_strength: float | None = 0.0
    seed_resize_from_w: int | None = -1
    seed_resize_from_h: int | None = -1
    s_churn: float | None = 0.0
    s_noise: float | None = 1.0
    s_min_uncond: float | None = 0.0
    refiner_checkpoint: str | None = None
    infotext: str | None = None
    script_name: str | None = None
    alwayson_scripts: dict[str, Any] | None = None


class AskedFromPicture(Asked):
    """The body of img2img."""

    denoising_strength: float | None = Field(0.75, gt=0, le=1)
    init_images: list[str] | None = None
    resize_mode: int = 0  # 0 stretches, 1 crops
    mask: str | None = None  # white = repaint
    inpainting_mask_invert: int | None = 0
    inpainting_fill: int | None = 0  # 0 what surrounds it, 1 what was there
    inpaint_full_res: bool | None = True
    include_init_images: bool = False
    latent_mask: str | None = None
    initial_noise_multiplier: float | None = None


# Field, the values that mean nothing, and what to say to all others.
_CANNOT: tuple[tuple[str, tuple[Any, ...], str], ...] = (
    ("enable_hr", (None, False), "there is no second, enlarging pass; use img2img for it"),
    ("restore_faces", (None, False), "there is no face restoration"),
    ("tiling", (None, False), "there are no seamless tiles"),
    ("subseed_strength", (None, 0), "there are no variation seeds"),
    ("seed_resize_from_w", (None, -1, 0), "seeds of another size cannot be resized"),
    ("seed_resize_from_h", (None, -1, 0), "seeds of another size cannot be resized"),
    ("s_churn", (None, 0), "the samplers take no churn"),
    ("s_noise", (None, 1), "the samplers' noise is not scaled"),
    ("s_min_uncond", (None, 0), "no step leaves the negative prompt out"),
    ("refiner_checkpoint", (None, "", "None"), "there is no refiner"),
    ("infotext", (None, ""), "send the fields themselves; png-info reads them from a picture"),
    ("script_name", (None, "", "None"), "there are no scripts"),
    ("alwayson_scripts", (None, {}), "there are no scripts"),
    ("resize_mode", (0, 1), "pictures are stretched (0) or cropped (1)"),
    ("inpainting_fill", (None, 0, 1), "masks are filled from around (0) or not at all (1)"),
    ("latent_mask", (None, ""), "send it as mask"),
    ("initial_noise_multiplier", (None, 1), "the noise is not scaled"),
)


def refuse_what_cannot_be(asked: Asked) -> None:
    """Raises Problem (422) for the first field that asks for something there is not."""
    for name, neutral, why in _CANNOT:
        value = getattr(asked, name, None)
        if value not in neutral:
            shown = ", ".join(value) if isinstance(value, dict) else value
            raise Problem(f"{name} {shown}: {why}", field=name, status=422)


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


def words_in(text: str, names: Sequence[str]) -> list[str]:
    """Those of `names` that stand in the text as words of their own, case aside."""
    return [n for n in names if re.search(rf"(?<!\w){re.escape(n)}(?!\w)", text, re.IGNORECASE)]


# ---- samplers -----------------------------------------------------------------------------------


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
    """The sampler's name, and eta if that sampler uses one. Raises Problem (404).

    Clients send eta with every sampler. It counts, as in the web UI, where the sampler draws noise
    and for DDIM.
    """
    from suffuse.diffusion.samplers import SAMPLERS, resolve
    from suffuse.errors import SuffuseError

    name = asked.sampler_name or asked.sampler_index or "Euler"
    try:
        entry = SAMPLERS.get(found := resolve(name).name)
    except SuffuseError as problem:
        raise Problem(str(problem), field="sampler_name", status=404) from None
    uses = entry is not None and "eta" in entry.takes and (entry.stochastic or found == "ddim")
    return name, asked.eta if uses else None


# ---- pictures -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Start:
    """What img2img begins with, as `Request` takes it."""

    image: Image
    mask: Image | None
    width: int | None  # that the model draws; None = the picture's own
    height: int | None


def start_of(asked: AskedFromPicture, limits: Limits) -> Start:
    """The picture and its mask, of one size. Raises Problem."""
    given = asked.init_images or []
    if not given:
        raise Problem("Init image not found", field="init_images", status=404)
    if len(given) > 1:
        raise Problem("init_images: send one picture a request", field="init_images", status=422)
    image = picture(given[0], "init_images", limits)
    mask = _mask(asked, image.size, limits)
    width, height = asked.width, asked.height
    size = (width or image.width, height or image.height)
    # With a mask, the web UI's "only masked" gives a picture of the size it was sent; so do our
    # masks if the picture is not resized before.
    if mask is None or not asked.inpaint_full_res:
        crop = asked.resize_mode == 1
        image = canvas.fitted(image, size, crop)
        mask = mask and canvas.fitted(mask, size, crop)
    if mask is not None and asked.inpainting_fill != 1:
        image = canvas.bleed(image, mask)
    return Start(image, mask, width, height)


def _mask(asked: AskedFromPicture, size: canvas.Size, limits: Limits) -> Image | None:
    if not asked.mask:
        return None
    mask = picture(asked.mask, "mask", limits)
    # As the web UI has it, what is painted on a transparent layer is white whatever its colour.
    mask = mask.getchannel("A") if "A" in mask.getbands() else mask.convert("L")
    mask = canvas.fitted(mask, size)
    return ImageOps.invert(mask) if asked.inpainting_mask_invert else mask


# ---- all of it ----------------------------------------------------------------------------------


def requests_of(
    asked: Asked, options: Mapping[str, Any], named: Named, limits: Limits
) -> list[Request]:
    """`n_iter` requests for `batch_size` pictures each; picture i of all of them has seed + i.

    `options` are the client's, with the request's `override_settings`. Raises SuffuseError.
    """
    refuse_what_cannot_be(asked)
    count = asked.batch_size * asked.n_iter
    if count > limits.n:
        told = f"batch_size x n_iter is {count} pictures: at most {limits.n} are drawn at a time"
        raise Problem(told, field="n_iter", status=422)
    start = Start()
    if isinstance(asked, AskedFromPicture):
        start = start_of(asked, limits)
    first = replace(
        _words(asked, named),
        n=asked.batch_size,
        seed=secrets.randbelow(2**32) if asked.seed == -1 else asked.seed,
        steps=asked.steps,
        guidance=asked.cfg_scale,
        clip_skip=options["CLIP_stop_at_last_layers"] - 1,
        **_sampling(asked),
        **start.fields(),
    )
    assert first.seed is not None
    return [replace(first, seed=first.seed + i * first.n) for i in range(asked.n_iter)]


def _words(asked: Asked, named: Named) -> Request:
    negative = asked.negative_prompt or ""
    prompt, loras = asked.prompt, []
    if not asked.disable_extra_networks:
        prompt, loras = tags(prompt)
    embeddings = words_in(f"{prompt}\n{negative}", named.words())
    return Request(
        prompt,
        negative,
        loras=tuple(LoraFile(named.path(n, "LoRA"), scale) for n, scale in loras) or None,
        embeddings=tuple(named.path(n, "embedding") for n in embeddings) or None,
    )
