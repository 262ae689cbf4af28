"""`tinyinfer cache`: the cache of compiled kernels on disk."""

from __future__ import annotations

from typing import Any

import click

from cli.errors import reports_errors
from cli.options import json_option, verbose_option
from cli.report import bytes_text, print_json


def _cache() -> Any:
    from tinyinfer.backends.cpu.cache import KernelCache
    from tinyinfer.config import cache_directory

    return KernelCache(cache_directory())


@click.group("cache")
def command() -> None:
    """Show or clear the cache of compiled kernels."""


@command.command("info")
@json_option
@verbose_option
@reports_errors
def info(as_json: bool, verbose: int) -> None:
    """Where the cache is and how much it holds."""
    found = _cache().info()
    if as_json:
        print_json({"directory": str(found.directory), "entries": found.entries, "bytes": found.bytes})
        return
    click.echo(f"{found.directory}: {found.entries} kernels, {bytes_text(found.bytes)}")


@command.command("clear")
@json_option
@verbose_option
@reports_errors
def clear(as_json: bool, verbose: int) -> None:
    """Remove every compiled kernel from the cache."""
    cache = _cache()
    before = cache.info()
    cache.clear()
    after = cache.info()
    removed = {"entries": before.entries - after.entries, "bytes": before.bytes - after.bytes}
    if as_json:
        print_json({"directory": str(before.directory), "removed": removed})
        return
    click.echo(f"{before.directory}: removed {removed['entries']} kernels, {bytes_text(removed['bytes'])}")
