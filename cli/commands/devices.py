"""`tinyinfer devices`: the devices of this version, and whether this machine has them."""

from __future__ import annotations

import click

from cli.errors import reports_errors
from cli.options import json_option, verbose_option
from cli.report import print_json, table


@click.command("devices")
@json_option
@verbose_option
@reports_errors
def command(as_json: bool, verbose: int) -> None:
    """List the devices and what this machine has of them."""
    from tinyinfer.backends import registry

    reasons = {name: registry.unavailable_reason(name) for name in registry.device_names()}
    default = registry.get_device()
    if as_json:
        print_json(
            [
                {"name": name, "available": reason is None, "reason": reason, "default": name == default}
                for name, reason in reasons.items()
            ]
        )
        return
    rows = [
        (name + (" (default)" if name == default else ""), "yes" if reason is None else "no", reason or "")
        for name, reason in reasons.items()
    ]
    click.echo(table(rows, ("device", "usable", "why not")))
