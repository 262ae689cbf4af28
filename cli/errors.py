"""What the user sees when something is wrong: `tinyinfer: error: …` on standard error and exit code 2."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import click

BAD_INPUT = 2
INTERRUPTED = 130


class BadInput(click.ClickException):
    """The command line or a file that it names is not usable; the message is the line that the user reads."""

    exit_code = BAD_INPUT


def user_errors() -> tuple[type[BaseException], ...]:
    """The exceptions that say that the input is at fault; all others are defects and keep their traceback."""
    from tinyinfer.errors import TinyInferError

    return (TinyInferError, OSError, MemoryError)


def reports_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a command: errors of the input become BadInput, with their traceback at `-v -v`."""

    @wraps(function)
    def wrapped(*args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except BrokenPipeError:
            raise
        except user_errors() as error:
            if options.get("verbose", 0) >= 2:
                traceback.print_exc()
            raise BadInput(_message(error)) from error

    return wrapped


def _message(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return f"not enough memory: {error}" if str(error) else "not enough memory"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


class OneLineErrors(click.Group):
    """A group whose usage errors and bad inputs are one line each, with exit code 2."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            sys.stdout.flush()
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            code = BAD_INPUT
        except click.ClickException as error:
            click.echo(f"tinyinfer: error: {error.format_message()}", err=True)
            code = BAD_INPUT
        except (click.Abort, KeyboardInterrupt):
            click.echo("tinyinfer: interrupted", err=True)
            code = INTERRUPTED
        except BrokenPipeError:
            # the reader of our output has gone; say nothing, also when Python flushes at exit
            sys.stdout = None  # type: ignore[assignment]
            code = 1
        sys.exit(code if isinstance(code, int) else 0)
