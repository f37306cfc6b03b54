"""One denoising step of Stable Diffusion 1.5's size with guidance, beside diffusers.

    python benchmarks/step.py [--compile] [--dtype auto] [--size 512] [--rounds 5] [--small]

Both libraries compute with the same random weights on the same numbers, in turns, in one process;
the medians are compared. diffusers gets a batch of two, channels-last, and computes the text's keys
and values at every step, as its pipeline does. Suffuse is called as its guidance calls it: one
picture, two texts that were prepared before the first step. `--compile` compares the compiled
forms: diffusers' with fused projections, both with inductor's frozen weights on a CPU and with
CUDA graphs on a GPU.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from statistics import median

import torch
from sd15 import SMALL, machine, ours, theirs
from torch import Tensor

from suffuse.diffusion.cond import Cond
from suffuse.networks.families import SDConfig
from suffuse.networks.packing import pack
from suffuse.networks.unet import UNet
from suffuse.systems.latent import choose_device, choose_dtype

Step = Callable[[], Tensor]


class Inputs:
    """One picture and two texts, as a sampler and a text encoder leave them."""

    def __init__(self, config: SDConfig, side: int, dtype: torch.dtype, device: torch.device):
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(1, config.in_channels, side, side, generator=generator)
        tokens = torch.randn(2, 77, config.context, generator=generator)
        self.x, self.tokens = x.to(device), tokens.to(device, dtype)
        self.label = torch.tensor(500, device=device)
        self.both = torch.cat((self.x, self.x)).to(dtype, memory_format=torch.channels_last)


def our_step(net: UNet, given: Inputs, *, shared: bool = True) -> Step:
    """`shared=False` hands the picture in twice, as other libraries do."""
    context = net.prepare(Cond(tokens=given.tokens))
    x = given.x if shared else given.both
    return lambda: net(x, given.label, context)


def their_step(model: torch.nn.Module, given: Inputs) -> Step:
    return lambda: model(given.both, given.label, given.tokens, return_dict=False)[0]


def eager(net: UNet, config: SDConfig, given: Inputs) -> dict[str, Step]:
    packed = pack(net)
    return {
        "diffusers": their_step(theirs(net, config), given),
        "suffuse": our_step(packed, given),
        "suffuse, picture given twice": our_step(packed, given, shared=False),
        "suffuse, not packed": our_step(net, given),
    }


def compiled(net: UNet, config: SDConfig, given: Inputs) -> dict[str, Step]:
    import torch._inductor.config as inductor

    inductor.freezing = given.x.device.type == "cpu"
    mode = "default" if inductor.freezing else "reduce-overhead"
    model = theirs(net, config)
    model.fuse_qkv_projections()
    return {
        "diffusers": their_step(torch.compile(model, mode=mode), given),
        "suffuse": our_step(torch.compile(pack(net, layouts=False), mode=mode), given),
    }


def measure(steps: dict[str, Step], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each step, in turns, after one call that does not count."""

    def timed(step: Step) -> float:
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(rounds):
        # Forwards and backwards, so that none always follows the same other.
        for name in list(steps)[:: 1 if i % 2 == 0 else -1]:
            seconds[name].append(timed(steps[name]))
    return seconds


def compare(
    steps: dict[str, Step],
    rounds: int,
    device: torch.device,
    goal: float,
    peer: str = "diffusers",
) -> None:
    answers = {name: step().float().clone() for name, step in steps.items()}
    want = answers[peer]
    if device.type == "cuda":  # CUDA graphs record during the second call
        for step in steps.values():
            step()
    seconds = measure(steps, rounds, device)
    for name, times in seconds.items():
        ratio = median(times) / median(seconds[peer])
        apart = float((answers[name] - want).abs().max() / want.abs().max())
        print(
            f"  {name:30}{median(times):8.3f} s  ({min(times):.3f} to {max(times):.3f})"
            f"{ratio:8.2f} x{f'  (goal {goal})' if name == 'suffuse' else ''}"
            f"  apart by {apart:.0e}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="One denoising step with guidance.")
    parser.add_argument("--compile", action="store_true", help="the compiled forms too")
    parser.add_argument("--only-compile", action="store_true", help="the compiled forms alone")
    parser.add_argument("--dtype", default="auto", choices=["auto", "bfloat16", "float32"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--size", type=int, default=512, help="pixels along each side")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--small", action="store_true", help="a small network, to try this script")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, device)
    config = SMALL if options.small else SDConfig()
    print(machine(device))
    given = Inputs(config, options.size // 8, dtype, device)
    net = ours(config, dtype, device)
    millions = sum(p.numel() for p in net.parameters()) / 1e6
    print(f"{millions:.0f} M parameters, {options.size} x {options.size}, batch 2, {dtype}")
    with torch.inference_mode():
        if not options.only_compile:
            print("eager", flush=True)
            compare(eager(net, config, given), options.rounds, device, 0.85)
            gc.collect()
    with torch.no_grad():  # inductor freezes weights here and not in inference mode
        if options.compile or options.only_compile:
            print("compiled", flush=True)
            compare(compiled(net, config, given), options.rounds, device, 0.95)


if __name__ == "__main__":
    main()
