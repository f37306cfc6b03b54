"""The loop: schedules, averages, and runs that are killed."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from suffuse.errors import SuffuseError
from suffuse.training.loop import CHECKPOINT, Plan, check_output, ema_update, train


class Line:
    """A stage small enough to see through: fit y = 2x + 1."""

    def __init__(self, poison: int | None = None):
        torch.manual_seed(0)
        self.nets, self.poison = nn.ModuleDict({"line": nn.Linear(1, 1)}), poison

    def batch(self, step, size, seed):
        x = torch.randn(size, 1, generator=torch.Generator().manual_seed(seed * 1000 + step))
        return x if step != self.poison else x * float("nan")

    def loss(self, batch, generator):
        noise = 0.1 * torch.randn(batch.shape, generator=generator)
        loss = (self.nets["line"](batch) - (2 * batch + 1 + noise)).square().mean()
        return loss, {}

    def sample(self, nets, path):
        path.write_text(str(nets["line"].bias.item()))

    def export(self, nets, folder):
        folder.mkdir(exist_ok=True)
        torch.save(nets.state_dict(), folder / "line.pt")


PLAN = Plan(steps=60, batch=8, lr=0.1, warmup=5, save_every=20, sample_every=30)


def test_rate_rises_stays_and_falls():
    plan = Plan(steps=100, batch=1, lr=1.0, warmup=10, cooldown=0.2)
    rates = [plan.rate(i) for i in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9:80] == [1.0] * 71
    assert rates[-1] == pytest.approx(1 / 20)
    assert all(a >= b for a, b in itertools.pairwise(rates[80:]))


def test_ema_is_the_weighted_sum_of_what_it_saw():
    net, ema = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.zeros_(ema.weight)
    expected = 0.0
    for step, value in enumerate([1.0, 5.0, -2.0]):
        nn.init.constant_(net.weight, value)
        ema_update(ema, net, step, 0.25)
        keep = min(0.25, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * value
    assert ema.weight.item() == pytest.approx(expected, rel=1e-6)


def test_it_learns_and_leaves_what_it_promises(tmp_path):
    stage, seen = Line(), []
    train(stage, PLAN, tmp_path, report=seen.append)
    line = stage.nets["line"]
    assert line.weight.item() == pytest.approx(2, abs=0.2)
    assert line.bias.item() == pytest.approx(1, abs=0.2)
    assert sorted(p.name for p in (tmp_path / "samples").iterdir()) == [
        "0000030.png",
        "0000060.png",
    ]
    assert (tmp_path / CHECKPOINT).exists() and (tmp_path / "model" / "line.pt").exists()
    assert seen[-1].step == 60 and not list(tmp_path.glob("*.tmp"))


def test_stopping_and_going_on_gives_the_same_bits(tmp_path):
    train(Line(), PLAN, tmp_path / "whole")

    class Stop(Exception):
        pass

    stage = Line()
    draw = stage.batch

    def stopping(step, size, seed):
        if step == 33:
            raise Stop
        return draw(step, size, seed)

    stage.batch = stopping
    with pytest.raises(Stop):
        train(stage, PLAN, tmp_path / "halves")
    train(Line(), PLAN, tmp_path / "halves", resume=True)
    assert _same(tmp_path / "whole" / CHECKPOINT, tmp_path / "halves" / CHECKPOINT)


def test_a_loss_that_is_not_finite_stops_before_it_harms(tmp_path):
    with pytest.raises(SuffuseError, match="loss is nan at step 25"):
        train(Line(poison=25), PLAN, tmp_path)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert state["step"] == 25
    assert all(value.isfinite().all() for value in state["nets"].values())


def test_refusals(tmp_path):
    with pytest.raises(SuffuseError, match="nothing to resume"):
        check_output(tmp_path, resume=True)
    train(Line(), Plan(steps=2, batch=1), tmp_path)
    with pytest.raises(SuffuseError, match="already holds a run"):
        train(Line(), PLAN, tmp_path)
    with pytest.raises(SuffuseError, match="was begun with --seed 0 --batch 1: resume it with"):
        train(Line(), PLAN, tmp_path, resume=True)
    (tmp_path / CHECKPOINT).write_bytes(b"not a checkpoint")
    with pytest.raises(SuffuseError, match="damaged or of another preset"):
        train(Line(), PLAN, tmp_path, resume=True)


@pytest.mark.slow
def test_kill_and_resume_of_the_real_command(tmp_path):
    """kill -9 a real run, go on, and compare with one that was left alone."""
    command = [sys.executable, "-m", "suffuse", "train", "autoencoder", "--preset", "toy"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    subprocess.run([*command, "-o", str(whole)], check=True, env=env)
    victim = subprocess.Popen([*command, "-o", str(halves)], env=env)
    deadline = time.monotonic() + 240
    while not (halves / CHECKPOINT).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert torch.load(halves / CHECKPOINT, weights_only=True)["step"] < 100
    subprocess.run([*command, "-o", str(halves), "--resume"], check=True, env=env)
    assert _same(whole / CHECKPOINT, halves / CHECKPOINT)
    assert (halves / "model" / "vae" / "config.json").exists()


def _same(a: Path, b: Path) -> bool:
    one, other = (torch.load(path, weights_only=True) for path in (a, b))
    keys = ("nets", "ema")
    return one["step"] == other["step"] and all(
        torch.equal(one[k][name], other[k][name]) for k in keys for name in one[k]
    )
