"""Emoji scenes as a folder of pictures with captions, like a data set of one's own."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from suffuse.data.stream import EmojiStream
from suffuse.errors import SuffuseError


def write_scenes(
    stream: EmojiStream,
    count: int,
    folder: Path,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Writes `count` scenes as PNG, and `metadata.jsonl`, into a new `folder`.

    Nothing is left behind where it does not end well. Raises SuffuseError.
    """
    if count < 1:
        raise SuffuseError(f"count must be at least 1, not {count}")
    if folder.exists():
        raise SuffuseError(f"'{folder}' is already there: choose another name")
    unfinished = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        unfinished.mkdir(parents=True)
        with (unfinished / "metadata.jsonl").open("w", encoding="utf-8") as metadata:
            for i in range(count):
                pictures, captions = stream.batch(i, 1, seed)
                name = f"{i:06}.png"
                Image.fromarray(pictures[0]).save(unfinished / name)
                row = {"file_name": name, "text": captions[0]}
                metadata.write(json.dumps(row, ensure_ascii=False) + "\n")
                progress(i + 1, count)
        unfinished.rename(folder)
    except OSError as error:
        raise SuffuseError(f"cannot write '{folder}': {error.strerror or error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
