"""CLIP: a text tower, a picture tower, and the space where both meet.

Radford et al. 2021, "Learning transferable visual models from natural language supervision"
(arXiv 2103.00020), section 2.4: the text tower is a GPT-2-like transformer with causal attention
and pre-norm blocks whose state at the end-of-text token stands for the sentence. Stable Diffusion
cross-attends to the states of all tokens instead. Pictures come in through a vision transformer
(`clip_vision`) or a modified ResNet (`clip_resnet`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from suffuse.errors import SuffuseError
from suffuse.networks.clip_resnet import ClipResNet
from suffuse.networks.clip_vision import ClipVision
from suffuse.networks.transformer import ACTIVATIONS, Activation, Block, initialise_blocks

# The largest factor of cosines in the loss (section 2.5), as its logarithm.
LARGEST_SCALE = 4.605170185988092


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
        if self.activation not in ACTIVATIONS:
            raise SuffuseError(
                f"text encoder: unknown activation {self.activation!r};"
                f" known are {', '.join(ACTIVATIONS)}"
            )


class TextOutput(NamedTuple):
    """What a text tower says about (B, L) tokens."""

    hidden: Tensor  # (B, L, width), the state after the asked layer, without the final norm
    last: Tensor  # (B, L, width), the same state after the final norm
    pooled: Tensor | None  # (B, projection or width), the sentence; None if it was not asked for


class ClipText(nn.Module):
    """A causal text tower.

    >>> tower = ClipText(ClipTextConfig(vocab=600, width=64, layers=2, heads=4, intermediate=256))
    >>> tower(torch.zeros(1, 77, dtype=torch.long)).last.shape
    torch.Size([1, 77, 64])
    """

    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__()
        self.config = config

        def block() -> Block:
            return Block(
                config.width,
                config.heads,
                config.intermediate,
                activation=config.activation,
                eps=config.eps,
                causal=True,
            )

        self.token = nn.Embedding(config.vocab, config.width)
        self.position = nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(block() for _ in range(config.layers))
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
        nn.init.normal_(self.token.weight, std=0.02)
        nn.init.normal_(self.position.weight, std=0.01)
        initialise_blocks(self.blocks, c.width)
        if self.projection is not None:
            nn.init.normal_(self.projection.weight, std=c.width**-0.5)


class Clip(nn.Module):
    """Both towers, and the learned factor of their cosines.

    logit_scale: its logarithm; exp(logit_scale) is 1 / temperature, at most 100
    """

    def __init__(self, text: ClipText, image: ClipVision | ClipResNet) -> None:
        super().__init__()
        if text.config.projection != image.config.projection:
            raise SuffuseError(
                f"CLIP: texts become {text.config.projection} numbers, pictures"
                f" {image.config.projection}: the towers are of different models"
            )
        self.text, self.image = text, image
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())

    def embed_texts(self, ids: Tensor) -> Tensor:
        """ids (B, L) int64 -> (B, D) of length 1."""
        pooled = self.text(ids).pooled
        return normalize(pooled, dim=1)

    def embed_images(self, pixels: Tensor) -> Tensor:
        """pixels (B, 3, image, image), by the model's mean and deviation -> (B, D) of length 1."""
        return normalize(self.image.pool(pixels), dim=1)
