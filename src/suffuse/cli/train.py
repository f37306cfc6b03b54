"""`suffuse train`: one command for each stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from suffuse.cli.console import Bar, Debug, Stopped, note, say
from suffuse.cli.report import not_negative

if TYPE_CHECKING:
    import torch

    from suffuse.training.loop import Stage
    from suffuse.training.plan import Plan
    from suffuse.training.watch import Report

HELP = "Train models from scratch. Stops with Ctrl-C, goes on with --resume."
app = typer.Typer(no_args_is_help=True, help=HELP)

Output = Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")]
Preset = Annotated[str, typer.Option(help="emoji, toy …: `suffuse train --list` shows all.")]
Config = Annotated[
    Path | None, typer.Option(help="TOML, YAML or JSON that changes fields of the preset.")
]
Data = Annotated[
    str | None,
    typer.Option(help="Folder of pictures, .tar, .parquet or Hub name. Default: the preset's."),
]
Streamed = Annotated[
    bool, typer.Option("--stream", help="Read the data in order, without copying them here.")
]
Cached = Annotated[
    bool,
    typer.Option(
        "--cache-latents/--no-cache-latents",
        help="Encode pictures once and keep that, or those of each step anew.",
    ),
]
Steps = Annotated[int | None, typer.Option(help="In place of the preset's.")]
Batch = Annotated[
    int | None, typer.Option(help="Images a step over all processes, in place of the preset's.")
]
Workers = Annotated[int | None, typer.Option(help="Processes that prepare batches ahead.")]
Seed = Annotated[int, typer.Option(help="Of weights, data and noise.")]
Init = Annotated[
    Path | None, typer.Option(help="A model folder whose weights training goes on from.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")]

EVERY = 60.0  # seconds between lines where there is no terminal to show a bar


@app.callback(invoke_without_command=True)
def _train(
    shown: Annotated[
        bool, typer.Option("--list", help="Show the presets, their targets and what they cost.")
    ] = False,
) -> None:
    """Train models from scratch."""
    if shown:
        from suffuse.cli.table import grid
        from suffuse.training.adm_presets import ADMS, CLASSIFIERS
        from suffuse.training.ar_prior import AR_PRIORS
        from suffuse.training.clip_presets import CLIPS
        from suffuse.training.finetune_presets import FINETUNES
        from suffuse.training.pixel_presets import DDPMS
        from suffuse.training.presets import AUTOENCODERS, LATENTS
        from suffuse.training.score_sde_presets import SCORE_SDES
        from suffuse.training.sr3_presets import SR3S
        from suffuse.training.unclip_presets import DECODERS, PRIORS

        rows = []
        tables: dict[str, Any] = {
            "autoencoder": AUTOENCODERS,
            "latent": LATENTS,
            "ddpm": DDPMS,
            "score-sde": SCORE_SDES,
            "adm": ADMS,
            "classifier": CLASSIFIERS,
            "sr3": SR3S,
            "clip": CLIPS,
            "prior": PRIORS,
            "decoder": DECODERS,
            "ar-prior": AR_PRIORS,
            "finetune": FINETUNES,
        }
        for stage, table in tables.items():
            for name, row in table.items():
                target = getattr(row, "target", None)
                of = (target.score, target.cost, target.source) if target else ("", "", "")
                rows.append((stage, name, row.about, f"{row.plan.steps:,}", row.plan.batch, *of))
        grid(("stage", "preset", "model", "steps", "batch", "target", "cost", "source"), rows)
        raise typer.Exit


@app.command()
def autoencoder(
    output: Output,
    preset: Preset = "emoji",
    config: Config = None,
    data: Data = None,
    stream: Streamed = False,
    steps: Steps = None,
    batch: Batch = None,
    seed: Seed = 0,
    resume: Resume = False,
    workers: Workers = None,
    perceptual: Annotated[
        str | None,
        typer.Option(help="VGG-16 or LPIPS weights that compare pictures: a file or Hub name."),
    ] = None,
    init: Init = None,
    debug: Debug = False,
) -> None:
    """Stage one: pictures to latents and back.

    OUTPUT holds checkpoints, samples, curves, and at the end model/, which stage two takes.
    """
    from suffuse.training import presets, stages

    chosen = with_config(presets.preset(presets.AUTOENCODERS, preset), config)
    plan = planned(chosen.plan, steps, batch, workers, data)
    asked = {"stage": "autoencoder", "preset": preset, "data": data, "stream": stream}
    asked |= {"perceptual": perceptual, "init": _name(init)}
    run_stage(
        lambda told, device: stages.autoencoder_stage(
            chosen,
            seed,
            data=data,
            streaming=stream,
            perceptual=perceptual,
            init=init,
            note=told,
        ),
        Asked(replace(chosen, plan=plan), asked, output, seed, resume),
    )


@app.command()
def latent(
    output: Output,
    autoencoder: Annotated[
        Path, typer.Option("--autoencoder", "-a", help="Folder of a trained stage one: RUN/model.")
    ],
    preset: Preset = "emoji",
    config: Config = None,
    data: Data = None,
    stream: Streamed = False,
    cache: Cached = True,
    steps: Steps = None,
    batch: Batch = None,
    seed: Seed = 0,
    resume: Resume = False,
    workers: Workers = None,
    init: Init = None,
    words: Annotated[
        Path | None,
        typer.Option("--text", help="A model folder whose text encoder and tokenizer are taken."),
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Compile the network first (torch.compile).")
    ] = False,
    debug: Debug = False,
) -> None:
    """Stage two: words to latents.

    OUTPUT holds checkpoints, samples, curves, and at the end model/, for `generate --model`.
    """
    from suffuse.training import presets, stages

    chosen = with_config(presets.preset(presets.LATENTS, preset), config)
    read = None if cache else data  # latents that are kept are in memory
    plan = planned(chosen.plan, steps, batch, workers, read)
    asked = {"stage": "latent", "preset": preset, "data": data, "stream": stream}
    asked |= {"cache_latents": cache, "autoencoder": str(autoencoder)}
    asked |= {"init": _name(init), "text": _name(words)}
    run_stage(
        lambda told, device: stages.latent_stage(
            chosen,
            autoencoder,
            output,
            seed,
            data=data,
            streaming=stream,
            cache=cache,
            compiled=compiled,
            init=init,
            words=words,
            device=device,
            note=told,
        ),
        Asked(replace(chosen, plan=plan), asked, output, seed, resume),
    )


def _name(folder: Path | None) -> str | None:
    return None if folder is None else str(folder)


def with_config(preset: Any, config: Path | None) -> Any:
    if config is None:
        return preset
    from suffuse.training.config import read_config
    from suffuse.weights.fields import configured

    return configured(preset, read_config(config), str(config))


def planned(
    plan: Plan, steps: int | None, batch: int | None, workers: int | None, data: str | None
) -> Plan:
    if workers is None:
        workers = plan.workers or (0 if data is None else 2)  # pictures are read and decoded
    return replace(
        plan,
        steps=plan.steps if steps is None else steps,
        batch=plan.batch if batch is None else batch,
        workers=workers,
    )


@dataclass(frozen=True)
class Asked:
    """What a command was asked for."""

    preset: Any
    words: Mapping[str, object]
    output: Path
    seed: int
    resume: bool


def run_stage(make: Callable[[Callable[[str], None], torch.device], Stage], asked: Asked) -> None:
    from suffuse.training.checkpoint import check_output, checkpoints
    from suffuse.training.distributed import Team
    from suffuse.training.loop import train

    output = asked.output
    not_negative(asked.seed)
    check_output(output, asked.resume)
    team, bar = Team(), Bar()

    def told(line: str) -> None:
        with bar.hidden():
            note(line)

    with ExitStack() as stack:
        if team.main:
            stack.enter_context(bar)
        try:
            with team.first():
                stage = make(told if team.main else lambda line: None, team.device)
            if team.main:
                _record(asked)
            train(
                stage,
                asked.preset.plan,
                output,
                seed=asked.seed,
                resume=asked.resume,
                report=_reporter(bar),
                note=told,
                team=team,
            )
        except KeyboardInterrupt:
            kept = checkpoints(output)
            if not kept:
                raise Stopped("stopped before the first step; begin again") from None
            raise Stopped(f"stopped; go on from {kept[-1]} with --resume") from None
    if team.main:
        say(f"{output / 'model'}")


def _record(asked: Asked) -> None:
    """Every number of the run, for people and for whoever repeats it."""
    import json

    import torch

    import suffuse
    from suffuse.weights.fields import plain

    versions = {"suffuse": suffuse.__version__, "torch": torch.__version__}
    record = {**asked.words, "seed": asked.seed, **versions, "config": plain(asked.preset)}
    asked.output.mkdir(parents=True, exist_ok=True)
    temporary = asked.output / "run.json.tmp"
    temporary.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", "utf-8")
    temporary.replace(asked.output / "run.json")


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
