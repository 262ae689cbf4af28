"""`tinyinfer explain`: the stages of the compiler for one model, as text."""

from __future__ import annotations

import fnmatch
import re

import click

from cli.errors import BadInput, reports_errors
from cli.options import SessionChoice, json_option, session_options, verbose_option
from cli.report import print_json


@click.command("explain")
@session_options
@click.option("--list", "list_stages", is_flag=True, help="Only name the stages.")
@click.option("--stage", "stages", multiple=True, metavar="NAME", help="Only this stage (repeatable).")
@click.option("--kernel", "pattern", metavar="PATTERN", help="Only parts with a word that matches (* and ?).")
@json_option
@verbose_option
@reports_errors
def command(
    choice: SessionChoice,
    list_stages: bool,
    stages: tuple[str, ...],
    pattern: str | None,
    as_json: bool,
    verbose: int,
) -> None:
    """Show what the compiler makes of a model, stage by stage."""
    texts = choice.open().compile(choice.input_shapes).stages()
    if list_stages:
        if as_json:
            print_json(list(texts))
        else:
            click.echo("\n".join(f"{name}  ({len(text.splitlines())} lines)" for name, text in texts.items()))
        return
    if stages:
        unknown = [name for name in stages if name not in texts]
        if unknown:
            raise BadInput(f"--stage {unknown[0]}: no such stage; there are {', '.join(texts)}")
        texts = {name: text for name, text in texts.items() if name in stages}
    if pattern is not None:
        texts = {name: kept for name, text in texts.items() if (kept := _matching(text, pattern))}
        if not texts:
            raise BadInput(f"--kernel {pattern}: nothing matches")
    if as_json:
        print_json(texts)
        return
    for name, text in texts.items():
        click.echo(f"==== {name}\n{text}")


def _matching(text: str, pattern: str) -> str:
    """The blocks of `text` with a word that matches; blank lines part blocks, else every line is one."""
    wanted = re.compile(fnmatch.translate(pattern))
    parted = "\n\n" in text.strip()
    blocks = re.split(r"\n\s*\n", text) if parted else text.splitlines()
    words = re.compile(r"[^\s,;:()\[\]{}@\"']+")
    kept = [block for block in blocks if any(map(wanted.match, words.findall(block)))]
    return ("\n\n" if parted else "\n").join(kept)
