"""What a network needs from the other processes of a training run; alone, nothing happens."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist


def processes() -> int:
    """How many train together: 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@torch.no_grad()
def gathered(rows: Tensor) -> Tensor:
    """The rows (n, ...) of every process, in the order of their ranks: (processes * n, ...)."""
    count = processes()
    if count == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(count)]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


@torch.no_grad()
def averaged(x: Tensor) -> Tensor:
    """The mean of `x` over all processes."""
    count = processes()
    if count == 1:
        return x
    total = x.clone()
    dist.all_reduce(total)
    return total / count
