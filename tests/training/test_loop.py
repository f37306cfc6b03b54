"""The loop: schedules, averages, and runs that are killed."""

import itertools
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from commands import command
from peers import PLAN as SHORT
from peers import Denoise
from PIL import Image
from torch import nn

from suffuse.errors import SuffuseError
from suffuse.training import checkpoint
from suffuse.training.checkpoint import check_output, checkpoints
from suffuse.training.distributed import Average
from suffuse.training.loop import Plan, train


class Line:
    """A stage small enough to see through: fit y = 2x + 1."""

    def __init__(self, poison: int | None = None):
        torch.manual_seed(0)
        self.nets, self.poison = nn.ModuleDict({"line": nn.Linear(1, 1)}), poison

    def batch(self, step, size, seed, rows=None):
        x = torch.randn(size, 1, generator=torch.Generator().manual_seed(seed * 1000 + step))
        return x if step != self.poison else x * float("nan")

    def loss(self, batch, generator):
        noise = 0.1 * torch.randn(batch.shape, generator=generator)
        loss = (self.nets["line"](batch) - (2 * batch + 1 + noise)).square().mean()
        return loss, {}

    def sample(self, nets, path):
        level = int(min(255, 100 * abs(nets["line"].bias.item())))
        Image.new("L", (4, 4), level).save(path)

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
    net = nn.ModuleDict({"line": nn.Linear(1, 1, bias=False)})
    nn.init.zeros_(net["line"].weight)
    ema = Average(net)
    expected = 0.0
    for step, value in enumerate([1.0, 5.0, -2.0]):
        nn.init.constant_(net["line"].weight, value)
        ema.update(step, 0.25)
        keep = min(0.25, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * value
    assert ema.collect()["line"].weight.item() == pytest.approx(expected, rel=1e-6)


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
    assert _names(tmp_path) == ["0000040.pt", "0000060.pt"]
    assert (tmp_path / "model" / "line.pt").exists()
    assert seen[-1].step == 60 and not list(tmp_path.rglob("*.tmp*"))


def test_stopping_and_going_on_gives_the_same_bits(tmp_path):
    train(Line(), PLAN, tmp_path / "whole")

    class Stop(Exception):
        pass

    stage = Line()
    draw = stage.batch

    def stopping(step, size, seed, rows=None):
        if step == 33:
            raise Stop
        return draw(step, size, seed, rows)

    stage.batch = stopping
    with pytest.raises(Stop):
        train(stage, PLAN, tmp_path / "halves")
    train(Line(), PLAN, tmp_path / "halves", resume=True)
    assert _same(tmp_path / "whole", tmp_path / "halves")


def test_a_loss_that_is_not_finite_stops_before_it_harms(tmp_path):
    with pytest.raises(SuffuseError, match="loss is nan at step 25, and its batch is in"):
        train(Line(poison=25), PLAN, tmp_path)
    state = torch.load(checkpoints(tmp_path)[-1], weights_only=True)
    assert state["step"] == 25
    assert all(value.isfinite().all() for value in state["nets"].values())
    kept = torch.load(tmp_path / "not-finite-0000025-0.pt", weights_only=True)
    assert kept["step"] == 25 and kept["batch"][0].isnan().all()


def test_refusals(tmp_path):
    with pytest.raises(SuffuseError, match="nothing to resume"):
        check_output(tmp_path, resume=True)
    train(Line(), Plan(steps=2, batch=1), tmp_path)
    with pytest.raises(SuffuseError, match="already holds a run"):
        train(Line(), PLAN, tmp_path)
    with pytest.raises(SuffuseError, match="was begun with --seed 0 --batch 1: resume it with"):
        train(Line(), PLAN, tmp_path, resume=True)
    other = Line()
    other.nets["more"] = nn.Linear(1, 1)
    with pytest.raises(SuffuseError, match=r"of another preset or config.*more"):
        train(other, Plan(steps=2, batch=1), tmp_path, resume=True)
    with pytest.raises(SuffuseError, match="a batch of 8 cannot be shared by 1 processes in 3"):
        train(Line(), Plan(steps=2, batch=8, accumulate=3), tmp_path / "new")
    for field in ("steps", "batch", "keep", "accumulate"):
        with pytest.raises(SuffuseError, match=f"{field} must be at least 1, not 0"):
            Plan(**{"steps": 1, "batch": 1, field: 0})


def test_a_damaged_checkpoint_is_passed_over_and_said_so(tmp_path):
    train(Line(), PLAN, tmp_path / "whole")
    train(Line(), PLAN, tmp_path / "hurt")
    last = checkpoints(tmp_path / "hurt")[-1]
    last.write_bytes(last.read_bytes()[:-500])
    said = []
    train(Line(), PLAN, tmp_path / "hurt", resume=True, note=said.append)
    assert any("0000060.pt cannot be read" in line for line in said)
    assert _same(tmp_path / "whole", tmp_path / "hurt")
    assert (tmp_path / "hurt" / "checkpoints" / "0000060.pt.damaged").exists()
    for path in checkpoints(tmp_path / "hurt"):
        path.write_bytes(b"")
    with pytest.raises(SuffuseError, match=r"no checkpoint in .* can be read"):
        train(Line(), PLAN, tmp_path / "hurt", resume=True)


def test_the_last_and_the_best_are_kept(tmp_path):
    class Judged(Line):
        def score(self, nets):
            return self.scores.pop(0)

    stage = Judged()
    stage.scores = [5.0, 1.0, 4.0, 2.0, 3.0, 6.0]
    train(stage, replace(PLAN, save_every=10, keep=2), tmp_path)
    assert _names(tmp_path) == ["0000020.pt", "0000050.pt", "0000060.pt"]
    state = torch.load(checkpoints(tmp_path)[-1], weights_only=True)
    assert tuple(state["best"]) == (1.0, 20)


def test_a_stage_that_cannot_tell_is_judged_by_its_loss(tmp_path):
    class Judged(Line):
        mark = None

        def score(self, nets):
            return self.mark

    stage = Judged()
    train(stage, replace(PLAN, steps=40), tmp_path)
    state = torch.load(checkpoints(tmp_path)[-1], weights_only=True)
    assert state["by"] == "loss" and 0 < state["best"][0] < 1
    stage = Judged()
    stage.mark = 7.0  # worse than any loss, and of another kind
    train(stage, PLAN, tmp_path, resume=True)
    state = torch.load(checkpoints(tmp_path)[-1], weights_only=True)
    assert state["by"] == "score" and tuple(state["best"]) == (7.0, 60)


def test_a_run_of_an_older_version_goes_on(tmp_path):
    train(Line(), PLAN, tmp_path / "whole")
    train(Line(), replace(PLAN, save_every=40), tmp_path / "old")
    first, last = checkpoints(tmp_path / "old")
    state = torch.load(first, weights_only=True)
    state = {"optimizer": state.pop("optimizers")["nets"], **state}
    torch.save({k: state[k] for k in ("step", "asked", "nets", "ema", "optimizer")}, last)
    last.rename(tmp_path / "old" / checkpoint.OLD)
    first.unlink()
    train(Line(), PLAN, tmp_path / "old", resume=True)
    assert _same(tmp_path / "whole", tmp_path / "old")


def test_a_full_disk_costs_no_run(tmp_path):
    """The limit on the size of files stands in for the end of the disk: writes fail the same."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Filling(Line):
        def batch(self, step, size, seed, rows=None):
            if step == 30:
                resource.setrlimit(resource.RLIMIT_FSIZE, (600, before[1]))
            if step == 50 and not self.stays_full:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
            return super().batch(step, size, seed, rows)

    said, stage = [], Filling()
    try:
        stage.stays_full = False
        train(stage, PLAN, tmp_path / "freed", note=said.append)
        stage = Filling()
        stage.stays_full = True
        with pytest.raises(SuffuseError, match=r"cannot save step 60.*0000020.pt is whole"):
            train(stage, PLAN, tmp_path / "full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert any("cannot save step 40" in line and "going on" in line for line in said)
    assert _names(tmp_path / "freed") == ["0000020.pt", "0000060.pt"]
    assert _names(tmp_path / "full") == ["0000020.pt"]
    train(Line(), PLAN, tmp_path / "whole")
    train(Line(), PLAN, tmp_path / "full", resume=True)
    assert _same(tmp_path / "whole", tmp_path / "full")
    assert _same(tmp_path / "whole", tmp_path / "freed")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_step_under_way(number, tmp_path):
    class Called(Line):
        def batch(self, step, size, seed, rows=None):
            if step == 33:
                signal.raise_signal(number)
            return super().batch(step, size, seed, rows)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        said = []
        with pytest.raises(KeyboardInterrupt):
            train(Called(), PLAN, tmp_path / "halves", note=said.append)
        assert "stopping after this step" in said[-1]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert _names(tmp_path / "halves")[-1] == "0000034.pt"
    train(Line(), PLAN, tmp_path / "halves", resume=True)
    train(Line(), PLAN, tmp_path / "whole")
    assert _same(tmp_path / "whole", tmp_path / "halves")


class Tape:
    """A stream that can only be read in order."""

    def __init__(self):
        self.place = 0

    def read(self, size):
        self.place += size
        return torch.randn(size, 1, generator=torch.Generator().manual_seed(self.place))

    def position(self):
        return {"place": self.place}

    def seek(self, position):
        self.place = position["place"]


class Taped(Line):
    def __init__(self):
        super().__init__()
        self.stream = Tape()

    def batch(self, step, size, seed, rows=None):
        return self.stream.read(size)


def test_a_stream_goes_on_where_it_was(tmp_path):
    train(Taped(), PLAN, tmp_path / "whole")
    train(Taped(), replace(PLAN, steps=20), tmp_path / "halves")
    state = torch.load(checkpoints(tmp_path / "halves")[-1], weights_only=True)
    assert state["position"] == {"place": 20 * 8}
    again = Taped()
    train(again, PLAN, tmp_path / "halves", resume=True)
    assert again.stream.place == 60 * 8


@pytest.mark.slow
def test_batches_prepared_ahead_are_the_same(tmp_path):
    train(Line(), PLAN, tmp_path / "here")
    train(Line(), replace(PLAN, workers=2), tmp_path / "ahead")
    assert _same(tmp_path / "here", tmp_path / "ahead")


def test_half_precision_and_recomputed_activations(tmp_path):
    """bfloat16 products stay near float32 ones; activations made again are the same."""
    kept, again, half = (Denoise() for _ in range(3))
    plan = replace(SHORT, steps=4)
    train(kept, plan, tmp_path / "kept")
    train(again, replace(plan, recompute=True), tmp_path / "again")
    train(half, replace(plan, precision="bfloat16"), tmp_path / "half")
    weights = [stage.nets["net"][2].weight for stage in (kept, again, half)]
    assert torch.allclose(weights[0], weights[1], atol=1e-6)
    assert weights[2].dtype == torch.float32 and not torch.equal(weights[0], weights[2])
    assert torch.allclose(weights[0], weights[2], atol=0.02)


@pytest.mark.slow
def test_kill_and_resume_of_the_real_command(tmp_path):
    """kill -9 a real run, go on, and compare with one that was left alone."""
    toy = ("train", "autoencoder", "--preset", "toy", "-o")
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert command((*toy, whole), tmp_path, env).status == 0
    victim = subprocess.Popen([sys.executable, "-m", "suffuse", *toy, str(halves)], env=env)
    deadline = time.monotonic() + 240
    while not checkpoints(halves) and time.monotonic() < deadline:
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert torch.load(checkpoints(halves)[-1], weights_only=True)["step"] < 100
    assert command((*toy, halves, "--resume"), tmp_path, env).status == 0
    assert _same(whole, halves)
    assert (halves / "model" / "vae" / "config.json").exists()


def _names(output: Path) -> list[str]:
    return [path.name for path in checkpoints(output)]


def _same(a: Path, b: Path) -> bool:
    """Whether the last checkpoints of two runs hold the same bits."""
    one, other = (torch.load(checkpoints(path)[-1], weights_only=True) for path in (a, b))
    keys = ("nets", "ema")
    return one["step"] == other["step"] and all(
        torch.equal(one[k][name], other[k][name]) for k in keys for name in one[k]
    )
