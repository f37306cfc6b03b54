"""`suffuse evaluate reconstruction`: what an autoencoder gives back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from suffuse.cli.console import Bar, Debug, note
from suffuse.cli.report import (
    AsJson,
    Batch,
    Device,
    Features,
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
    from suffuse.evaluation.reconstruction import Judges, ReconstructionScores

EMOJI = "emoji"


def reconstruction(
    autoencoder: Annotated[str, typer.Option(help="Folder, original file or Hub name.")],
    data: Annotated[str, typer.Option(help="A folder of pictures, or emoji.")],
    n: Annotated[int, typer.Option("--n", "-n", help="At most so many pictures.")] = 1000,
    size: Annotated[
        int | None, typer.Option(help="Pixels a side; else as the model was trained, or 256.")
    ] = None,
    objects: Annotated[int | None, typer.Option(help="Size of the emoji world.")] = None,
    seed: Annotated[int, typer.Option(help="Of emoji scenes.")] = 0,
    features: Features = None,
    port: PortName = "pytorch-fid",
    perceptual: Annotated[
        str | None, typer.Option(help="LPIPS' weights or a VGG-16; else our own network.")
    ] = None,
    linear: Annotated[
        str | None, typer.Option(help="LPIPS' weights of channels, for a VGG-16.")
    ] = None,
    batch: Batch = 16,
    device: Device = "auto",
    as_json: AsJson = None,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Measure what an autoencoder gives back of pictures it never saw.

    Reconstruction FID, PSNR, SSIM and LPIPS.
    """
    at_least_one(n=n, size=size, batch=batch)
    not_negative(seed)
    check_new(as_json, overwrite)
    _check_data(data, size, objects)

    from suffuse.evaluation.metrics import require_metrics
    from suffuse.evaluation.pictures import emoji_scenes, folder_squares, open_folder
    from suffuse.evaluation.reconstruction import evaluate_reconstruction, open_codec, open_judges
    from suffuse.systems.latent import choose_device

    require_metrics()
    place = choose_device(device)
    pictures = None if data == EMOJI else open_folder(Path(data), n)
    codec, trained = open_codec(autoencoder, place)
    if pictures is None:
        given = emoji_scenes(n, objects, seed)
    else:
        given = folder_squares(pictures, trained, size)
    judges = open_judges(features, port, perceptual, linear, place)
    with Bar() as bar:
        scores = evaluate_reconstruction(
            codec,
            given.batches(batch),
            judges,
            lambda done: bar.step("reconstructing", done, given.count),
        )
    if broken := given.broken.notice():
        note(broken)
    head = {"autoencoder": autoencoder, "data": data, "prepared": given.prepared}
    _tell(head, judges, scores, as_json)


def _check_data(data: str, size: int | None, objects: int | None) -> None:
    if data == EMOJI and size is not None:
        raise SuffuseError("emoji scenes have one size: --size is for a folder")
    if data != EMOJI and objects is not None:
        raise SuffuseError("--objects is for --data emoji")


def _tell(
    head: Mapping[str, object], judges: Judges, scores: ReconstructionScores, as_json: str | None
) -> None:
    by = {"network": judges.network.source, "perceptual": judges.perceptual.source}
    found = {name: getattr(scores, name) for name in ("rfid", "psnr", "ssim", "lpips")}
    values = {**head, "pictures": scores.count, **by, "identity": judges.network.identity, **found}
    shown = {
        **{name: values[name] for name in ("autoencoder", "data", "pictures", *by)},
        "rFID": number(scores.rfid),
        "PSNR": number(scores.psnr, " dB", 2),
        "SSIM": number(scores.ssim, digits=4),
        "LPIPS": number(scores.lpips, digits=4),
    }
    tell(shown, values, as_json)
