"""Entry point: builds the parser, runs one command, maps errors to exit codes.

Exit codes: 0 done, 1 a defect in this package, 2 wrong usage or an error with a way out,
130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Final

from he_infer.errors import HEInferError
from he_infer.version import __version__

# Packages above this one add commands here, so that nothing below has to import them.
COMMANDS_GROUP: Final = "he_infer.commands"


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command, those of installed packages included; ``run`` is its function.

    Nothing is read, written or run, and neither torch nor a web framework is imported, so that
    a reference of the command line can be generated from it.
    """
    from he_infer.cli import machine, modelling, querying, serving

    parser = argparse.ArgumentParser(
        prog="he-infer",
        description="Compile a PyTorch model into a service that answers encrypted queries.",
    )
    parser.add_argument("--version", action="version", version=f"he-infer {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    modelling.add_commands(commands)
    serving.add_commands(commands)
    querying.add_commands(commands)
    machine.add_commands(commands)
    for plugin in entry_points(group=COMMANDS_GROUP):
        plugin.load()(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code: int = options.run(options)
        sys.stdout.flush()
        return code
    except HEInferError as error:
        print(f"he-infer: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader went away, as `head` does. Python would complain again on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        named = error.filename is not None
        print(
            f"he-infer: error: {error.strerror or error}{f': {error.filename}' if named else ''}",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("he-infer: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: str | None = None,
) -> None:
    """Warnings as one line each: where in the library they arose helps no user of a command."""
    print(f"he-infer: warning: {message}", file=sys.stderr)


def entry() -> None:
    sys.exit(main())


if __name__ == "__main__":
    entry()
