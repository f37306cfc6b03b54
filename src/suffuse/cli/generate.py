"""`suffuse generate`: the flags are the fields of `Request`, by the same names."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from suffuse.cli.console import Bar, Debug, Stopped
from suffuse.errors import SuffuseError

if TYPE_CHECKING:
    from suffuse.systems.metadata import Origin
    from suffuse.systems.request import Request

_START, _OUT, _RUN = "Start from a picture", "Output", "Model and machine"


def generate(
    ctx: typer.Context,
    prompt: Annotated[
        str | None,
        typer.Argument(
            help="What to draw: words, or a class.", metavar="PROMPT", show_default=False
        ),
    ] = None,
    negative: Annotated[str | None, typer.Option(help="What to keep out.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="How closely to follow PROMPT; 1 = freely.")
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="euler_a, ddim …; a wrong name lists all.")
    ] = None,
    grid: Annotated[
        str | None, typer.Option(help="trailing, karras …; a wrong name lists all.")
    ] = None,
    respacing: Annotated[
        str | None,
        typer.Option(help="250, ddim25 or 10,15,20: guided-diffusion's way to name the steps."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Picture i uses seed + i; -1 or none = random.")
    ] = None,
    n: Annotated[int | None, typer.Option("--n", "-n", help="How many pictures.")] = None,
    best_of: Annotated[
        int | None,
        typer.Option(help="Draw so many, and keep the --n nearest to PROMPT by CLIP."),
    ] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    rescale: Annotated[float | None, typer.Option(help="Guidance rescale, 0 to 1.")] = None,
    eta: Annotated[float | None, typer.Option(help="Fresh noise at each step, 0 to 1.")] = None,
    guidance_interval: Annotated[
        str | None,
        typer.Option(help="LOW,HIGH: noise (sigma/alpha) between which guidance acts; else all."),
    ] = None,
    classifier: Annotated[
        str | None,
        typer.Option(help="FILE or folder of a classifier that guides as well, to PROMPT's class."),
    ] = None,
    classifier_scale: Annotated[
        float | None, typer.Option(help="Of its gradient, 0 or more; 1 unless said.")
    ] = None,
    clip_skip: Annotated[
        int | None, typer.Option(help="Last layers of the text encoder to leave out.")
    ] = None,
    from_file: Annotated[
        Path | None, typer.Option(help="Prompts, one a line; # lines are skipped.")
    ] = None,
    like: Annotated[
        Path | None, typer.Option(help="Repeat a picture; other flags change it.")
    ] = None,
    image: Annotated[
        Path | None, typer.Option(help="Start from this picture.", rich_help_panel=_START)
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(help="Repaint only where this is white.", rich_help_panel=_START),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(help="How far to change it, 0 to 1; 0.8 unless said.", rich_help_panel=_START),
    ] = None,
    boxes: Annotated[
        list[str] | None,
        typer.Option(
            "--box", help="LABEL:X0,Y0,X1,Y1, sides from 0 to 1; may be repeated.", metavar="BOX"
        ),
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
    film: Annotated[
        Path | None, typer.Option(help="Write the denoising as a strip.", rich_help_panel=_OUT)
    ] = None,
    preview: Annotated[
        int | None,
        typer.Option(help="Write a preview every so many steps.", rich_help_panel=_OUT),
    ] = None,
    clip: Annotated[
        str | None,
        typer.Option(help="The CLIP of --best-of; else the bundled.", rich_help_panel=_RUN),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Folder, file or Hub name; else the bundled.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    loras: Annotated[
        list[str] | None,
        typer.Option("--lora", help="FILE or FILE:SCALE; may be repeated.", rich_help_panel=_RUN),
    ] = None,
    embeddings: Annotated[
        list[str] | None,
        typer.Option(
            "--embedding", help="FILE of a learned word; may be repeated.", rich_help_panel=_RUN
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda …", rich_help_panel=_RUN)] = "auto",
    dtype: Annotated[
        str | None,
        typer.Option(help="auto, float32, float16 or bfloat16.", rich_help_panel=_RUN),
    ] = None,
    debug: Debug = False,
) -> None:
    """Make pictures from words. What is not said is left to the model.

    For example: suffuse generate "a red apple on a blue background"
    """
    from suffuse.cli.drawing import Run
    from suffuse.cli.output import Destination

    if preview is not None and preview < 1:
        raise SuffuseError(f"preview must be at least 1, not {preview}")
    requests, origin = _requests(ctx.params)
    if requests[0].best_of is None and clip is not None:
        raise SuffuseError("--clip judges the pictures of --best-of: say how many to draw")
    if requests[0].best_of is not None and preview is not None:
        raise SuffuseError("a preview is of a picture to be kept: leave --preview or --best-of out")
    requests[0].check()  # the others differ from it by their prompts alone
    count = sum(request.n for request in requests)
    out = Destination(output, count, overwrite)
    strips = None if film is None else Destination(film, count, overwrite)
    if strips is not None and strips.shares_names_with(out):
        raise SuffuseError(f"the film and the picture would both be '{film}': name them apart")
    for place in (out, strips):
        if place is not None:
            place.prepare()
    if origin is not None:
        if model is None and origin.source is not None and not _exists(origin.source):
            raise SuffuseError(f"'{like}' was made by '{origin.source}': name it with --model")
        model, dtype = model or origin.source, dtype or origin.dtype
    with Bar() as bar:
        run = Run(out, strips, preview, bar)
        try:
            run(requests, model, device, dtype or "auto", origin, clip)
        except KeyboardInterrupt:
            kept = ", ".join(map(str, run.kept)) or "no picture was finished"
            raise Stopped(f"stopped; {'kept ' if run.kept else ''}{kept}") from None


def _exists(source: str) -> bool:
    """Whether the source of a model is there, or a Hub name, which is looked up when it loads."""
    from suffuse.weights.hub import is_hub_name

    return Path(source).exists() or is_hub_name(source)


def _requests(flags: dict[str, Any]) -> tuple[list[Request], Origin | None]:
    """The requests that the flags ask for and, with --like, the model the picture came from."""
    from suffuse.systems.metadata import read_parameters
    from suffuse.systems.request import Request

    names = [field.name for field in fields(Request)]
    said = {name: flags[name] for name in names if flags[name] not in (None, [], ())}
    said |= {name: str(said[name]) for name in ("image", "mask") if name in said}
    if flags["from_file"] is not None:
        if "prompt" in said or flags["like"] is not None:
            raise SuffuseError("--from-file brings the prompts: give no PROMPT and no --like")
        return [Request(**{**said, "prompt": line}) for line in _lines(flags["from_file"])], None
    if flags["like"] is not None:
        found = read_parameters(flags["like"])
        return [found.to_request(said)], found.origin
    asked = Request(**said)
    if not asked.prompt.strip():
        check_unasked(flags["model"], "prompt" in said, "generate")
    return [asked], None


def check_unasked(model: str | None, said: bool, command: str) -> None:
    """Refuses an empty prompt, or one that was not `said`, for models that need one."""
    from suffuse.systems.registry import draws_unasked

    if not draws_unasked(model):
        if said:
            raise SuffuseError("the prompt is empty: say in a few words what to draw")
        raise SuffuseError(f'say what to draw: suffuse {command} "a red apple"')


def _lines(path: Path) -> list[str]:
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise SuffuseError(f"'{path}' is not text in UTF-8") from None
    except OSError as error:
        raise SuffuseError(f"cannot read '{path}': {error.strerror}") from None
    lines = [line.strip() for line in text.splitlines()]
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise SuffuseError(f"'{path}' has no prompts: write one a line")
    return found
