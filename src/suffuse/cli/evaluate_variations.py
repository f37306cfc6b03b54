"""`suffuse evaluate variations`: how well an unCLIP varies and edits pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from suffuse.cli.console import Bar, Debug, note
from suffuse.cli.report import (
    AsJson,
    Device,
    Overwrite,
    at_least_one,
    check_new,
    check_sheet,
    not_negative,
    number,
    tell,
)
from suffuse.errors import SuffuseError
from suffuse.systems.manipulation import AMOUNT, ETA, GUIDANCE, ROUNDS, STEPS

if TYPE_CHECKING:
    from PIL.Image import Image

    from suffuse.evaluation.variations import EditScore, VariationScores


def variations(
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Folder or Hub name; else the bundled.")
    ] = None,
    n: Annotated[int, typer.Option("--n", "-n", help="How many held-out scenes.")] = 100,
    amount: Annotated[
        list[float] | None,
        typer.Option(help=f"How far edits go, 0 to 1; {AMOUNT:g} unless said; may be repeated."),
    ] = None,
    eta: Annotated[float, typer.Option(help="Fresh noise of variations at each step.")] = ETA,
    steps: Annotated[int, typer.Option(help="Steps to noise, and back.")] = STEPS,
    guidance: Annotated[
        float, typer.Option(help="How closely to follow CLIP; 1 = freely.")
    ] = GUIDANCE,
    rounds: Annotated[int, typer.Option(help="Corrections of a step to noise at most.")] = ROUNDS,
    objects: Annotated[
        int | None, typer.Option(help="Emoji in its world, where the model does not say.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of scenes; variation i uses seed + i.")] = 0,
    sheet: Annotated[
        Path | None,
        typer.Option(help="Draw the first ones: the picture, again, varied, edited."),
    ] = None,
    batch: Annotated[int, typer.Option(help="Scenes at a time.")] = 1,
    device: Device = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, float16 or bfloat16.")] = "auto",
    as_json: AsJson = None,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Measure variations and text diffs on emoji scenes that were never trained on.

    PSNR of pictures drawn again from their noise; how many variations show the same thing; how many
    edits by words change what they name, the background or the thing.
    """
    from suffuse.systems.manipulation import How

    at_least_one(n=n, batch=batch, objects=objects)
    how, amounts = How(steps, guidance, rounds), tuple(amount or [AMOUNT])
    not_negative(seed)
    check_sheet(sheet)
    if eta < 0 or not all(0 <= a <= 1 for a in amounts):
        raise SuffuseError("eta must be 0 or more, and amounts between 0 and 1")
    for path in (as_json, sheet):
        check_new(path, overwrite)

    from suffuse.data.emoji import World
    from suffuse.evaluation.variations import Asked, evaluate_variations, work
    from suffuse.systems.unclip_load import load_unclip

    asked = Asked(how, eta, amounts, seed)
    rows: list[list[Image]] = []
    with Bar() as bar:
        system = load_unclip(model, device=device, dtype=dtype)
        objects = objects or system.defaults.objects
        world = World() if objects is None else World(objects=objects)
        done, total = 0, work(n, asked, batch)

        def tick() -> None:
            nonlocal done
            done += 1
            bar.step("drawing", done, total)

        scores = evaluate_variations(
            system, world, n, asked, batch=batch, tick=tick, keep=lambda i, row: rows.append(row)
        )
    if sheet is not None:
        _draw(rows, sheet)
        note(f"wrote {sheet}")
    head = {"model": system.info.name, "n": n, "seed": seed, "objects": world.objects}
    head |= {"steps": steps, "guidance": guidance, "rounds": rounds, "eta": eta}
    _tell(head, amounts, scores, as_json)


def _draw(rows: list[list[Image]], path: Path) -> None:
    from PIL import Image

    from suffuse.evaluation.variations import SHOWN
    from suffuse.systems.film import side_by_side
    from suffuse.systems.metadata import write_png

    strips = [side_by_side(row) for row in rows[:SHOWN]]
    width, height = strips[0].size
    whole = Image.new("RGB", (width, height * len(strips)))
    for i, strip in enumerate(strips):
        whole.paste(strip, (0, i * height))
    write_png(whole, path, overwrite=True)


def _tell(
    head: dict[str, Any], amounts: tuple[float, ...], scores: VariationScores, as_json: str | None
) -> None:
    from suffuse.evaluation.variations import told

    plain = {name: getattr(scores, name) for name in ("psnr", "worst", "kept", "varied")}
    edits = {f"{amount:g}": vars(score) for amount, score in zip(amounts, scores.edits)}
    trials = [told(trial) for trial in scores.trials]
    shown: dict[str, Any] = {
        **head,
        "drawn again": {
            "PSNR": number(scores.psnr, " dB", 2),
            "worst PSNR": number(scores.worst, " dB", 2),
        },
        "variations": {
            "show the same thing": f"{scores.kept:.1%}",
            "PSNR": number(scores.varied, " dB", 2),
        },
    }
    shown |= {f"edits by {amount}": _line(s) for amount, s in zip(edits, scores.edits)}
    tell(shown, {**head, **plain, "edits": edits, "trials": trials}, as_json)


def _line(score: EditScore) -> dict[str, str]:
    shares = {
        "change what is asked": score.changed,
        "backgrounds": score.background,
        "things": score.thing,
        "leave the rest": score.left,
    }
    return {name: f"{share:.1%}" for name, share in shares.items() if share == share}
