"""The pre-norm transformer block (Vaswani et al. 2017, arXiv 1706.03762) that CLIP is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suffuse.networks.attention import join_heads, split_heads

Activation = Literal["quick_gelu", "gelu"]


def quick_gelu(x: Tensor) -> Tensor:
    """OpenAI CLIP's cheaper GELU, `x * sigmoid(1.702 x)`."""
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"quick_gelu": quick_gelu, "gelu": F.gelu}


class Attention(nn.Module):
    """Multi-head self-attention.

    causal: a token sees itself and those before it
    """

    def __init__(self, width: int, heads: int, *, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """mask: what is added before the softmax, (B or 1, 1, L, L), in place of `causal`."""
        q, k, v = (split_heads(f(x), self.heads) for f in (self.q, self.k, self.v))
        causal = self.causal and mask is None
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return self.out(join_heads(y))


class Mlp(nn.Module):
    def __init__(self, width: int, intermediate: int, activation: Activation) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, intermediate)
        self.fc2 = nn.Linear(intermediate, width)
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm attention, then a pre-norm MLP, each added to its input: (B, L, width), the same."""

    def __init__(
        self,
        width: int,
        heads: int,
        intermediate: int,
        *,
        activation: Activation = "gelu",
        eps: float = 1e-5,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads, causal=causal)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, intermediate, activation)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.attn(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


@torch.no_grad()
def initialise_blocks(blocks: nn.ModuleList, width: int) -> None:
    """GPT-2's way, as CLIP has it: residual branches are scaled down with their number."""
    inner, residual = width**-0.5, (2 * len(blocks) * width) ** -0.5
    for name, p in blocks.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(p)
        elif name.endswith(("attn.out.weight", "mlp.fc2.weight")):
            nn.init.normal_(p, std=residual)
        elif name.endswith("mlp.fc1.weight"):
            nn.init.normal_(p, std=(2 * width) ** -0.5)
        elif ".attn." in name:
            nn.init.normal_(p, std=inner)
