"""Encoders: what the user says -> a `Cond`, each with its own null."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from suffuse.diffusion.cond import Cond
from suffuse.errors import SuffuseError
from suffuse.networks.clip import ClipText
from suffuse.text.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """Prompts through a CLIP text tower to the `tokens` door, as Stable Diffusion 1 and 2 do it.

    A prompt longer than the tower's window is encoded window by window and the states are joined
    along the sequence, as A1111's web UI does; nothing is cut. `skip` leaves out that many last
    layers (clip skip as diffusers counts it); the final norm is always applied.

    Raises SuffuseError when tokenizer and tower do not belong together.
    """

    tokenizer: Tokenizer
    tower: ClipText
    skip: int = 0

    def __post_init__(self) -> None:
        config = self.tower.config
        if self.tokenizer.size > config.vocab:
            raise SuffuseError(
                f"the tokenizer has {self.tokenizer.size} tokens, the text encoder knows"
                f" {config.vocab}: they are of different models"
            )
        if self.tokenizer.window > config.context:
            raise SuffuseError(
                f"the tokenizer's window is {self.tokenizer.window} tokens, the text encoder's"
                f" {config.context}: they are of different models"
            )
        if not 0 <= self.skip < config.layers:
            raise SuffuseError(
                f"clip skip {self.skip} is out of range: the text encoder has"
                f" {config.layers} layers, so 0 to {config.layers - 1}"
            )

    def ids(self, prompts: Sequence[str], windows: int = 1) -> Tensor:
        """Token ids (B, W, window) int64 on the CPU; W is the longest prompt's, at least `windows`.

        Shorter prompts are filled up with windows of the empty prompt.
        """
        parts = [self.tokenizer.windows(prompt) for prompt in prompts]
        width = max([windows, *(len(part) for part in parts)])
        empty = self.tokenizer.windows("")  # (1, window)
        filled = [np.concatenate([part, *[empty] * (width - len(part))]) for part in parts]
        return torch.from_numpy(np.stack(filled))

    def embed(self, ids: Tensor) -> Cond:
        """Ids (B, W, window) -> tokens (B, W * window, D); gradients flow into the tower.

        A window that occurs more than once is encoded once: the images of one request share their
        prompt, so they get the same numbers however many they are.
        """
        rows, where = torch.unique(ids.flatten(0, 1), dim=0, return_inverse=True)
        device = self.tower.token.weight.device
        states = self.tower(rows.to(device), skip=self.skip, pool=False).last  # (rows, window, D)
        states = states[where.to(device)]  # (B * W, window, D)
        return Cond(tokens=states.unflatten(0, ids.shape[:2]).flatten(1, 2))

    def encode(self, prompts: Sequence[str], windows: int = 1) -> Cond:
        """Prompts -> tokens (B, W * window, D)."""
        return self.embed(self.ids(prompts, windows))

    def pair(self, prompts: Sequence[str], negatives: Sequence[str]) -> tuple[Cond, Cond]:
        """Prompts and what to steer away from, with the same number of windows in both."""
        ids = self.ids([*prompts, *negatives])
        tokens = self.embed(ids).tokens
        assert tokens is not None
        return Cond(tokens=tokens[: len(prompts)]), Cond(tokens=tokens[len(prompts) :])

    def null(self, windows: int = 1) -> Cond:
        """The empty prompt, (1, windows * window, D)."""
        return self.encode([""], windows)


NO_CLASS = -1


@dataclass(frozen=True)
class ClassEncoder:
    """Class names to the `vector` door, one-hot; the null is a row of zeros, which is no class.

    Without `names` the model has no classes, and nothing is encoded.
    """

    names: tuple[str, ...] = ()
    owner: str = "this model"  # in messages

    def ids(self, prompts: Sequence[str]) -> Tensor:
        """Names or numbers of classes -> (B,) int64; "" is no class. Raises SuffuseError."""
        return torch.tensor([self._id(prompt.strip()) for prompt in prompts])

    def _id(self, word: str) -> int:
        if not word:
            return NO_CLASS
        if not self.names:
            raise SuffuseError(
                f"{self.owner} has no classes to choose {word!r} from: give no prompt"
            )
        known = [name.casefold() for name in self.names]
        if word.casefold() in known:
            return known.index(word.casefold())
        if word.isdecimal() and int(word) < len(known):
            return int(word)
        shown = ", ".join(self.names[:6]) + (" ..." if len(known) > 6 else "")
        raise SuffuseError(
            f"{self.owner} has no class {word!r}: its {len(known)} classes are {shown}, by name or "
            f"by number from 0 to {len(known) - 1}"
        )

    def embed(self, ids: Tensor, dtype: torch.dtype = torch.float32) -> Cond:
        """Classes (B,) -> vector (B, classes), where `ids` is."""
        if not self.names:
            return Cond()
        every = torch.arange(len(self.names), device=ids.device)
        return Cond(vector=(ids[:, None] == every).to(dtype))
