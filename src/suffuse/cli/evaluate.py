"""`suffuse evaluate`: scores of a model, as a table or as JSON."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from suffuse.cli.console import Bar, Debug
from suffuse.cli.evaluate_clip import retrieval, zero_shot
from suffuse.cli.evaluate_images import images
from suffuse.cli.evaluate_likelihood import likelihood
from suffuse.cli.evaluate_probe import probe, robustness
from suffuse.cli.evaluate_reconstruction import reconstruction
from suffuse.cli.evaluate_upscale import upscale
from suffuse.cli.evaluate_variations import variations
from suffuse.cli.report import AsJson, Overwrite, ReportCommand, check_new, tell
from suffuse.errors import SuffuseError

if TYPE_CHECKING:
    from PIL.Image import Image

    from suffuse.evaluation.prompts import Prompt, PromptScores, Verdict

app = typer.Typer(no_args_is_help=True, help="Measure models and pictures.")


@app.callback()
def _evaluate() -> None:
    """Measure models and pictures."""


@app.command(cls=ReportCommand)
def prompts(
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Folder, file or Hub name; else the bundled."),
    ] = None,
    n: Annotated[int, typer.Option("--n", "-n", help="How many prompts.")] = 200,
    lang: Annotated[str, typer.Option(help="en, ko or both.")] = "both",
    seed: Annotated[int, typer.Option(help="Prompt i uses seed + i.")] = 0,
    objects: Annotated[
        int | None, typer.Option(help="Emoji in its world, where the model does not say.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    guidance: Annotated[float | None, typer.Option(help="How closely to follow.")] = None,
    sampler: Annotated[str | None, typer.Option(help="The sampler's name.")] = None,
    best_of: Annotated[
        int | None, typer.Option(help="Draw so many for each, and score the one CLIP keeps.")
    ] = None,
    clip: Annotated[str | None, typer.Option(help="That CLIP; else the bundled.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda …")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, float16 or bfloat16.")] = "auto",
    keep: Annotated[Path | None, typer.Option(help="Folder to keep the pictures in.")] = None,
    as_json: AsJson = None,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Score pictures of emoji scenes that were never trained on.

    A matcher that knows all sprites looks for what was asked: things, relation, background.
    """
    from suffuse.cli.output import Destination
    from suffuse.systems.request import Request

    if lang not in ("en", "ko", "both"):
        raise SuffuseError(f"lang must be en, ko or both, not {lang!r}")
    Request("any", steps=steps, guidance=guidance, sampler=sampler, seed=seed, n=n).check()
    Request("any", best_of=best_of)
    if clip is not None and best_of is None:
        raise SuffuseError("--clip judges the pictures of --best-of: say how many to draw")
    check_new(as_json, overwrite)
    kept = None if keep is None else Destination(keep, n, overwrite=False)
    if kept is not None:
        kept.prepare()

    from suffuse.data.emoji import World
    from suffuse.evaluation.prompts import BestOf, evaluate, held_out_prompts
    from suffuse.systems.latent import load

    languages = ("en", "ko") if lang == "both" else (lang,)
    scores: dict[str, PromptScores] = {}
    with Bar() as bar:
        system = load(model, device=device, dtype=dtype)
        drawing = system if best_of is None else BestOf(system, best_of, clip, device)
        objects = objects or system.parts.defaults.objects
        world = World() if objects is None else World(objects=objects)
        held_out_prompts(world, n, languages[0])  # refuses a number that the world has not
        for done, language in enumerate(languages):

            def show(i: int, verdict: Verdict, done: int = done, language: str = language) -> None:
                bar.step(f"prompts in {language}", done * n + i + 1, len(languages) * n)

            def save(i: int, prompt: Prompt, picture: Image) -> None:
                if kept is not None:
                    kept.save(picture, kept.next(seed + i, prompt.text))

            scores[language] = evaluate(
                drawing, world, n, language, seed, steps, guidance, sampler, show, save
            )
    answer = {"model": system.info.name, "n": n, "seed": seed, "objects": world.objects}
    if best_of is not None:
        answer |= {"best_of": best_of}
    _tell(answer, scores, as_json)


def _tell(answer: dict[str, Any], scores: dict[str, PromptScores], as_json: str | None) -> None:
    shown, values = dict(answer), dict(answer)
    for language, found in scores.items():
        shares = {f.name: getattr(found, f.name) for f in fields(found) if f.name != "verdicts"}
        values[language] = {**shares, "verdicts": [_verdict(v) for v in found.verdicts]}
        shown[language] = {
            name.removesuffix("_accuracy"): "none asked" if math.isnan(x) else f"{x:.1%}"
            for name, x in shares.items()
        }
    tell(shown, values, as_json)


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "prompt": verdict.prompt.text,
        "things_right": verdict.things_right,
        "relation_right": verdict.relation_right,
        "background": verdict.background,
        "background_right": verdict.background_right,
    }


app.command(cls=ReportCommand)(images)
app.command(cls=ReportCommand)(likelihood)
app.command(cls=ReportCommand)(reconstruction)
app.command(cls=ReportCommand)(upscale)
app.command(cls=ReportCommand)(variations)
app.command("zero-shot", cls=ReportCommand)(zero_shot)
app.command(cls=ReportCommand)(retrieval)
app.command(cls=ReportCommand)(probe)
app.command(cls=ReportCommand)(robustness)
