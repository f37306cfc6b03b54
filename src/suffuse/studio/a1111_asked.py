"""What a client of A1111's web UI sends: its fields, and those that ask for what there is not.

Names and defaults are the web UI's. Fields that would change the picture and that nothing here can
do are refused by name (`_CANNOT`); others that it knows mean nothing here, as docs/studio.md lists
them. Names that neither knows are ignored, as the web UI does.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from suffuse.studio.problems import Problem


class Asked(BaseModel):
    """The body of txt2img, and what img2img's has in common with it."""

    model_config = ConfigDict(allow_inf_nan=False)

    prompt: str = ""
    negative_prompt: str | None = ""
    seed: int = -1
    sampler_name: str | None = None
    sampler_index: str | None = "Euler"  # the older name of the same
    scheduler: str | None = None
    batch_size: int = Field(1, ge=1)
    n_iter: int = Field(1, ge=1)
    steps: int | None = Field(50, ge=1)
    cfg_scale: float | None = 7.0
    width: int | None = Field(None, ge=1)  # the web UI's is 512, ours the model's own
    height: int | None = Field(None, ge=1)
    eta: float | None = Field(None, ge=0)
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
    ("resize_mode", (None, 0, 1), "pictures are stretched (0) or cropped (1)"),
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
