"""Peak memory of opening a checkpoint of Stable Diffusion 1.5's true size, with random weights.

    python benchmarks/memory_load.py [--folder] [--dtype float16 float32 …]

Writes a float16 single file (or folder) of 2.1 GB to a temporary folder, opens it once for each
dtype in a process of its own, and prints the peak of resident memory above that of the same
process before it opened anything, as a multiple of the weights' size in that dtype. Every weight is
read once, so that nothing hides on the memory map. Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

PROBE = """
import json, sys, time, torch
import suffuse.weights.load as load

def status(line):
    text = open("/proc/self/status").read()
    return int(text.split(line + ":")[1].split()[0]) * 1024

open("/proc/self/clear_refs", "w").write("5")  # forget the peak of importing torch
before, start = status("VmRSS"), time.perf_counter()
parts = load.open_parts(sys.argv[1], dtype=getattr(torch, sys.argv[2]))
seconds = time.perf_counter() - start
modules = (parts.unet, parts.autoencoder, parts.text)
weights = [p for m in modules for p in m.parameters()]
for p in weights:
    p.sum()
peak = status("VmHWM")
print(json.dumps([before, peak, sum(p.nbytes for p in weights), seconds]))
"""


def write(folder: Path, as_folder: bool) -> Path:
    """Random weights in the layout that people have."""
    import torch
    from safetensors.torch import save_file

    from suffuse.networks.autoencoder import AutoencoderConfig, AutoencoderKL
    from suffuse.networks.clip import ClipText, ClipTextConfig
    from suffuse.networks.families import SDConfig, stable_diffusion
    from suffuse.text.openai import openai_clip_tokenizer
    from suffuse.weights import single_file
    from suffuse.weights.mapping import export
    from suffuse.weights.maps.hf_clip_text import HF_CLIP_TEXT
    from suffuse.weights.maps.ldm_unet import ldm_unet
    from suffuse.weights.maps.ldm_vae import ldm_vae
    from suffuse.weights.parts import Parts
    from suffuse.weights.save import save_parts
    from suffuse.weights.scheduler import from_config

    unet, vae, text = SDConfig(), AutoencoderConfig(), ClipTextConfig()
    torch.set_default_dtype(torch.float16)
    with torch.device("meta"):
        networks = stable_diffusion(unet), AutoencoderKL(vae), ClipText(text)
    for network in networks:
        network.to_empty(device="cpu")
        for p in network.parameters():
            p.data.copy_(torch.empty(p.shape, dtype=torch.int8).random_(-100, 100) * 1e-3)
    torch.set_default_dtype(torch.float32)
    if as_folder:
        sampling = from_config(single_file.SCHEDULER, stable_diffusion=True)
        made = Parts(
            networks[0], unet, networks[1], networks[2], openai_clip_tokenizer(), sampling, 0.18215
        )
        save_parts(made, folder / "model")
        return folder / "model"
    maps = ldm_unet(unet), ldm_vae(vae), HF_CLIP_TEXT
    prefixes = single_file.UNET, single_file.VAE, single_file.TOWER
    weights = {
        prefix + name: weight
        for network, keys, prefix in zip(networks, maps, prefixes)
        for name, weight in export(network, keys, torch.float16).items()
    }
    save_file(weights, folder / "model.safetensors")
    return folder / "model.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", action="store_true", help="a diffusers folder, not a file")
    parser.add_argument("--dtype", nargs="+", default=["float16", "bfloat16", "float32"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        path = write(Path(temporary), options.folder)
        for dtype in options.dtype:
            probe = [sys.executable, "-c", PROBE, str(path), dtype]
            run = subprocess.run(probe, capture_output=True, text=True, check=True)
            before, peak, size, seconds = json.loads(run.stdout)
            print(
                f"{dtype:9} weights {size / 1e9:5.2f} GB, peak above start "
                f"{(peak - before) / 1e9:5.2f} GB = {(peak - before) / size:4.2f} x, "
                f"whole process {peak / size:4.2f} x, opened in {seconds:.1f} s"
            )


if __name__ == "__main__":
    main()
