"""Stable Diffusion 1.5's U-Net with random weights, ours and diffusers', and the machine."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from suffuse.networks.blocks import channels_last
from suffuse.networks.families import SDConfig, stable_diffusion
from suffuse.networks.unet import UNet
from suffuse.weights.configs import unet_json
from suffuse.weights.mapping import export
from suffuse.weights.maps.diffusers_unet import DIFFUSERS_UNET

SMALL = SDConfig(channels=(64, 64, 128, 128))  # to try a script in seconds


Net = TypeVar("Net", bound=nn.Module)


def ours(config: SDConfig, dtype: torch.dtype, device: torch.device) -> UNet:
    """Suffuse's U-Net with random weights."""
    with torch.device("meta"):
        net = stable_diffusion(config).to(dtype)
    net = fill(net.to_empty(device=device), device)
    channels_last(net)
    return net


def fill(net: Net, device: torch.device) -> Net:
    """`net` for inference with weights that keep the size of what passes through them."""
    net.eval().requires_grad_(False)
    generator = torch.Generator(device).manual_seed(0)
    for parameter in net.parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 25
        bound = (3 / fan_in) ** 0.5  # of a uniform distribution with variance 1 / fan_in
        parameter.uniform_(-bound, bound, generator=generator)
    for part in net.modules():
        if isinstance(part, nn.GroupNorm | nn.LayerNorm):
            part.weight.add_(1.0)
    return net


def theirs(net: UNet, config: SDConfig) -> UNet2DConditionModel:
    """diffusers' U-Net around the same memory, channels-last."""
    description = {k: v for k, v in unet_json(config, (64, 64)).items() if k[0] != "_"}
    with torch.device("meta"):
        model = UNet2DConditionModel(**description)
    weights = export(net, DIFFUSERS_UNET, net.stem.weight.dtype)
    model.load_state_dict(
        {k: w.to(net.stem.weight.device) for k, w in weights.items()}, assign=True
    )
    return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def machine(device: torch.device) -> str:
    """What a number has to be read with."""
    import diffusers

    cpu, flags = platform.processor() or platform.machine(), set()
    info = Path("/proc/cpuinfo")
    if info.exists():
        fields = dict(
            (part.strip() for part in line.split(":", 1))
            for line in info.read_text().split("\n\n")[0].splitlines()
        )
        cpu, flags = fields.get("model name", cpu), set(fields.get("flags", "").split())
    units = [u for u in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if u in flags]
    gpu = f"{torch.cuda.get_device_name(device)}, " if device.type == "cuda" else ""
    return (
        f"{gpu}{cpu} ({', '.join(units) or 'no vector units known'}), "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"diffusers {diffusers.__version__}"
    )
