"""The command line. Commands import what they need when they run, so that help is quick."""

from __future__ import annotations

import sys
import warnings


def main() -> None:
    """Run `suffuse`; every failure is one line on standard error and an exit status.

    0 done, 1 a fault of ours, 2 something the user can mend, 130 stopped by Ctrl-C.
    """
    try:
        sys.exit(_run())
    except KeyboardInterrupt:  # while still starting, or a second time while stopping
        sys.exit(130)


def _run() -> int:
    from suffuse.cli import console
    from suffuse.cli.app import app
    from suffuse.errors import SuffuseError

    console.tolerate_any_text()
    warnings.showwarning = lambda message, *rest: console.warn(str(message))
    try:
        app(prog_name="suffuse")
    except SuffuseError as error:
        console.fail(str(error), error)
        return 2
    except console.Stopped as stopped:
        console.warn(str(stopped))
        return 130
    except Exception as error:
        console.fail(
            f"internal error, {type(error).__name__}: {error} (--debug shows where)", error
        )
        return 1
    return 0
