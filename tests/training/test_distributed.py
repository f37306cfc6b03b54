"""Two processes with half the batch each are one with the whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peers import PLAN, Denoise
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from suffuse.training.checkpoint import checkpoints
from suffuse.training.loop import train

ENV = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


def _curve(output, name="loss"):
    events = EventAccumulator(str(output / "tensorboard"))
    events.Reload()
    return [event.value for event in events.Scalars(name)]


def _last(output):
    return torch.load(checkpoints(output)[-1], weights_only=True)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    output = tmp_path_factory.mktemp("one")
    train(Denoise(), PLAN, output)
    return output


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two real processes, talking over gloo: with whole networks, with shards, and a run that was
    stopped while it had the one and went on with the other."""
    output = tmp_path_factory.mktemp("two")
    script = Path(__file__).with_name("peers.py")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *launch, str(script), str(output)],
        env=ENV,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return output


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["replicated", "sharded"])
def test_two_processes_give_the_curve_of_one(kind, one, two):
    for name in ("loss", "norm", "size"):
        assert _curve(two / kind, name) == pytest.approx(_curve(one, name), rel=2e-4)
    critic = _curve(one, "critic loss")
    assert critic[:3] == [0, 0, 0] and critic[3] > 0
    assert _curve(two / kind, "critic loss") == pytest.approx(critic, rel=2e-4)


@pytest.mark.slow
def test_one_of_them_trains_before_the_others(one, two):
    ours, theirs = _last(one), _last(two / "alone")
    for name, value in ours["nets"].items():
        assert torch.allclose(value, theirs["nets"][name], atol=1e-5), name


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["replicated", "sharded", "resumed"])
def test_checkpoints_do_not_tell_how_many_wrote_them(kind, one, two, tmp_path):
    ours, theirs = _last(one), _last(two / kind)
    assert theirs["step"] == 8
    for part in ("nets", "ema"):
        for name, value in ours[part].items():
            assert torch.allclose(value, theirs[part][name], atol=2e-4), name
    for group, optimizer in ours["optimizers"].items():
        for index, entry in optimizer["state"].items():
            again = theirs["optimizers"][group]["state"][index]["exp_avg"]
            assert torch.allclose(entry["exp_avg"], again, atol=2e-4)
    assert (two / kind / "model" / "nets.pt").exists()
    assert [path.name for path in checkpoints(two / kind)] == ["0000004.pt", "0000008.pt"]


def test_one_process_takes_parts_of_a_batch(one, tmp_path):
    """Gradient accumulation: four parts of two images are a batch of eight."""
    from dataclasses import replace

    train(Denoise(), replace(PLAN, accumulate=4), tmp_path)
    assert _curve(tmp_path) == pytest.approx(_curve(one), rel=2e-4)
