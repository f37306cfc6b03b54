"""CLIP models: opened from a folder, a file, the Hub or the package, and saved.

Two layouts are read. transformers' has a `config.json` beside the weights and says everything;
OpenAI's, which open_clip kept, is weights alone. See `clip_transformers` and `clip_openai`.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from safetensors.torch import save_file

from suffuse.errors import SuffuseError
from suffuse.networks.clip import Clip, ClipText
from suffuse.networks.clip_resnet import ClipResNet
from suffuse.networks.clip_vision import ClipVision
from suffuse.text.openai import openai_clip_tokenizer
from suffuse.text.tokenizer import Tokenizer, load_tokenizer
from suffuse.weights.clip_input import PREPROCESSOR, ClipInput
from suffuse.weights.clip_openai import (
    CONFIG,
    is_openai,
    model_name,
    open_clip_config,
    open_clip_input,
    open_openai,
    openai_json,
)
from suffuse.weights.clip_transformers import (
    is_transformers,
    open_image_tower,
    open_transformers,
    write_transformers,
)
from suffuse.weights.containers import find_weights, is_index, open_tensors
from suffuse.weights.folder import INDEX
from suffuse.weights.formats import recognise
from suffuse.weights.load import BUNDLED_NAMES, locate_source
from suffuse.weights.mapping import export, some
from suffuse.weights.maps.openai_clip import OPENAI_CLIP_RESNET
from suffuse.weights.parts import Hints, Info, Place, files_of, precision
from suffuse.weights.save import replace_folder, write_json, write_tokenizer
from suffuse.weights.tensorfile import TensorFile

OWN_NAME = "suffuse-clip"
BUNDLED = BUNDLED_NAMES[OWN_NAME]
OPEN_CLIP_WEIGHTS = "open_clip_model.safetensors"
_CONFIGS = ("config.json", CONFIG)
_SAVED = {
    *_CONFIGS,
    "model.safetensors",
    OPEN_CLIP_WEIGHTS,
    "tokenizer.json",
    "tokenizer_config.json",
    PREPROCESSOR,
}
_UNNAMED = Info("unnamed", "made in memory")


@dataclass(frozen=True, eq=False)
class ClipParts:
    """A CLIP taken apart; its networks are in evaluation mode.

    Raises SuffuseError when the parts do not fit together.
    """

    model: Clip
    tokenizer: Tokenizer
    prepare: ClipInput
    info: Info = _UNNAMED

    def __post_init__(self) -> None:
        where, text = self.info.path or self.info.name, self.model.text.config
        tokenizer, image = self.tokenizer, self.model.image.config.image
        if tokenizer.size > text.vocab or tokenizer.window > text.context:
            raise SuffuseError(
                f"{where}: the tokenizer has {tokenizer.size} tokens in windows of "
                f"{tokenizer.window}, the text encoder knows {text.vocab} in {text.context}: "
                "they are of different models"
            )
        read_at = tokenizer.size - 1 if text.eos == 2 else text.eos  # see ClipTextConfig
        if tokenizer.eos != read_at:
            raise SuffuseError(
                f"{where}: a text ends with the token {tokenizer.eos}, and the text encoder reads "
                f"it at {read_at}: tokenizer and encoder are of different models"
            )
        if self.prepare.crop != image:
            raise SuffuseError(
                f"{where}: pictures are prepared to {self.prepare.crop} pixels, the picture tower "
                f"takes {image}"
            )

    @property
    def width(self) -> int:
        """Numbers of an embedding."""
        projection = self.model.image.config.projection
        assert projection is not None  # of a whole CLIP
        return projection


def open_clip_parts(
    source: str | PathLike[str] | None = None,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    hints: Hints | None = None,
) -> ClipParts:
    """Open a CLIP: a folder of transformers' or open_clip's, OpenAI's archive or a state dict of
    it, the name of any on the Hub, or the bundled one for None.

    `hints` adds what a file cannot say: activation, heads (of the picture tower), text_heads,
    tokenizer. No code in an archive is run. Raises SuffuseError with one line that names what is
    missing, unknown, damaged or not supported.
    """
    hints, place = hints or Hints(), Place(device, dtype)
    path, name = (bundled_clip(), OWN_NAME) if source is None else locate_source(source, place)
    file, folder = _weights(path, place)
    if is_openai(file):
        said = open_clip_config(folder)
        model = open_openai(file, said, hints, place)
        side, where = model.image.config.image, str(folder / CONFIG)
        prepare = open_clip_input(said, side, where)
    elif is_transformers(file):
        model = open_transformers(file, folder, hints, place)
        prepare = ClipInput.load(folder, model.image.config.image)
    else:
        raise SuffuseError(_not_ours(file))
    return ClipParts(
        model,
        _tokenizer(path, folder, hints, model.text),
        prepare,
        Info(
            name or (path.resolve().name if path.is_dir() else path.stem),
            f"CLIP {model_name(model.image.config)}",
            path,
            files_of(file),
        ),
    )


def open_clip_image(
    source: str | PathLike[str],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    hints: Hints | None = None,
) -> ClipVision:
    """The picture tower alone, as diffusers' `image_encoder` folders have it in transformers'
    layout, with or without projection; also out of a whole CLIP.

    Raises SuffuseError as `open_clip_parts` does.
    """
    hints, place = hints or Hints(), Place(device, dtype)
    file, folder = _weights(locate_source(source, place)[0], place)
    return open_image_tower(file, folder, hints, place)


def has_bundled_clip() -> bool:
    """Whether this installation has a CLIP inside the package."""
    return any((BUNDLED / name).is_file() for name in _CONFIGS)


def bundled_clip() -> Path:
    """The folder of the CLIP inside the package. Raises SuffuseError when it was left out."""
    if not has_bundled_clip():
        raise SuffuseError("this installation has no bundled CLIP: name a CLIP's folder or file")
    return BUNDLED


def save_clip(
    parts: ClipParts, folder: str | PathLike[str], dtype: torch.dtype = torch.float16
) -> None:
    """Write a folder that `open_clip_parts` opens; so does transformers' CLIPModel, or open_clip
    where the picture tower is a ResNet, which transformers does not have.

    An earlier model in `folder` is replaced once the new one is complete. Raises SuffuseError when
    `folder` cannot be written, holds something else, or a weight does not fit `dtype`.
    """
    model = parts.model

    def fill(fresh: Path) -> None:
        write = _write_open_clip if isinstance(model.image, ClipResNet) else write_transformers
        write(fresh, model, parts.tokenizer, parts.prepare, dtype)
        write_tokenizer(fresh, parts.tokenizer)

    replace_folder(Path(folder), fill, _SAVED)


def _write_open_clip(
    folder: Path, model: Clip, _: Tokenizer, prepare: ClipInput, dtype: torch.dtype
) -> None:
    weights = export(model, OPENAI_CLIP_RESNET, dtype)
    save_file(weights, folder / OPEN_CLIP_WEIGHTS, metadata={"format": "pt"})
    write_json(folder / CONFIG, openai_json(model, prepare))


def _weights(path: Path, place: Place) -> tuple[TensorFile, Path]:
    """The weights, and the folder that they lie in."""
    if not path.is_dir():
        folder = path.parent
    elif (path / INDEX).is_file():
        raise SuffuseError(f"{path}: is a pipeline; name a CLIP, or the folder of one in it")
    else:
        folder, path = path, _only_file(path, place)
    file = open_tensors(path)
    if all(name.startswith("module.") for name in file):  # trained on several processors
        file = file.within("module.")
    return file, folder


def _only_file(folder: Path, place: Place) -> Path:
    """A folder's weights under a usual name, else its only checkpoint."""
    names = [p for p in sorted(folder.iterdir()) if p.suffix in (".safetensors", ".pt", ".bin")]
    if len(names) == 1 and not any(map(is_index, folder.iterdir())):
        return names[0]
    return find_weights(folder, variant=precision(place))


def _tokenizer(path: Path, folder: Path, hints: Hints, tower: ClipText) -> Tokenizer:
    """The one that was named, the folder's own, or OpenAI's, which most CLIPs were trained with."""
    window = tower.config.context
    if hints.tokenizer is not None:
        return load_tokenizer(hints.tokenizer, window)
    if (folder / "tokenizer.json").is_file() or (folder / "vocab.json").is_file():
        return load_tokenizer(folder, window)
    tokenizer = openai_clip_tokenizer(pad=0, window=window)
    if tokenizer.size != tower.config.vocab:
        raise SuffuseError(
            f"{path}: the text encoder knows {tower.config.vocab} tokens, OpenAI's vocabulary "
            f"has {tokenizer.size}; name the folder of its tokenizer"
        )
    return tokenizer


def _not_ours(file: TensorFile) -> str:
    found = recognise(file)
    if found is not None:
        return f"{file.path}: is no CLIP but {found.name}"
    return f"{file.path}: is no CLIP; of its {len(file)} weights some are {some(file, 6)}"
