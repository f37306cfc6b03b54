"""Opening a checkpoint costs its weights once, whatever precision they are stored in."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

SIZE = 128 * 2**20  # bytes of weights in float32: far above what the process does besides

PROBE = """
import json, sys, torch
from torch import nn
from suffuse.weights.containers import open_tensors
from suffuse.weights.mapping import KeyMap, Row
from suffuse.weights.parts import Place, build

def status(line):
    text = open("/proc/self/status").read()
    return int(text.split(line + ":")[1].split()[0]) * 1024

def make():
    return nn.Sequential(*(nn.Linear(1024, 1024) for _ in range(int(sys.argv[3]))))

keys = KeyMap((Row("{i}.*", "layers.{i}.*"),))
build(lambda: nn.Linear(1, 1), KeyMap((Row("weight", "w"), Row("bias", "b"))),
      open_tensors(sys.argv[4]), Place("cpu", torch.bfloat16)).weight.sum()  # warm up
file = open_tensors(sys.argv[1])
open("/proc/self/clear_refs", "w").write("5")  # forget the peak of importing torch
before = status("VmRSS")
module = build(make, keys, file, Place("cpu", getattr(torch, sys.argv[2])))
total = sum(float(p.sum()) for p in module.parameters())
peak = status("VmHWM")
print(json.dumps([before, peak, sum(p.nbytes for p in module.parameters())]))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux' /proc")
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_peak(tmp_path: Path, dtype: str) -> None:
    layers = SIZE // (1024 * 1024 * 4)
    weights = {}
    for i in range(layers):
        layer = nn.Linear(1024, 1024).half()
        weights |= {f"layers.{i}.{name}": p.detach() for name, p in layer.named_parameters()}
    save_file(weights, tmp_path / "model.safetensors")
    save_file({"w": torch.ones(1, 1), "b": torch.ones(1)}, tmp_path / "warm.safetensors")
    files = [str(tmp_path / "model.safetensors"), dtype, str(layers)]
    run = subprocess.run(
        [sys.executable, "-c", PROBE, *files, str(tmp_path / "warm.safetensors")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    before, peak, size = json.loads(run.stdout)
    assert peak - before < 1.3 * size
