"""The click application `tinyinfer`: which commands there are. A command's module is loaded when it is
called.
"""

from __future__ import annotations

import importlib

import click

from cli.errors import OneLineErrors

_COMMANDS = {
    "run": "Run a model once and summarise its outputs.",
    "compile": "Compile a model to a bundle: one file that runs without the model or a compiler.",
    "verify": "Replay a bundle's golden vectors on this machine.",
    "inspect": "Show what a model or a bundle holds.",
    "check": "Say whether a model can run, what keeps it from it, and what it takes.",
    "explain": "Show what the compiler makes of a model, stage by stage.",
    "compare": "Compare a device's outputs with the oracle and with onnxruntime.",
    "bench": "Measure session creation, first run and steady state.",
    "devices": "List the devices and what this machine has of them.",
    "cache": "Show or clear the cache of compiled kernels.",
}


class Commands(OneLineErrors):
    """Loads `cli.commands.NAME` for command NAME."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        return importlib.import_module(f"cli.commands.{cmd_name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


def _version(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        from tinyinfer import __version__

        click.echo(f"tinyinfer {__version__}")
        ctx.exit()


@click.group("tinyinfer", cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version."
)
def main() -> None:
    """ONNX models, compiled to native code and run.

    Exit codes: 0 good, 1 a check failed, 2 wrong usage or bad input.
    """
