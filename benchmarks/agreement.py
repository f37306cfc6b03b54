"""Whole pictures of Stable Diffusion 1.5's true size, with random weights, beside diffusers.

    python benchmarks/agreement.py [--size 256] [--steps 20] [--samplers plms euler …]

Writes a folder of 2.1 GB to a temporary place, opens it with both libraries in float32, and lets
both draw the same prompt from the same noise. A pixel may differ by one level of 255. Needs 12 GB
of memory; on two cores without AMX a picture of 256 x 256 in 20 steps takes some two minutes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import diffusers
import numpy as np
import torch
from sd15 import fill, machine, ours

import suffuse
from suffuse.networks.autoencoder import AutoencoderConfig, AutoencoderKL
from suffuse.networks.clip import ClipText, ClipTextConfig
from suffuse.networks.families import SDConfig
from suffuse.text.openai import openai_clip_tokenizer
from suffuse.weights import single_file
from suffuse.weights.parts import Parts
from suffuse.weights.save import save_parts
from suffuse.weights.scheduler import from_config

PROMPT = "a photograph of an astronaut riding a horse"
GUIDANCE = 7.5
PEERS = {
    "plms": "PNDMScheduler",
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "dpm++_2m": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}


def write(folder: Path) -> None:
    device = torch.device("cpu")
    with torch.device("meta"):
        codec, text = AutoencoderKL(AutoencoderConfig()), ClipText(ClipTextConfig())
    codec, text = (fill(net.to_empty(device=device), device) for net in (codec, text))
    config = SDConfig()
    unet = ours(config, torch.float32, device)
    sampling = from_config(single_file.SCHEDULER, stable_diffusion=True)
    save_parts(Parts(unet, config, codec, text, openai_clip_tokenizer(), sampling, 0.18215), folder)


def our_picture(folder: Path, sampler: str, noise: torch.Tensor, steps: int) -> np.ndarray:
    model = suffuse.load(folder, device="cpu", dtype="float32")
    height, width = (8 * side for side in noise.shape[2:])
    asked = {"sampler": sampler, "steps": steps, "guidance": GUIDANCE}
    pictures = model.generate(PROMPT, noise=noise, width=width, height=height, **asked)
    return np.asarray(pictures[0]).astype(int)


def their_picture(folder: Path, sampler: str, noise: torch.Tensor, steps: int) -> np.ndarray:
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(
        folder, torch_dtype=torch.float32, safety_checker=None, local_files_only=True
    )
    pipe.scheduler = getattr(diffusers, PEERS[sampler]).from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    picture = pipe(
        PROMPT,
        num_inference_steps=steps,
        guidance_scale=GUIDANCE,
        latents=noise.clone(),
        height=noise.shape[2] * 8,
        width=noise.shape[3] * 8,
    ).images[0]
    return np.asarray(picture).astype(int)


def main() -> None:
    parser = argparse.ArgumentParser(description="Whole pictures at true size.")
    parser.add_argument("--size", type=int, default=256, help="pixels along each side")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--samplers", nargs="+", default=["plms"], choices=list(PEERS))
    options = parser.parse_args()
    print(machine(torch.device("cpu")))
    side = options.size // 8
    noise = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        write(folder)
        for sampler in options.samplers:
            start = time.perf_counter()
            got = our_picture(folder, sampler, noise, options.steps)
            middle = time.perf_counter()
            want = their_picture(folder, sampler, noise, options.steps)
            apart = np.abs(got - want)
            print(
                f"{sampler:9} {options.size} x {options.size}, {options.steps} steps: apart by at "
                f"most {apart.max()} of 255, {np.mean(apart > 0):.2%} of the values differ; levels "
                f"{want.min()} to {want.max()}, deviation {want.std():.0f}; with loading "
                f"{middle - start:.0f} s, diffusers {time.perf_counter() - middle:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
