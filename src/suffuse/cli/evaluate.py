"""`suffuse evaluate`: scores of a model, printed as a table or as JSON."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, help="Measure a model.")
