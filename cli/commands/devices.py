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
    found = {name: registry.found_devices(name) if reason is None else [] for name, reason in reasons.items()}
    extensions = {name: registry.device_extensions(name) for name in reasons}
    default = registry.get_device()
    if as_json:
        print_json(
            [
                {
                    "name": name,
                    "available": reason is None,
                    "reason": reason,
                    "default": name == default,
                    "found": found[name],
                    "extensions": [
                        {"name": extension, "present": there, "use": use}
                        for extension, there, use in extensions[name]
                    ],
                }
                for name, reason in reasons.items()
            ]
        )
        return
    rows = []
    for name, reason in reasons.items():
        title = name + (" (default)" if name == default else "")
        rows.append((title, "yes" if reason is None else "no", reason or ", ".join(found[name][:1])))
        rows += [("", "", other) for other in found[name][1:]]
        for extension, there, use in extensions[name]:
            rows.append(("", "", f"{extension}: {use if there else 'not there'}"))
    click.echo(table(rows, ("device", "usable", "which, or why not")))
