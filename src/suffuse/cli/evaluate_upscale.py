"""`suffuse evaluate upscale`: an upscaler's pictures beside bicubic's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from suffuse.cli.console import Bar, Debug, note
from suffuse.cli.report import (
    AsJson,
    Batch,
    Device,
    Overwrite,
    PortName,
    at_least_one,
    check_new,
    not_negative,
    number,
    tell,
)
from suffuse.errors import SuffuseError

if TYPE_CHECKING:
    from suffuse.evaluation.upscaling import UpscaleScore, UpscaleScores

EMOJI = "emoji"


def upscale(
    model: Annotated[str, typer.Option("--model", "-m", help="Folder, file or Hub name.")],
    data: Annotated[str, typer.Option(help="A folder of pictures, or emoji: held out.")] = EMOJI,
    n: Annotated[int, typer.Option("--n", "-n", help="At most so many pictures.")] = 200,
    size: Annotated[
        int | None, typer.Option(help="Pixels a side; else as the model was trained.")
    ] = None,
    objects: Annotated[int | None, typer.Option(help="Size of the emoji world.")] = None,
    seed: Annotated[int, typer.Option(help="Picture i uses seed + i.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    sampler: Annotated[str | None, typer.Option(help="The sampler's name.")] = None,
    draws: Annotated[
        int, typer.Option(help="Score the mean of so many draws of each picture too.")
    ] = 1,
    features: Annotated[
        str | None,
        typer.Option(help="File or Hub name of a network that compares sets; else our own."),
    ] = None,
    port: PortName = "pytorch-fid",
    sheet: Annotated[
        Path | None, typer.Option(help="Draw the first ones: bicubic, output, reference.")
    ] = None,
    batch: Batch = 8,
    device: Device = "auto",
    as_json: AsJson = None,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Measure an upscaler on pictures it never saw, beside bicubic.

    PSNR, SSIM, consistency (the output made small again, against the input), feature distance.
    """
    at_least_one(n=n, size=size, batch=batch, draws=draws)
    not_negative(seed)
    for path in (as_json, sheet):
        check_new(path, overwrite)
    if data == EMOJI and size is not None:
        raise SuffuseError("emoji scenes have one size: --size is for a folder")
    if data != EMOJI and objects is not None:
        raise SuffuseError("--objects is for --data emoji")

    from suffuse.data.preprocess import Preprocess
    from suffuse.diffusion.sampler_names import resolve
    from suffuse.evaluation.features import open_network
    from suffuse.evaluation.metrics import require_metrics
    from suffuse.evaluation.pictures import emoji_scenes, folder_squares, open_folder
    from suffuse.evaluation.upscaling import Drawing, evaluate_upscaling
    from suffuse.systems.latent import choose_device
    from suffuse.systems.upscalers import load_upscaler
    from suffuse.weights.parts import Place

    require_metrics()
    if sampler is not None:
        resolve(sampler)
    place = choose_device(device)
    pictures = None if data == EMOJI else open_folder(Path(data), n)
    system = load_upscaler(model, Place(place))
    system.grid(steps or system.steps, system.sampling.using(sampler))  # refuses such steps
    if pictures is None:
        given = emoji_scenes(n, objects, seed)
    else:
        path = system.info.path
        trained = Preprocess.load(path) if path is not None and path.is_dir() else None
        given = folder_squares(pictures, trained, size or (system.model.size or (256,))[0])
    network = open_network(features, port, place)
    with Bar() as bar:
        scores = evaluate_upscaling(
            system,
            given.batches(batch),
            Drawing(seed, steps, sampler, draws),
            network,
            lambda done: bar.step("upscaling", done, given.count),
            sheet,
        )
    if broken := given.broken.notice():
        note(broken)
    if sheet is not None:
        note(f"wrote {sheet}")
    head = {"model": system.info.name, "data": data, "pictures": scores.count}
    head |= {"factor": system.factor, "steps": steps or system.steps, "draws": draws}
    head |= {"prepared": given.prepared, "network": network.source}
    _tell(head, scores, as_json)


def _tell(head: Mapping[str, Any], scores: UpscaleScores, as_json: str | None) -> None:
    named = {"one draw": scores.drawn, "mean of draws": scores.mean, "bicubic": scores.bicubic}
    found = {name: score for name, score in named.items() if score is not None}
    values = {**head, **{name.replace(" ", "_"): s._asdict() for name, s in found.items()}}
    plain = {name: value for name, value in head.items() if name != "prepared"}
    tell({**plain, **{name: _line(score) for name, score in found.items()}}, values, as_json)


def _line(score: UpscaleScore) -> dict[str, str | None]:
    return {
        "PSNR": number(score.psnr, " dB", 2),
        "SSIM": number(score.ssim, digits=4),
        "consistency": f"{score.consistency:.2e}",
        "distance": number(score.distance),
    }
