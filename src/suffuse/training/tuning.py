"""What fine-tuning may change of a model: all of it, layers of low rank beside it, or one word.

Each brings the networks that are trained (`nets`), a way to draw with a copy of them (`using`) and
the files that come out. What is not trained stands still, to the last bit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from suffuse.errors import SuffuseError
from suffuse.networks.lora import Attached, LoraConfig, make_adapter
from suffuse.networks.words import NewWord, Spoken, extend
from suffuse.weights.embedding import FILE as WORD_FILE
from suffuse.weights.embedding import Embedding, save_embedding
from suffuse.weights.lora import FILES, Lora, Naming, save_lora
from suffuse.weights.parts import Parts
from suffuse.weights.save import save_parts

KOHYA_FILE = "kohya.safetensors"


class Method(Protocol):
    """One way to fine-tune a model."""

    parts: Parts  # the model; what is trained is at work in it
    nets: nn.ModuleDict

    def using(self, nets: nn.ModuleDict) -> Any:
        """A context in which the model, which it gives, works with `nets` instead of its own."""

    def export(self, nets: nn.ModuleDict, folder: Path) -> None:
        """Writes what came out into `folder`."""


def still(parts: Parts) -> None:
    """Nothing of `parts` is trained."""
    for net in (parts.unet, parts.text, parts.autoencoder):
        net.requires_grad_(False)


def _mine(own: nn.ModuleDict, given: nn.ModuleDict) -> dict[str, Any]:
    """Of `given` those that a method trains: stages may keep more beside them."""
    return {name: given[name] for name in own}


class Whole:
    """The U-Net and, if `text`, the text encoder: a whole model comes out."""

    def __init__(self, parts: Parts, text: bool = False):
        still(parts)
        trained: dict[str, nn.Module] = {"unet": parts.unet}
        if text:
            trained["text"] = parts.text
        self.parts, self.nets = parts, nn.ModuleDict(trained).requires_grad_(True)

    @contextmanager
    def using(self, nets: nn.ModuleDict) -> Iterator[Parts]:
        yield replace(self.parts, **_mine(self.nets, nets))

    def export(self, nets: nn.ModuleDict, folder: Path) -> None:
        with self.using(nets) as parts:
            save_parts(parts, folder)


class Adapters:
    """LoRA beside the U-Net and, where `text` is given, beside the text encoder (2106.09685).

    Out come two files of the same: in PEFT's naming and in kohya's.
    """

    def __init__(self, parts: Parts, unet: LoraConfig, text: LoraConfig | None = None):
        still(parts)
        self.parts = parts
        made = {"unet": make_adapter(parts.unet, unet)}
        if text is not None:
            made["text"] = make_adapter(parts.text, text)
        self.nets = nn.ModuleDict(made)
        self._live = self._attach(self.nets)

    def _attach(self, nets: nn.ModuleDict) -> list[Attached]:
        given = _mine(self.nets, nets)
        return [Attached(getattr(self.parts, part), adapter) for part, adapter in given.items()]

    @contextmanager
    def using(self, nets: nn.ModuleDict) -> Iterator[Parts]:
        with ExitStack() as stack:
            for attached in self._live:
                attached.scale = 0.0
                stack.callback(setattr, attached, "scale", 1.0)
            for attached in self._attach(nets):
                stack.enter_context(attached)
            yield self.parts

    def export(self, nets: nn.ModuleDict, folder: Path) -> None:
        lora = Lora(**_mine(self.nets, nets))
        namings: tuple[tuple[str, Naming], ...] = ((FILES[0], "peft"), (KOHYA_FILE, "kohya"))
        for name, naming in namings:
            save_lora(lora, folder / name, self.parts.unet_config, naming)


class Word:
    """Textual inversion (2208.01618): a new word of `tokens` tokens, which begins as `init`.

    Out come two files of the same: diffusers' and A1111's, whose name is the word.
    """

    def __init__(self, parts: Parts, word: str, init: str, tokens: int = 1):
        still(parts)
        like = parts.tokenizer.encode(init)
        if not like:
            raise SuffuseError(f"the word to begin with, {init!r}, has no tokens: name another one")
        tokenizer, first = parts.tokenizer.with_word(word, tokens)
        rows = torch.tensor([like[i % len(like)] for i in range(tokens)])
        vectors = parts.text.token.weight[rows.to(parts.text.token.weight.device)].detach().clone()
        extend(parts.text, first, vectors, tokenizer.eos)
        self.word, self.parts = word, replace(parts, tokenizer=tokenizer)
        learned = NewWord(first, vectors)
        self.nets = nn.ModuleDict({"word": learned})
        self._live = Spoken(self.parts.text, learned)

    @contextmanager
    def using(self, nets: nn.ModuleDict) -> Iterator[Parts]:
        given: Any = nets["word"]
        self._live.on = False
        try:
            with Spoken(self.parts.text, given):
                yield self.parts
        finally:
            self._live.on = True

    def export(self, nets: nn.ModuleDict, folder: Path) -> None:
        given: Any = nets["word"]
        found = Embedding(self.word, given.vectors)
        save_embedding(found, folder / WORD_FILE)
        name = re.sub(r"[^\w-]+", "", self.word) or "word"
        save_embedding(found, folder / f"{name}.safetensors", "a1111")
