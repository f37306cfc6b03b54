"""Looking into a network while it works: hooks that stand only inside a `with`.

Nothing of this is in the networks' own code, so that it costs nothing where nobody looks, and what
a network answers is the same to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from suffuse.networks.attention import CrossAttention, KeyValue, split_heads


@contextmanager
def watch_attention(net: nn.Module, see: Callable[[Tensor], None]) -> Iterator[None]:
    """Calls `see` with what each `CrossAttention` of `net` attends to, whenever it is run.

    That is (P, L) float32, the share of each of L tokens in each of P places: of the batch's last
    row, which under guidance is the one with the prompt, averaged over the heads.
    """

    def hook(module: nn.Module, given: tuple[Any, ...], found: Tensor) -> None:
        assert isinstance(module, CrossAttention)
        see(attention(module, *given).mean(0))

    layers = [part for part in net.modules() if isinstance(part, CrossAttention)]
    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_hook(hook).remove)
        yield


def attention(layer: CrossAttention, x: Tensor, kv: KeyValue, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)) of the batch's last row, (heads, P, L) float32 (1706.03762, eq. 1).

    The layer itself never holds these numbers: it asks for the product with the values at once.
    """
    q = split_heads(layer.q(x[-1:]), layer.heads)[0].float()  # (heads, P, d)
    k = kv[0][-1].float()  # (heads, L, d)
    scores = q @ k.transpose(1, 2) * q.shape[-1] ** -0.5  # (heads, P, L)
    if mask is not None:
        scores = scores.masked_fill(~mask[-1], float("-inf"))
    return torch.softmax(scores, dim=-1)


@contextmanager
def watch_output(net: nn.Module, see: Callable[[Tensor, Tensor], None]) -> Iterator[None]:
    """Calls `see` with the pictures that `net` is given and its answer, whenever it is run."""
    handle = net.register_forward_hook(lambda _, given, found: see(given[0], found))
    try:
        yield
    finally:
        handle.remove()
