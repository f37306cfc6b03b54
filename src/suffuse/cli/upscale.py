"""`suffuse upscale`: pictures of any size, enlarged by one model or by several in turn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from suffuse.cli.console import Bar, Debug, Stopped, say, uninterrupted
from suffuse.cli.report import at_least_one
from suffuse.errors import SuffuseError

if TYPE_CHECKING:
    from PIL.Image import Image

    from suffuse.cli.output import Destination
    from suffuse.systems.request import Request
    from suffuse.systems.sr3 import SuperResolution

_OUT, _RUN = "Output", "Model and machine"


def upscale(
    images: Annotated[list[Path], typer.Argument(help="Pictures to enlarge.", metavar="IMAGE…")],
    models: Annotated[
        list[str],
        typer.Option(
            "--model",
            "-m",
            help="Folder, file or Hub name; several enlarge one after the other.",
            rich_help_panel=_RUN,
        ),
    ],
    prompt: Annotated[str, typer.Option(help="The class, for models that know some.")] = "",
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    sampler: Annotated[
        str | None, typer.Option(help="ddpm, ddim …; a wrong name lists all.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Picture i uses seed + i; -1 or none = random.")
    ] = None,
    factor: Annotated[
        int | None, typer.Option(help="How many times a side grows, where a file does not say it.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="FILE.png, or a folder; else outputs/.", rich_help_panel=_OUT
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing files.", rich_help_panel=_OUT)
    ] = False,
    tile: Annotated[
        int | None,
        typer.Option(help="Pixels a side of a tile; else as trained.", rich_help_panel=_RUN),
    ] = None,
    overlap: Annotated[
        int | None,
        typer.Option(help="Pixels that tiles share; else a quarter.", rich_help_panel=_RUN),
    ] = None,
    batch: Annotated[
        int, typer.Option(help="Tiles at a time: less memory, or less time.", rich_help_panel=_RUN)
    ] = 4,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda …", rich_help_panel=_RUN)] = "auto",
    dtype: Annotated[
        str, typer.Option(help="auto, float32, float16 or bfloat16.", rich_help_panel=_RUN)
    ] = "auto",
    debug: Debug = False,
) -> None:
    """Enlarge pictures of any size: small ones to large ones, by diffusion.

    For example: suffuse upscale small.png --model runs/sr3/model -o large.png
    """
    from suffuse.cli.output import Destination
    from suffuse.systems.request import Request

    at_least_one(tile=tile, factor=factor, batch=batch)
    if overlap is not None and overlap < 0:
        raise SuffuseError(f"overlap must be 0 or more, not {overlap}")
    asked = [
        Request(prompt, steps=steps, sampler=sampler, image=str(image), seed=_of(seed, i)).check()
        for i, image in enumerate(images)
    ]
    out = Destination(output, len(images), overwrite)
    out.prepare()
    systems = _open(models, factor, device, dtype)
    systems = [_tiled(system, tile, overlap, batch) for system in systems]
    with Bar() as bar:
        run = _Run(systems, models, out, bar)
        try:
            run(asked)
        except KeyboardInterrupt:
            kept = ", ".join(map(str, run.kept)) or "no picture was finished"
            raise Stopped(f"stopped; {'kept ' if run.kept else ''}{kept}") from None


def _of(seed: int | None, i: int) -> int | None:
    return None if seed in (None, -1) else int(seed or 0) + i


def _open(models: list[str], factor: int | None, device: str, dtype: str) -> list[SuperResolution]:
    from suffuse.systems.latent import choose_device, choose_dtype
    from suffuse.systems.upscalers import load_upscaler
    from suffuse.weights.parts import Place

    chosen = choose_device(device)
    place = Place(chosen, choose_dtype(dtype, chosen))
    return [load_upscaler(model, place, factor) for model in models]


def _tiled(
    system: SuperResolution, tile: int | None, overlap: int | None, batch: int
) -> SuperResolution:
    """With the tiling that was asked for. Raises SuffuseError for one that cannot be."""
    from suffuse.systems.tiles import Tiling

    least, usual = system.factor * system.least, system.cut
    side = usual.side if tile is None else tile
    if side < least or side % system.factor:
        raise SuffuseError(
            f"a tile of {system.info.name} has {least} pixels or more, divisible by "
            f"{system.factor}, not {side}"
        )
    shared = side // 4 if overlap is None else overlap
    return replace(system, tiling=Tiling(side, shared, batch))


class _Run:
    """One call of the command: writes each picture the moment it is done."""

    def __init__(
        self, systems: list[SuperResolution], models: list[str], out: Destination, bar: Bar
    ) -> None:
        self.kept: list[Path] = []
        self._systems, self._models, self._out, self._bar = systems, models, out, bar
        self._done = self._total = 0

    def __call__(self, asked: list[Request]) -> None:
        from suffuse.systems.metadata import describe

        # Everything that can be refused or has to be chosen at random is settled before the run.
        jobs = [self._systems[0].resolve(request) for request in asked]
        for system in self._systems[1:]:
            system.resolve(replace(asked[0], image=_canvas(jobs[0])))
        origin = self._origin()
        stored = [describe(job, origin) for job in jobs]
        counts = [asked[0].steps or system.steps for system in self._systems]
        self._total = len(jobs) * sum(counts)
        for request, job, metadata in zip(asked, jobs, stored):
            picture = self._follow(self._systems[0], job)
            for system in self._systems[1:]:
                again = replace(request, image=picture, seed=job.seed)
                picture = self._follow(system, system.resolve(again))
            assert job.seed is not None
            about = metadata.for_image(job.seed, picture.size)
            with uninterrupted(), self._bar.hidden():
                name = self._out.next(job.seed, Path(str(request.image)).stem)
                path = self._out.save(picture, name, about)
                self.kept.append(path)
                size = f"{picture.width} x {picture.height}"
                say(f"{path}  {size}  seed {job.seed}")

    def _follow(self, system: SuperResolution, job: Request) -> Image:
        result = None
        for step in system.stream(job):
            self._done, result = self._done + 1, step.result
            self._bar.step(f"picture {len(self.kept) + 1}", self._done, self._total)
        assert result is not None
        return result

    def _origin(self) -> Any:
        from suffuse.systems.metadata import Origin

        infos = [system.info for system in self._systems]
        dtype = str(self._systems[0].dtype).removeprefix("torch.")
        name = " + ".join(info.name for info in infos)
        if len(infos) > 1:
            return Origin(name=name, dtype=dtype)
        return Origin(name=name, source=self._models[0], hash=infos[0].hash(), dtype=dtype)


def _canvas(job: Request) -> Image:
    """A picture of the size that a job will have, to ask the next model about."""
    from PIL import Image

    return Image.new("RGB", (job.width or 1, job.height or 1))
