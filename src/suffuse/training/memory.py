"""Where tensors live, and how few of them are kept for the backward pass."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from suffuse.networks.attention import FusedAttention, PixelAttention, TransformerBlock
from suffuse.networks.blocks import ResBlock
from suffuse.networks.transformer import Block

BLOCKS = (ResBlock, TransformerBlock, PixelAttention, FusedAttention, Block)


def recompute(nets: nn.Module) -> None:
    """Lets every block keep its input alone and compute the rest again (1604.06174)."""
    for module in nets.modules():
        if isinstance(module, BLOCKS):
            module.forward = partial(checkpoint, module.forward, use_reentrant=False)  # type: ignore[method-assign]


def to_device(value: Any, device: torch.device) -> Any:
    """The tensors of a batch, which may be nested in tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # a NamedTuple
        return type(value)(*(to_device(item, device) for item in value))
    if isinstance(value, (tuple, list)):
        return type(value)(to_device(item, device) for item in value)
    return value
