"""`suffuse train`: one command for each stage."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from suffuse.cli.console import Bar, Debug, Stopped, note, say
from suffuse.errors import SuffuseError

if TYPE_CHECKING:
    from suffuse.training.loop import Plan, Report, Stage

app = typer.Typer(no_args_is_help=True, help="Train models from scratch.")

Output = Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")]
Preset = Annotated[str, typer.Option(help="emoji or toy.")]
Steps = Annotated[int | None, typer.Option(help="In place of the preset's.")]
Batch = Annotated[int | None, typer.Option(help="Images a step, in place of the preset's.")]
Seed = Annotated[int, typer.Option(help="Of weights, data and noise.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")]

EVERY = 60.0  # seconds between lines where there is no terminal to show a bar


@app.callback()
def _train() -> None:
    """Train models from scratch."""


@app.command()
def autoencoder(
    output: Output,
    preset: Preset = "emoji",
    steps: Steps = None,
    batch: Batch = None,
    seed: Seed = 0,
    resume: Resume = False,
    debug: Debug = False,
) -> None:
    """Stage one: pictures to latents and back.

    OUTPUT holds the checkpoint, samples, and at the end model/, which stage two takes.
    """
    from suffuse.training import presets, stages

    chosen = presets.preset(presets.AUTOENCODERS, preset)
    _run(
        lambda: stages.autoencoder_stage(chosen, seed),
        _planned(chosen.plan, steps, batch),
        output,
        seed,
        resume,
    )


@app.command()
def latent(
    output: Output,
    autoencoder: Annotated[
        Path, typer.Option("--autoencoder", "-a", help="Folder of a trained stage one: RUN/model.")
    ],
    preset: Preset = "emoji",
    steps: Steps = None,
    batch: Batch = None,
    seed: Seed = 0,
    resume: Resume = False,
    init: Annotated[
        Path | None, typer.Option(help="A model folder whose weights training goes on from.")
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the network first (torch.compile).")
    ] = False,
    debug: Debug = False,
) -> None:
    """Stage two: words to latents.

    OUTPUT holds the checkpoint, samples, and at the end model/, which `generate --model` takes.
    """
    from suffuse.training import presets, stages

    chosen = presets.preset(presets.LATENTS, preset)
    _run(
        lambda: stages.latent_stage(
            chosen, autoencoder, output, seed, compiled=compiled, init=init, note=note
        ),
        _planned(chosen.plan, steps, batch),
        output,
        seed,
        resume,
    )


def _planned(plan: Plan, steps: int | None, batch: int | None) -> Plan:
    for name, value in (("steps", steps), ("batch", batch)):
        if value is not None and value < 1:
            raise SuffuseError(f"{name} must be at least 1, not {value}")
    return replace(plan, steps=steps or plan.steps, batch=batch or plan.batch)


def _run(make: Callable[[], Stage], plan: Plan, output: Path, seed: int, resume: bool) -> None:
    from suffuse.training.loop import CHECKPOINT, check_output, train

    check_output(output, resume)
    with Bar() as bar:
        try:
            train(make(), plan, output, seed=seed, resume=resume, report=_reporter(bar))
        except KeyboardInterrupt:
            if not (output / CHECKPOINT).exists():
                raise Stopped("stopped before the first step; begin again") from None
            raise Stopped(f"stopped; go on from {output / CHECKPOINT} with --resume") from None
    say(f"{output / 'model'}")


def _reporter(bar: Bar) -> Callable[[Report], None]:
    last = [0.0]

    def show(report: Report) -> None:
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in report.numbers.items())
        line = f"loss {report.loss:.4f}  {numbers}  {report.images_per_second:.0f} images/s"
        bar.step(line, report.step, report.steps)
        if time.monotonic() - last[0] > EVERY or report.step == report.steps:
            last[0] = time.monotonic()
            with bar.hidden():
                left = f"{report.seconds_left / 60:.0f} min left"
                note(f"step {report.step} of {report.steps}  {line}  {left}")

    return show
