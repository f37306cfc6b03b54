"""What an A1111 client gets: base64 pictures, and what is known of them as JSON in a string."""

from __future__ import annotations

import base64
import json
from typing import Any

import suffuse
from suffuse.studio.a1111_asked import Asked
from suffuse.studio.a1111_calls import Call
from suffuse.studio.service import Service
from suffuse.studio.views import ImageView, JobView, ModelView
from suffuse.systems import infotext


def progress(call: Call, with_image: bool) -> dict[str, Any]:
    """The answer of /progress; `current_image` is a base64 PNG or None."""
    return {
        "progress": call.share,
        "eta_relative": call.seconds_left,
        "state": call.state(),
        "current_image": call.preview if with_image else None,
        "textinfo": None,
    }


def drawn(
    service: Service, asked: Asked, jobs: list[JobView], call: Call, model: ModelView
) -> dict[str, Any]:
    """The answer of txt2img and img2img; after an interrupt, of what was finished."""
    images = [image for job in jobs for image in job.images]
    sent = [_base64(service, image) for image in images] if asked.send_images else []
    secret = set() if getattr(asked, "include_init_images", False) else {"init_images", "mask"}
    return {
        "images": sent,
        "parameters": asked.model_dump(exclude=secret),
        "info": json.dumps(_info(asked, images, call, model), ensure_ascii=False),
    }


def _base64(service: Service, image: ImageView) -> str:
    file = service.file("image", image.hash)
    return "" if file is None else base64.b64encode(file.read_bytes()).decode()


def _info(asked: Asked, images: list[ImageView], call: Call, model: ModelView) -> dict[str, Any]:
    seeds = [image.seed for image in images]
    first = images[0] if images else None
    shown = infotext.parse(first.infotext).fields if first else {}
    negative = asked.negative_prompt or ""
    subseed = seeds[0] if seeds else asked.seed
    return {
        "prompt": asked.prompt,
        "all_prompts": [asked.prompt] * len(images),
        "negative_prompt": negative,
        "all_negative_prompts": [negative] * len(images),
        "seed": subseed,
        "all_seeds": seeds,
        "subseed": subseed,
        "all_subseeds": seeds,
        "subseed_strength": 0,
        "width": first.width if first else asked.width,
        "height": first.height if first else asked.height,
        "sampler_name": shown.get("Sampler", asked.sampler_name or asked.sampler_index),
        "cfg_scale": asked.cfg_scale if first is None else first.guidance,
        "steps": asked.steps if first is None else first.steps,
        "batch_size": asked.batch_size,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": model.name,
        "sd_model_hash": model.hash and model.hash[:10],
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": asked.denoising_strength,
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": [_infotext(asked, image) for image in images],
        "styles": [],
        "job_timestamp": call.begun.strftime("%Y%m%d%H%M%S"),
        "clip_skip": int(shown.get("Clip skip", 1)),
        "is_using_inpainting_conditioning": False,
        "version": f"suffuse {suffuse.__version__}",
    }


def _infotext(asked: Asked, image: ImageView) -> str:
    """The picture's own, with the prompt as it was sent: LoRA tags are part of it here."""
    fields = infotext.parse(image.infotext).fields
    negative = asked.negative_prompt or ""
    return infotext.write(infotext.Parameters(asked.prompt, negative, fields))
