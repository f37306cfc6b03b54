"""`suffuse studio`: the page and the service."""

from __future__ import annotations

import os
import re
import signal
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from suffuse.cli.console import Debug, Stopped, say
from suffuse.errors import SuffuseError

if TYPE_CHECKING:
    from suffuse.studio.door import Door
    from suffuse.studio.settings import Settings

_DOOR, _RUN = "Who may use it", "Models and machine"
# What the extra `studio` brings; without it, one of these is missing.
_EXTRA = (
    "fastapi",
    "starlette",
    "uvicorn",
    "sqlalchemy",
    "python_multipart",
    "prometheus_client",
    "psutil",
)


def studio(
    host: Annotated[
        str, typer.Option(help="Address to listen on.", rich_help_panel=_DOOR)
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 = any that is free.", min=0, max=65535)] = 7860,
    data: Annotated[
        Path | None, typer.Option(help="Folder of jobs and pictures; else SUFFUSE_DATA.")
    ] = None,
    database: Annotated[
        str | None, typer.Option(help="SQLAlchemy URL; else SQLite in the data folder.")
    ] = None,
    open_page: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in a browser.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Folder, file or Hub name; else the bundled.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    folders: Annotated[
        list[Path] | None,
        typer.Option(
            "--models",
            help="Folder of models, LoRAs, embeddings; may be repeated.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    devices: Annotated[
        list[str] | None,
        typer.Option(
            "--device",
            help="auto, cpu, cuda:0 …; a worker for each; may be repeated.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    ray: Annotated[
        bool,
        typer.Option("--ray", help="Workers on a Ray cluster, not here.", rich_help_panel=_RUN),
    ] = False,
    replicas: Annotated[
        int | None, typer.Option(help="Their number, else 1.", min=1, rich_help_panel=_RUN)
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(help="GiB of models kept loaded; else half of all.", rich_help_panel=_RUN),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(help="Ask everyone for this; else SUFFUSE_API_KEY.", rich_help_panel=_DOOR),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Let others in without a key.", rich_help_panel=_DOOR),
    ] = False,
    hosts: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            help="Another name of this machine; may be repeated.",
            rich_help_panel=_DOOR,
        ),
    ] = None,
    origins: Annotated[
        list[str] | None,
        typer.Option(
            "--cors-origin",
            help="A site whose pages may use it; may be repeated.",
            rich_help_panel=_DOOR,
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Open the page where people type, paint and look, and the service behind it.

    For example: suffuse studio --models checkpoints
    """
    from suffuse.studio.door import Door

    key = api_key if api_key is not None else os.environ.get("SUFFUSE_API_KEY") or None
    door = Door(host, key, tuple(hosts or ()), tuple(origins or ()))
    door.check(insecure)
    places = _devices(devices, ray, replicas)
    settings = _settings(door, data, database, model, folders or [], places, memory)
    serving = _serving()
    listening = serving.listen(host, port)
    place = serving.address(listening)

    def ready() -> None:
        say(f"studio: {place}" + ("  (asks for the API key)" if key else ""))
        if open_page:
            import webbrowser

            webbrowser.open(place)

    if serving.serve(settings, door, listening, ready) == signal.SIGINT:
        raise Stopped("stopped; what was waiting goes on at the next start")


def _devices(devices: list[str] | None, ray: bool, replicas: int | None) -> list[str]:
    if not ray:
        if replicas is not None:
            raise SuffuseError("--replicas is for workers on a Ray cluster: give --ray as well")
        return devices or ["auto"]
    if devices:
        raise SuffuseError("--device names workers on this machine, --ray others: give one of them")
    if find_spec("ray") is None:
        raise SuffuseError('--ray needs Ray: pip install "suffuse[ray]"')
    return ["ray"] * (replicas or 1)


def _serving() -> ModuleType:
    """`studio.serve`, which takes a second. Raises SuffuseError where the extra is missing."""
    try:
        from suffuse.studio import serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise SuffuseError(
            f'the studio needs {error.name}: pip install "suffuse[studio]"'
        ) from None
    return serve


def _settings(
    door: Door,
    data: Path | None,
    database: str | None,
    model: str | None,
    folders: list[Path],
    devices: list[str],
    memory: float | None,
) -> Settings:
    from suffuse.studio.settings import Settings, default_data

    if memory is not None and not memory > 0:
        raise SuffuseError(f"memory must be above 0, not {memory:g}")
    for folder in folders:
        if not folder.is_dir():
            raise SuffuseError(f"--models: there is no folder '{folder}'")
    return Settings(
        data=(data or default_data()).expanduser().absolute(),
        database=database,
        models=_models(model, folders),
        folders=tuple(folder.absolute() for folder in folders),
        api_key=door.api_key,
        devices=tuple(devices),
        memory=None if memory is None else int(memory * 2**30),
    )


def _models(model: str | None, folders: list[Path]) -> dict[str, str | None]:
    """The names that people see; the first is used where none is named."""
    from suffuse.studio.models_in import models_in
    from suffuse.studio.settings import BUNDLED

    model = model or os.environ.get("SUFFUSE_MODEL") or None
    found: dict[str, str | None] = {BUNDLED: None} if model is None else _named(model)
    for name, path in models_in(folder.absolute() for folder in folders).items():
        found.setdefault(name, path)
    return found


def _named(model: str) -> dict[str, str | None]:
    path = Path(model).expanduser()
    if path.exists():
        path = path.absolute()
        return {path.name if path.is_dir() else path.stem: str(path)}
    if re.fullmatch(r"[\w.-]+/[\w.-]+", model) and not path.parent.is_dir():  # on the Hub
        return {path.name: model}
    raise SuffuseError(f"{path}: there is no such file or folder")
