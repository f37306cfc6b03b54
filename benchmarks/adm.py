"""One sampling step and one training step of ADM's 64 x 64 U-Net, beside guided-diffusion's own.

    git clone https://github.com/openai/guided-diffusion
    python benchmarks/adm.py guided-diffusion [--only sample|train] [--batch 4] [--rounds 5]

The public repository is only imported from the path that is given. Both have the same random
weights and see the same numbers in the same precision: 296 M parameters, class-conditional, with
learned variance. Theirs runs as its scripts run it, and once more channels-last, which they did not
have in 2021. The training step is that of `train_step.py`, each turn in a process of its own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from sd15 import fill, machine
from step import compare as sampled
from torch.nn.functional import one_hot
from train_step import Step, compare, descending, work

from suffuse.diffusion.cond import Cond
from suffuse.networks.blocks import channels_last
from suffuse.networks.packing import pack
from suffuse.networks.pixel import adm
from suffuse.networks.unet import UNet
from suffuse.systems.latent import choose_device
from suffuse.weights.adm_presets import PUBLISHED
from suffuse.weights.mapping import export
from suffuse.weights.maps.adm import adm_unet

GOAL = 0.9  # of their time
PEER = "guided-diffusion"
ROW = PUBLISHED[0]  # 64x64_diffusion.pt


def ours(device: torch.device) -> UNet:
    with torch.device("meta"):
        net = adm(ROW.config)
    net = fill(net.to_empty(device=device), device)
    channels_last(net)
    return net


def theirs(net: UNet, repository: Path) -> Any:
    """Their U-Net with our weights, made by their script's own function."""
    sys.path.insert(0, str(repository))
    from guided_diffusion.script_util import create_model  # type: ignore[import-not-found]

    model = create_model(
        64,
        ROW.config.width,
        ROW.config.blocks,
        learn_sigma=True,
        class_cond=True,
        attention_resolutions="32,16,8",
        num_head_channels=64,
        use_scale_shift_norm=True,
        resblock_updown=True,
        use_new_attention_order=ROW.new_order,
    )
    weights = export(net, adm_unet(ROW.config, ROW.new_order), torch.float32)
    model.load_state_dict({k: w.contiguous() for k, w in weights.items()})
    return model.to(net.stem.weight.device).eval().requires_grad_(False)


class Inputs:
    """Noisy pictures, their steps and their classes."""

    def __init__(self, batch: int, device: torch.device):
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(batch, 3, 64, 64, generator=generator).to(device)
        self.t = torch.randint(1000, (batch,), generator=generator).to(device)
        self.y = torch.randint(1000, (batch,), generator=generator).to(device)

    @property
    def cond(self) -> Cond:
        return Cond(vector=one_hot(self.y, ROW.config.classes).to(self.x))


def sample(options: argparse.Namespace, device: torch.device) -> None:
    """The network's answer for a batch at one step, as the samplers ask for it."""
    net, given = ours(device), Inputs(options.batch, device)
    model, other = theirs(net, options.repository), theirs(net, options.repository)
    channels_last(other)
    packed, label = pack(net), torch.tensor(500, device=device)
    context = packed.prepare(given.cond)
    steps = label.expand(options.batch)
    last = given.x.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        sampled(
            {
                PEER: lambda: model(given.x, steps, given.y),
                f"{PEER}, channels-last": lambda: other(last, steps, given.y),
                "suffuse": lambda: packed(given.x, label, context),
            },
            options.rounds,
            device,
            GOAL,
            PEER,
        )


def training(library: str, options: argparse.Namespace, device: torch.device) -> Step:
    given = Inputs(options.batch, device)
    wanted = given.x.repeat(1, 2, 1, 1)  # an answer has twice the channels
    if library == "suffuse":
        net, last = ours(device), given.x.contiguous(memory_format=torch.channels_last)
        return descending(net, lambda: net(last, given.t, net.prepare(given.cond)), wanted)
    model = theirs(ours(device), options.repository)
    if library != PEER:
        channels_last(model)
    return descending(model, lambda: model(given.x, given.t, given.y), wanted)


def main() -> None:
    parser = argparse.ArgumentParser(description="ADM's 64 x 64 U-Net beside guided-diffusion's.")
    parser.add_argument("repository", type=Path, help="a checkout of openai/guided-diffusion")
    parser.add_argument("--only", choices=["sample", "train"], help="one comparison alone")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=5, help="sampling steps of each")
    parser.add_argument("--turns", type=int, default=1, help="training processes of each")
    parser.add_argument("--steps", type=int, default=4, help="training steps of each process")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = choose_device(options.device)
    if options.work:
        work(training(options.work, options, device), options.steps)
        return
    print(f"{machine(device)}, float32, batch {options.batch}")
    if options.only != "train":
        print("one sampling step", flush=True)
        sample(options, device)
    if options.only != "sample":
        command = [sys.executable, __file__, *sys.argv[1:]]
        for peer in (PEER, f"{PEER}, channels-last"):
            print("one training step", flush=True)
            compare(command, peer, options.turns, options.batch, 1 / GOAL)


if __name__ == "__main__":
    main()
