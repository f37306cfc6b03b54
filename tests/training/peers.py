"""A run that one process or several can make: `torchrun peers.py OUTPUT` compares them.

Not a test itself: test_distributed.py starts it.
"""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn

from suffuse.networks.blocks import ResBlock
from suffuse.training.distributed import Team
from suffuse.training.draw import normal, uniform
from suffuse.training.loop import Plan, train

PLAN = Plan(
    steps=8,
    batch=8,
    lr=1e-2,
    warmup=2,
    cooldown=0.5,
    clip=0.5,
    save_every=4,
    sample_every=8,
    log_every=1,
)


class Denoise:
    """Noisy squares to clean ones, and a critic that joins after three steps."""

    def __init__(self):
        torch.manual_seed(3)
        net = nn.Sequential(ResBlock(8, 8, groups=4), ResBlock(8, 8, groups=4))
        net.append(nn.Conv2d(8, 8, 3, padding=1))
        critic = nn.Sequential(nn.Conv2d(8, 4, 3), nn.SiLU(), nn.Conv2d(4, 1, 2))
        spare = nn.Linear(2, 2)  # in the network, and in no loss
        self.nets = nn.ModuleDict({"net": net, "critic": critic, "spare": spare})

    def groups(self):
        first = [*self.nets["net"].parameters(), *self.nets["spare"].parameters()]
        return {"net": first, "critic": list(self.nets["critic"].parameters())}

    def batch(self, step, size, seed, rows=None):
        generator = torch.Generator().manual_seed(1000 * seed + step)
        images = torch.randn(size, 8, 4, 4, generator=generator)
        return (images if rows is None else images[rows]), step

    def loss(self, batch, generator, group):
        x, step = batch
        level = uniform((len(x), 1, 1, 1), generator)
        again = self.nets["net"](x + level * normal(x.shape, generator))
        if group == "net":
            loss = (again - x).square().mean()
            if step >= 3:
                loss = loss - 0.1 * self.nets["critic"](again).tanh().mean()
            return loss, {"size": again.abs().mean().item()}
        if step < 3:
            return torch.zeros(()), {}
        real, fake = self.nets["critic"](x), self.nets["critic"](again.detach())
        return (1 - real).relu().mean() + (1 + fake).relu().mean(), {}

    def sample(self, nets, path):
        pass

    def export(self, nets, folder):
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(nets.state_dict(), folder / "nets.pt")


class Called(Denoise):
    """One of the processes is asked to stop in the fourth step; all of them have to."""

    def batch(self, step, size, seed, rows=None):
        if step == 3 and os.environ["RANK"] == "1":
            signal.raise_signal(signal.SIGTERM)
        return super().batch(step, size, seed, rows)


if __name__ == "__main__":
    output = Path(sys.argv[1])
    torch.set_num_threads(1)
    train(Denoise(), PLAN, output / "replicated")
    with Team().first():  # a lesson that a stage is given while it is made
        begun = (output / "alone").exists()
        train(Denoise(), PLAN, output / "alone", resume=begun, team=Team(alone=True))
    with suppress(KeyboardInterrupt):
        train(Called(), PLAN, output / "resumed")
    os.environ["ACCELERATE_USE_FSDP"] = "true"
    train(Denoise(), PLAN, output / "sharded")
    train(Denoise(), PLAN, output / "resumed", resume=True)
