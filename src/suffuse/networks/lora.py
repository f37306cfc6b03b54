"""LoRA: a change of low rank beside a layer that stands still (2106.09685, eq. 3).

    y = W x + scale · alpha / rank · B A x

`A` (down) leads to `rank` numbers, `B` (up) back; `B` starts at zero, so an adapter that has
learned nothing changes nothing. For a convolution A has the layer's kernel and B is 1 x 1. While it
is trained an adapter is attached to its network; for use it is merged into the weights and costs
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from suffuse.errors import SuffuseError

Layer = nn.Linear | nn.Conv2d

# Names of layers in the U-Net and the text tower, with * for anything. The first is what the paper
# found to matter most; the last adds what lies between, convolutions included.
ATTENTION = ("*attn.q", "*attn.k", "*attn.v", "*attn.out")
TRANSFORMERS = (*ATTENTION, "*.ff.fc?", "*.mlp.fc?", "*.proj_in", "*.proj_out")
BLOCKS = (*TRANSFORMERS, "*.res.*", "*.resample.conv")


@dataclass(frozen=True)
class LoraConfig:
    """The shape of an adapter.

    alpha: the change is scaled by alpha / rank; None for rank, which leaves it as it is
    targets: patterns of the names of layers
    dropout: share of the inputs that training leaves out, [0, 1)
    """

    rank: int = 8
    alpha: float | None = None
    targets: tuple[str, ...] = ATTENTION
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise SuffuseError(f"the rank of a LoRA must be at least 1, not {self.rank}")
        if not 0 <= self.dropout < 1:
            raise SuffuseError(f"dropout must be in [0, 1), not {self.dropout}")


class LowRank(nn.Module):
    """The change of one layer: what that layer is given -> what is added to its answer."""

    def __init__(self, layer: Layer, rank: int, alpha: float | None = None, dropout: float = 0.0):
        super().__init__()
        self.down, self.up = _factors(layer, rank)
        self.rank, self.dropout = rank, dropout
        self.alpha = float(rank if alpha is None else alpha)
        nn.init.kaiming_uniform_(self.down.weight, a=5**0.5)  # as a fresh layer of torch's
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = dropout(x.to(self.down.weight.dtype), self.dropout, self.training)
        return self.up(self.down(x)) * (self.alpha / self.rank)

    @torch.no_grad()
    def change(self) -> Tensor:
        """What merging adds to the weight: (O, I) or (O, I, kh, kw), float32."""
        up, down = self.up.weight.float(), self.down.weight.float()
        product = up.flatten(1) @ down.flatten(1)  # (O, I * kh * kw)
        return product.unflatten(1, down.shape[1:]) * (self.alpha / self.rank)


def _factors(layer: Layer, rank: int) -> tuple[Layer, Layer]:
    device = layer.weight.device
    if isinstance(layer, nn.Linear):
        return (
            nn.Linear(layer.in_features, rank, bias=False, device=device),
            nn.Linear(rank, layer.out_features, bias=False, device=device),
        )
    down = nn.Conv2d(
        layer.in_channels,
        rank,
        cast("tuple[int, int]", layer.kernel_size),
        cast("tuple[int, int]", layer.stride),
        cast("tuple[int, int]", layer.padding),
        cast("tuple[int, int]", layer.dilation),
        bias=False,
        device=device,
    )
    return down, nn.Conv2d(rank, layer.out_channels, 1, bias=False, device=device)


class Adapter(nn.Module):
    """The changes of one network, by the names of its layers."""

    def __init__(self, changes: Mapping[str, LowRank]):
        super().__init__()
        # A module may have no dots in its name.
        self.changes = nn.ModuleDict({n.replace(".", "/"): c for n, c in changes.items()})

    def items(self) -> Iterator[tuple[str, LowRank]]:
        for name, change in self.changes.items():
            yield name.replace("/", "."), cast("LowRank", change)

    def __len__(self) -> int:
        return len(self.changes)


def layers_of(net: nn.Module) -> dict[str, Layer]:
    """The layers that can be adapted, by name."""
    found = {n: m for n, m in net.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    return {n: m for n, m in found.items() if not isinstance(m, nn.Conv2d) or m.groups == 1}


def make_adapter(net: nn.Module, config: LoraConfig) -> Adapter:
    """A fresh adapter for the layers of `net` that `config` names.

    Raises SuffuseError when it names none.
    """
    layers = layers_of(net)
    chosen = [n for n in layers if any(fnmatchcase(n, pattern) for pattern in config.targets)]
    if not chosen:
        some = ", ".join(list(layers)[:3])
        raise SuffuseError(
            f"no layer is named like {', '.join(config.targets)}: layers are {some} …"
        )
    how = (config.rank, config.alpha, config.dropout)
    return Adapter({name: LowRank(layers[name], *how) for name in chosen})


@dataclass(frozen=True)
class _Beside:
    """The hook by which a layer's answer gets its change."""

    owner: Attached
    change: LowRank

    def __call__(self, layer: Layer, given: tuple[Tensor], answer: Tensor) -> Tensor:
        if self.owner.scale == 0:
            return answer
        return answer + self.owner.scale * self.change(given[0]).to(answer.dtype)


class Attached:
    """An adapter at work in a network, until it is removed; several add up.

    The network keeps its weights, names and modules: only the answers of its layers change.
    A twin that `packing.pack` makes meanwhile has them merged, as they are then.
    """

    def __init__(self, net: nn.Module, adapter: Adapter, scale: float = 1.0):
        self.scale = scale
        layers = _fitting(net, adapter)
        self._hooks = [
            layers[name].register_forward_hook(_Beside(self, change))
            for name, change in adapter.items()
        ]

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def __enter__(self) -> Attached:
        return self

    def __exit__(self, *_: Any) -> None:
        self.remove()


class Merged:
    """Adapters merged into a network. Whoever keeps this can undo it, to the last bit."""

    def __init__(self, originals: Mapping[Layer, Tensor]):
        self._originals = originals

    def undo(self) -> None:
        for layer, weight in self._originals.items():
            layer.weight = weight


def has_attached(net: nn.Module) -> bool:
    """Whether adapters are attached to layers of `net`."""
    return any(_attached(layer) for layer in layers_of(net).values())


@torch.no_grad()
def absorb(net: nn.Module) -> None:
    """Merges into the weights of `net` what is attached to it, and takes it off.

    Changed layers get new weights, the old tensors stay as they are.
    """
    for layer in layers_of(net).values():
        hooks = _attached(layer)
        at_work = [(h.change, h.owner.scale) for h in hooks.values() if h.owner.scale]
        _changed({layer: at_work} if at_work else {})
        for key in hooks:
            del layer._forward_hooks[key]


def _attached(layer: Layer) -> dict[int, _Beside]:
    """The adapters' hooks among those of a layer, by torch's numbers."""
    hooks: dict[int, Any] = layer._forward_hooks
    return {key: hook for key, hook in hooks.items() if isinstance(hook, _Beside)}


@torch.no_grad()
def merge(net: nn.Module, adapters: Sequence[tuple[Adapter, float]]) -> Merged:
    """Adds `adapters`, each with its scale, to the weights of `net`; sums are made in float32.

    Changed layers get new weights, the old tensors stay as they are. Raises SuffuseError when an
    adapter is of another network.
    """
    changes: dict[Layer, list[tuple[LowRank, float]]] = {}
    for adapter, scale in adapters:
        layers = _fitting(net, adapter)
        for name, change in adapter.items():
            changes.setdefault(layers[name], []).append((change, scale))
    return Merged(_changed(changes))


def _changed(changes: Mapping[Layer, Sequence[tuple[LowRank, float]]]) -> dict[Layer, Tensor]:
    """Gives layers new weights, with their changes added; returns the old ones."""
    originals: dict[Layer, Tensor] = {}
    for layer, some in changes.items():
        weight = originals[layer] = layer.weight
        added = sum(scale * change.change().to(weight.device) for change, scale in some)
        made = torch.empty_like(weight).copy_(weight.float() + added)
        layer.weight = nn.Parameter(made, weight.requires_grad)
    return originals


def _fitting(net: nn.Module, adapter: Adapter) -> dict[str, Layer]:
    """The layers of `net`, into which `adapter` fits. Raises SuffuseError if it does not."""
    layers = layers_of(net)
    for name, change in adapter.items():
        if name not in layers:
            raise SuffuseError(f"the LoRA changes {name!r}, which this network does not have")
        weight = layers[name].weight
        got = (change.up.weight.shape[0], *change.down.weight.shape[1:])
        if got != tuple(weight.shape):
            raise SuffuseError(
                f"the LoRA changes {name!r} by a matrix of {got}, the weight is "
                f"{tuple(weight.shape)}: it is of another model"
            )
    return layers
