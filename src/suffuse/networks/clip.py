"""CLIP's text transformer: token ids in, one vector a token and one a sentence out.

Radford et al. 2021, "Learning transferable visual models from natural language supervision"
(arXiv 2103.00020), section 2.4: a GPT-2-like transformer with causal attention and pre-norm blocks
whose state at the end-of-text token stands for the sentence. Stable Diffusion cross-attends to the
states of all tokens instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from suffuse.errors import SuffuseError

Activation = Literal["quick_gelu", "gelu"]


@dataclass(frozen=True)
class ClipTextConfig:
    """The shape of a text tower; the defaults are those of Stable Diffusion 1 (CLIP ViT-L/14).

    `activation` cannot be told from the weights: OpenAI's towers use quick-GELU, open_clip's GELU,
    and the wrong one moves the output by about 1 %. `eos` is where the sentence vector is read:
    at the first token with that id. The value 2 has a meaning of its own in published
    configurations (they carry a wrong id, see transformers' modeling_clip.py): read at the token
    with the largest id.
    """

    vocab: int = 49408
    width: int = 768
    layers: int = 12
    heads: int = 12
    context: int = 77  # tokens, begin and end included
    intermediate: int = 3072
    activation: Activation = "quick_gelu"
    eps: float = 1e-5
    eos: int = 2
    projection: int | None = None  # width of the projected sentence vector

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise SuffuseError(
                f"text encoder: width {self.width} does not divide into {self.heads} heads"
            )
        if self.activation not in _ACTIVATIONS:
            raise SuffuseError(
                f"text encoder: unknown activation {self.activation!r};"
                f" known are {', '.join(_ACTIVATIONS)}"
            )


class TextOutput(NamedTuple):
    """What a text tower says about (B, L) tokens."""

    hidden: Tensor  # (B, L, width), the state after the asked layer, without the final norm
    last: Tensor  # (B, L, width), the same state after the final norm
    pooled: Tensor | None  # (B, projection or width), the sentence; None if it was not asked for


def quick_gelu(x: Tensor) -> Tensor:
    """OpenAI CLIP's cheaper GELU, `x * sigmoid(1.702 x)`."""
    return x * torch.sigmoid(1.702 * x)


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"quick_gelu": quick_gelu, "gelu": F.gelu}


class Attention(nn.Module):
    """Multi-head self-attention in which a token sees itself and those before it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self._split(f(x)) for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).flatten(2))  # (B, L, width)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, heads, L, width / heads)


class Mlp(nn.Module):
    def __init__(self, width: int, intermediate: int, activation: Activation) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, intermediate)
        self.fc2 = nn.Linear(intermediate, width)
        self.activation = _ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm attention, then a pre-norm MLP, each added to its input."""

    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=config.eps)
        self.attn = Attention(config.width, config.heads)
        self.norm2 = nn.LayerNorm(config.width, eps=config.eps)
        self.mlp = Mlp(config.width, config.intermediate, config.activation)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ClipText(nn.Module):
    """A causal text tower.

    >>> tower = ClipText(ClipTextConfig(vocab=600, width=64, layers=2, heads=4, intermediate=256))
    >>> tower(torch.zeros(1, 77, dtype=torch.long)).last.shape
    torch.Size([1, 77, 64])
    """

    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.config = config
        self.token = nn.Embedding(config.vocab, config.width)
        self.position = nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, eps=config.eps)
        self.projection = (
            nn.Linear(config.width, config.projection, bias=False) if config.projection else None
        )
        self._initialise()

    def forward(self, ids: Tensor, skip: int = 0, pool: bool = True) -> TextOutput:
        """Encode `ids` (B, L) int64.

        `skip` is the number of last layers left out of `hidden` and `last` (clip skip as diffusers
        counts it; A1111's number minus one): Stable Diffusion 1 reads `last`, SDXL reads `hidden`.
        The sentence vector always comes from the last layer, so `pool=False` saves the skipped
        layers. Raises SuffuseError if L or `skip` is larger than the tower.
        """
        c = self.config
        if ids.shape[1] > c.context:
            raise SuffuseError(
                f"text encoder: {ids.shape[1]} tokens given, its window is {c.context}"
            )
        if not 0 <= skip < c.layers:
            raise SuffuseError(
                f"clip skip {skip} is out of range: the text encoder has {c.layers} layers"
            )
        x = self.token(ids) + self.position.weight[: ids.shape[1]]  # (B, L, width)
        for block in self.blocks[: c.layers - skip]:
            x = block(x)
        hidden = x
        last = self.norm(hidden)
        if not pool:
            return TextOutput(hidden, last, None)
        for block in self.blocks[c.layers - skip :]:
            x = block(x)
        return TextOutput(hidden, last, self._pool(ids, self.norm(x) if skip else last))

    def _pool(self, ids: Tensor, last: Tensor) -> Tensor:
        """The state at the end of the text (B, L, width) -> (B, width), projected."""
        c = self.config
        # Padding may repeat the end; argmax takes the first of equal maxima.
        score = ids.int() if c.eos == 2 else (ids == c.eos).int()
        row = torch.arange(len(ids), device=ids.device)
        pooled = last[row, score.argmax(dim=1)]  # (B, width)
        return self.projection(pooled) if self.projection is not None else pooled

    @torch.no_grad()
    def _initialise(self) -> None:
        """Section 2.5's initialisation: GPT-2's, with the residual branches scaled by depth."""
        c = self.config
        inner, residual = c.width**-0.5, (2 * c.layers * c.width) ** -0.5
        nn.init.normal_(self.token.weight, std=0.02)
        nn.init.normal_(self.position.weight, std=0.01)
        for name, p in self.blocks.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(p)
            elif name.endswith(("attn.out.weight", "mlp.fc2.weight")):
                nn.init.normal_(p, std=residual)
            elif name.endswith("mlp.fc1.weight"):
                nn.init.normal_(p, std=(2 * c.width) ** -0.5)
            elif ".attn." in name:
                nn.init.normal_(p, std=inner)
        if self.projection is not None:
            nn.init.normal_(self.projection.weight, std=inner)
