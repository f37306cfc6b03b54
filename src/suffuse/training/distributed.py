"""The processes of a run: one, or several under `accelerate launch` or `torchrun`.

One process, DDP and FSDP differ in this file alone. Weights, averages and optimizers leave it
whole and on the CPU, so a checkpoint does not depend on how many processes wrote it.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from suffuse.errors import SuffuseError
from suffuse.networks.attention import GatedFeedForward, SelfAttention
from suffuse.networks.blocks import ResBlock
from suffuse.networks.transformer import Block

# What FSDP gathers at a time, the rest of the network being one more unit. Each is entered by its
# forward pass alone: FSDP gathers nothing for other methods.
UNITS = (ResBlock, SelfAttention, GatedFeedForward, Block)


class Team:
    """This process among its peers: `rank` of `size`, on `device`.

    alone: as if there were no others, for what one process does before them (see `first`)
    """

    def __init__(self, alone: bool = False) -> None:
        from accelerate import Accelerator
        from accelerate.utils import (
            DistributedDataParallelKwargs,
            InitProcessGroupKwargs,
            parse_flag_from_env,
        )

        # While the main process prepares data or draws samples, the others wait.
        patience = InitProcessGroupKwargs(timeout=timedelta(hours=12))
        # A frozen tower's last layer, or the networks of the other optimizer, have no gradient.
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)
        self.accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),
            mixed_precision="no",  # autocast is the plan's
            kwargs_handlers=[patience, unused],
        )
        self.rank, self.size = self.accelerator.process_index, self.accelerator.num_processes
        if alone:
            self.rank, self.size = 0, 1
        self.main, self.device = self.rank == 0, self.accelerator.device
        # `accelerate launch --use_fsdp`. Sharding itself is torch's: accelerate's takes one network
        # and one optimizer, on GPUs only.
        self.sharded = self.size > 1 and bool(parse_flag_from_env("ACCELERATE_USE_FSDP"))

    def first(self) -> AbstractContextManager[None]:
        """The main process goes through the block before the others."""
        return self.accelerator.main_process_first()

    def wait(self) -> None:
        if self.size > 1:
            self.accelerator.wait_for_everyone()

    def wrap(self, objective: nn.Module) -> nn.Module:
        """Moves `objective` to the device; calls of the result add the gradients up."""
        if self.size == 1:
            return objective.to(self.device)
        if not self.sharded:
            return self.accelerator.prepare_model(objective)
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        objective.to(self.device)
        for weight in objective.parameters():  # it takes no channels-last layout
            if not weight.ndim:
                raise SuffuseError(
                    "a network with a single number for a weight, as CLIP's temperature is, cannot "
                    "be sharded: leave ACCELERATE_USE_FSDP out"
                )
            weight.data = weight.data.contiguous()
        mesh = init_device_mesh(self.device.type, (self.size,))
        for module in list(objective.modules()):
            if isinstance(module, UNITS):
                fully_shard(module, mesh=mesh)
        fully_shard(objective, mesh=mesh)
        return objective

    def unsynced(self, model: nn.Module) -> AbstractContextManager[Any]:
        """In this block gradients are added up here and not yet among the processes."""
        apart = self.size > 1 and not self.sharded
        return self.accelerator.no_sync(model) if apart else nullcontext()

    def settle(self, model: nn.Module) -> None:
        """Puts gathered weights back into shards, as only a backward pass does by itself."""
        if self.sharded:
            from torch.distributed.fsdp import FSDPModule

            for module in model.modules():
                if isinstance(module, FSDPModule):
                    module.reshard()

    def clip(self, weights: Iterable[nn.Parameter], largest: float) -> float:
        """Scales the gradients to a norm of at most `largest`; returns what it was."""
        norm = nn.utils.clip_grad_norm_(weights, largest)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def mean(self, values: list[float]) -> list[float]:
        """Of every process, the same on each."""
        if self.size == 1:
            return values
        sums = torch.tensor(values, device=self.device)
        torch.distributed.all_reduce(sums)
        return (sums / self.size).tolist()


def whole(value: Any) -> Any:
    """A state dict with its tensors whole and on the CPU. Every process must take part."""
    if isinstance(value, DTensor):
        return value.full_tensor().cpu()
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    return value


def like(value: Tensor, weight: Tensor) -> Tensor:
    """A whole tensor, sharded as `weight` is, if it is."""
    if not isinstance(weight, DTensor) or value.shape != weight.shape:
        return value
    value = value.to(weight.device).contiguous()
    return distribute_tensor(value, weight.device_mesh, weight.placements, src_data_rank=None)


def local(tensor: Tensor) -> Tensor:
    """This process's part of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class Average:
    """The moving average of the weights (EMA): `nets`, a copy that can draw and be saved."""

    def __init__(self, nets: nn.ModuleDict):
        self.nets = deepcopy(nets).requires_grad_(False)
        self.live: nn.Module = nets
        self.shards: list[Tensor] | None = None
        self.kept = True

    def follow(self, live: nn.Module, team: Team) -> None:
        """From now on the average of `live`, which `team` has placed."""
        self.live, self.kept = live, team.main or team.sharded
        self.nets.to(team.device if team.main else "cpu")
        if team.sharded:
            pairs = zip(self.nets.parameters(), live.parameters(), strict=True)
            self.shards = [local(like(mean, weight)).clone() for mean, weight in pairs]

    @torch.no_grad()
    def update(self, step: int, decay: float) -> None:
        """Moves towards the weights; early steps move it more, so it never remembers the start."""
        if not self.kept:
            return
        keep = min(decay, (1 + step) / (10 + step))
        mine: list[Tensor] = list(self.nets.parameters())
        if self.shards is not None:
            mine = self.shards
        torch._foreach_lerp_(mine, [local(weight) for weight in self.live.parameters()], 1 - keep)
        for kept, now in zip(self.nets.buffers(), self.live.buffers(), strict=True):
            kept.copy_(now)

    @torch.no_grad()
    def collect(self) -> nn.ModuleDict:
        """`nets`, up to date. Every process must take part."""
        if self.shards is not None:
            pairs = zip(self.nets.parameters(), self.shards, self.live.parameters(), strict=True)
            for mean, shard, weight in pairs:
                assert isinstance(weight, DTensor)
                again = DTensor.from_local(
                    shard,
                    weight.device_mesh,
                    weight.placements,
                    shape=weight.shape,
                    stride=weight.stride(),
                )
                mean.copy_(again.full_tensor())
        return self.nets
