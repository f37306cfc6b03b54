"""The commands of `suffuse` and how they hang together."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import suffuse
from suffuse.cli import (
    console,
    data,
    evaluate,
    explain,
    finetune,
    generate,
    inspect,
    manipulate,
    search,
    studio,
    train,
    train_ar_prior,
    train_clip,
    train_pixel,
    upscale,
)
from suffuse.cli.report import ReportCommand


class Group(TyperGroup):
    """Turns Ctrl-C into our own exception before typer, whose exit status for it has varied."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise console.Stopped("stopped") from None


app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Make pictures from words, train the models that do, and measure them.",
)


def _version(asked: bool) -> None:
    if asked:
        console.say(f"suffuse {suffuse.__version__}")
        raise typer.Exit


@app.callback()
def _suffuse(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    pass


app.command("generate")(generate.generate)
app.command("explain")(explain.explain)
app.command("vary")(manipulate.vary)
app.command("blend")(manipulate.blend)
app.command("edit")(manipulate.edit)
app.command("upscale")(upscale.upscale)
app.command("search", cls=ReportCommand)(search.search)
app.command("inspect")(inspect.inspect)
app.command("studio")(studio.studio)
app.add_typer(data.app, name="data")
train.app.command("ddpm")(train_pixel.ddpm)
train.app.command("score-sde")(train_pixel.score_sde)
train.app.command("adm")(train_pixel.adm)
train.app.command("classifier")(train_pixel.classifier)
train.app.command("sr3")(train_pixel.sr3)
train.app.command("clip")(train_clip.clip)
train.app.command("prior")(train_clip.prior)
train.app.command("decoder")(train_clip.decoder)
train.app.command("ar-prior")(train_ar_prior.ar_prior)
train.app.command("finetune")(finetune.finetune)
app.add_typer(train.app, name="train")
app.add_typer(evaluate.app, name="evaluate")
