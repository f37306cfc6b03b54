"""Two processes with half a batch each do what one does with the whole."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, distributed, multiprocessing

from suffuse.networks.discriminator import adaptive_weight
from suffuse.networks.parallel import averaged, gathered
from suffuse.networks.quantizer import CodeKeeper, VectorQuantizer


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def work(rows: slice) -> dict[str, Tensor]:
    """What depends on the batch: codes after some steps, and the adaptive weight."""
    torch.manual_seed(0)
    net = VectorQuantizer(9, 2)
    keeper = CodeKeeper(net, average=True, decay=0.7, dead=0.2)
    g = torch.Generator().manual_seed(3)
    for step in range(8):
        z = normal(4, 2, 3, 3, seed=step)[rows]
        keeper.update(net, z, net(z).indices, g)
    last, x = torch.ones(3, requires_grad=True), normal(4, 3)[rows]
    nll, adversarial = (x * last).square().mean(), (x[:, :1] * last).mean()
    weight = adaptive_weight(nll, adversarial, last)
    return {"codes": net.codes.detach(), "usage": keeper.usage, "weight": weight}


def one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    where = f"file://{folder}/meeting"
    distributed.init_process_group("gloo", init_method=where, rank=rank, world_size=2)
    found = work(slice(2 * rank, 2 * rank + 2))
    found["ranks"] = gathered(torch.full((2,), float(rank)))
    found["mean"] = averaged(torch.tensor(float(rank)))
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_are_one(tmp_path: Path) -> None:
    multiprocessing.spawn(one_of_two, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    alone = work(slice(None))
    for name, want in alone.items():
        assert torch.allclose(first[name], want, atol=1e-5), name
        assert torch.equal(first[name], second[name]), name
    assert first["ranks"].tolist() == [0, 0, 1, 1] and first["mean"] == 0.5


def test_alone_nothing_happens() -> None:
    x = normal(3)
    assert gathered(x) is x and averaged(x) is x
