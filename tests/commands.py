"""`suffuse` as users run it, as a process of its own, without waiting for its imports.

Most of a short command's time goes into importing torch. A server does that once for each process
of the tests (multiprocessing's forkserver), and every command is a fork of it, with arguments, a
folder, an environment, streams and an exit status of its own. What is about starting itself, or
about signals, starts a new interpreter instead.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

_SERVER = multiprocessing.get_context("forkserver")
# What most commands import, and a training loop; none of it looks at the environment that commands
# are given. `suffuse.cli` is left to them.
_SERVER.set_forkserver_preload(
    [
        "suffuse.systems.registry",
        "suffuse.training.stages",
        "accelerate",
        "torch._dynamo",
        "torch.utils.tensorboard",
        "sklearn.datasets",
        "rich.progress",
        "typer",
        "pydantic",
    ]
)


class Ended(NamedTuple):
    status: int
    out: str
    err: str


def command(args: Iterable[object], folder: Path, env: Mapping[str, str]) -> Ended:
    """What `suffuse ARGS` in `folder` ends with, within five minutes."""
    with tempfile.TemporaryDirectory() as place:
        streams = [Path(place, name) for name in ("out", "err")]
        words = [str(arg) for arg in args]
        process = _SERVER.Process(target=_command, args=(words, folder, dict(env), streams))
        process.start()
        process.join(300)
        if process.exitcode is None:
            process.kill()
            raise TimeoutError(f"suffuse {' '.join(words)} does not end")
        out, err = (stream.read_text(encoding="utf-8") for stream in streams)
        return Ended(process.exitcode, out, err)


def _command(args: list[str], folder: Path, env: dict[str, str], streams: list[Path]) -> None:
    for number, stream in enumerate(streams, 1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    multiprocessing.set_start_method(None, force=True)  # a server's children would start theirs so
    sys.argv = ["suffuse", *args]
    from suffuse.cli import main

    main()
