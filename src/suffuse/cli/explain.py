"""`suffuse explain`: one picture, and a page about how it came about."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from suffuse.cli.console import Bar, Debug, Stopped, say
from suffuse.cli.report import Overwrite, check_new, write
from suffuse.errors import SuffuseError

if TYPE_CHECKING:
    from suffuse.systems.explain import Explanation
    from suffuse.systems.request import Request

_START, _RUN = "Start from a picture", "Model and machine"
# Of a resolved request, in the report's table.
_FACTS = ("prompt", "negative", "sampler", "grid", "steps", "guidance", "seed", "width", "height")


def explain(
    ctx: typer.Context,
    prompt: Annotated[
        str, typer.Argument(help="What to draw: words, or a class.", metavar="PROMPT")
    ] = "",
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
    seed: Annotated[int | None, typer.Option(help="-1 or none = random.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    rescale: Annotated[float | None, typer.Option(help="Guidance rescale, 0 to 1.")] = None,
    eta: Annotated[float | None, typer.Option(help="Fresh noise at each step, 0 to 1.")] = None,
    guidance_interval: Annotated[
        str | None, typer.Option(help="LOW,HIGH: noise between which guidance acts.")
    ] = None,
    clip_skip: Annotated[
        int | None, typer.Option(help="Last layers of the text encoder to leave out.")
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
    output: Annotated[Path, typer.Option("--output", "-o", help="FILE.html.")] = Path(
        "report.html"
    ),
    overwrite: Overwrite = False,
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
        str, typer.Option(help="auto, float32, float16 or bfloat16.", rich_help_panel=_RUN)
    ] = "auto",
    debug: Debug = False,
) -> None:
    """Make a picture, and a page that shows how: which words went where, and every step.

    For example: suffuse explain "a dog left of a cat" --output report.html
    """
    from suffuse.cli.generate import check_unasked

    request = _request(ctx.params)
    if output.suffix.lower() not in (".html", ".htm"):
        raise SuffuseError(f"the report is a web page: name '{output}' something.html")
    check_new(output, overwrite)
    if not request.prompt.strip():
        check_unasked(model, False, "explain")
    request.check()
    with Bar() as bar:
        try:
            found, about = _made(request, model, device, dtype, bar)
        except KeyboardInterrupt:
            raise Stopped("stopped; no report was written") from None
    write(output, page(found, about))
    say(f"{output}  seed {about['seed']}")


def _request(flags: dict[str, Any]) -> Request:
    from suffuse.systems.request import Request

    names = [field.name for field in fields(Request) if field.name in flags]
    said = {name: flags[name] for name in names if flags[name] not in (None, [], ())}
    said |= {name: str(said[name]) for name in ("image", "mask") if name in said}
    return Request(**said)


def _made(
    request: Request, model: str | None, device: str, dtype: str, bar: Bar
) -> tuple[Explanation, dict[str, Any]]:
    """The explanation, and what the report's table says."""
    import suffuse
    from suffuse.systems.explain import recording

    system = suffuse.load(
        model,
        device=device,
        dtype=dtype,
        loras=request.loras or (),
        embeddings=request.embeddings or (),
    )
    with recording(system, request) as picture:
        for step in picture.steps():
            bar.step("picture", step.i + 1, step.steps)
    ran = picture.request
    about = {name: getattr(ran, name) for name in _FACTS}
    about |= {"model": system.info.name, "suffuse": suffuse.__version__}
    return picture.explanation(), about


def page(found: Explanation, about: dict[str, Any]) -> str:
    """The report: one file of HTML that asks the network for nothing."""
    from importlib.resources import files

    from suffuse.systems.explain import SPECIAL

    specials = sum(word.text in SPECIAL for word in found.words)
    told = {**found.to_json(), "about": about, "specials": specials}
    # No text of the prompt can end the element that holds it.
    data = json.dumps(told, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    empty = files("suffuse.cli").joinpath("explain.html").read_text(encoding="utf-8")
    return empty.replace(">DATA<", f">{data}<", 1)
