"""Training steps a second and peak memory of a U-Net, beside diffusers' UNet2DConditionModel.

    python benchmarks/train_step.py [--only emoji|sd] [--compile] [--turns 2] [--steps 3]

Two networks are looked at: that of the preset `emoji` on its 16 x 16 latents, and that of Stable
Diffusion 1.5's size on latents of 512 x 512 pixels. Both libraries start from the same random
weights and see the same numbers: a forward pass, the mean squared error, the backward pass,
clipping, and the same fused AdamW, in the same precision and channels-last. Every turn is a
process of its own, ours and theirs in alternation, so that peaks of memory do not mix.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from sd15 import SMALL, machine, ours, theirs
from torch import Tensor

from suffuse.diffusion.cond import Cond
from suffuse.networks.families import SDConfig
from suffuse.networks.gradients import for_training
from suffuse.networks.unet import UNet
from suffuse.systems.latent import choose_device, choose_dtype
from suffuse.training.presets import LATENTS

GOAL = 1.15
Step = Callable[[], float]
# configuration, latents' side, tokens, images in a batch
CASES: dict[str, tuple[SDConfig, int, int, int]] = {
    "emoji": (LATENTS["emoji"].unet, 16, 32, 16),
    "sd": (SDConfig(), 64, 77, 1),
    "small": (SMALL, 16, 77, 2),
}


def step_of(library: str, case: str, options: argparse.Namespace) -> Step:
    """One whole step; it returns the loss."""
    config, side, tokens, batch = CASES[case]
    batch = options.batch or batch
    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, device)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, config.in_channels, side, side, generator=generator).to(device, dtype)
    text = torch.randn(batch, tokens, config.context, generator=generator).to(device, dtype)
    label = torch.randint(1000, (batch,), generator=generator).to(device)
    x = x.to(memory_format=torch.channels_last)
    net: torch.nn.Module = ours(config, dtype, device)
    if library == "diffusers":
        net = theirs(net, config)  # type: ignore[arg-type]
    called = torch.compile(net, dynamic=False) if options.compile else net

    def answer() -> Tensor:
        if library == "diffusers":
            return called(x, label, text, return_dict=False)[0]
        return called(x, label, net.prepare(Cond(tokens=text)))  # type: ignore[operator]

    return descending(net, answer, x)


def descending(net: torch.nn.Module, answer: Callable[[], Tensor], x: Tensor) -> Step:
    """A whole training step of `net`, whose `answer` is to be like `x`; it returns the loss."""
    net.train().requires_grad_(True)
    if isinstance(net, UNet):
        for_training(net)  # as the training loop does
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-5, fused=True)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = (answer().float() - x.float()).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step


def work(step: Step, steps: int) -> None:
    """What one process does: seconds of each step after two that do not count, and its peak."""
    losses = [step(), step()]
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        losses.append(step())  # reading the loss waits for the GPU
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
    print(json.dumps([seconds, peak, losses]))


def compare(command: list[str], peer: str, turns: int, batch: int, goal: float) -> None:
    """Runs `command` with `--work LIBRARY`, for Suffuse and the peer in alternation."""
    libraries = ("suffuse", peer)
    seconds: dict[str, list[float]] = {name: [] for name in libraries}
    peaks: dict[str, float] = {}
    losses: dict[str, list[float]] = {}
    for turn in range(turns):
        for name in libraries[:: 1 if turn % 2 else -1]:
            run = subprocess.run([*command, "--work", name], capture_output=True, text=True)
            if run.returncode:
                sys.exit(run.stderr)
            taken, peaks[name], losses[name] = json.loads(run.stdout.splitlines()[-1])
            seconds[name] += taken
    for name, times in seconds.items():
        faster = median(seconds[peer]) / median(times)
        print(
            f"  {name:18}{batch / median(times):8.2f} images/s  ({min(times):.3f} to "
            f"{max(times):.3f} s a step){faster:7.2f} x"
            f"{f'  (goal {goal:.2f})' if name == 'suffuse' else ''}"
            f"  peak {peaks[name] / 1e9:.2f} GB",
            flush=True,
        )
    apart = max(abs(a / b - 1) for a, b in zip(losses["suffuse"], losses[peer]))
    print(f"  losses apart by {apart:.0e} of themselves", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Training steps beside diffusers.")
    parser.add_argument("--only", choices=list(CASES), help="one network alone")
    parser.add_argument("--compile", action="store_true", help="both compiled by inductor")
    parser.add_argument("--dtype", default="auto", choices=["auto", "bfloat16", "float32"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch", type=int, help="images a step")
    parser.add_argument("--steps", type=int, default=3, help="that count, in each turn")
    parser.add_argument("--turns", type=int, default=2, help="processes of each library")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(step_of(options.work, options.only, options), options.steps)
        return
    device = choose_device(options.device)
    print(f"{machine(device)}, {choose_dtype(options.dtype, device)}")
    for case in [options.only] if options.only else ["emoji", "sd"]:
        print(case, flush=True)
        command = [sys.executable, __file__, *sys.argv[1:], "--only", case]
        compare(command, "diffusers", options.turns, options.batch or CASES[case][3], GOAL)


if __name__ == "__main__":
    main()
