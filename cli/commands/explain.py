"""`tinyinfer explain`: the stages of the compiler for one model, as text."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from typing import Any

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
    """Show what the compiler makes of a model, stage by stage.

    Stages: graph (as imported), optimized (after the rewrites), and those of the device. A model that
    functions of the host cut has a stage segments, which lists them; the others show the first one.
    """
    from tinyinfer.ir.passes import optimize
    from tinyinfer.ir.text import print_graph

    session = choice.open()
    graph = session.graph(choice.input_shapes)
    device = session.compile(choice.input_shapes).stages()
    segments = _segments(choice)
    names = [*(["segments"] if segments else []), "graph", "optimized", *device]
    unknown = [name for name in stages if name not in names]
    if unknown:
        raise BadInput(f"--stage {unknown[0]}: no such stage; there are {', '.join(names)}")
    texts: dict[str, str] = {}
    for name in stages or names:
        if name == "segments":
            texts[name] = segments
        elif name == "graph":
            texts[name] = print_graph(graph)
        elif name == "optimized":
            texts[name] = print_graph(optimize(graph))
        else:
            texts[name] = device[name]
    if list_stages:
        if as_json:
            print_json(list(texts))
        else:
            click.echo("\n".join(f"{name}  ({len(text.splitlines())} lines)" for name, text in texts.items()))
        return
    if pattern is not None:
        wanted = re.compile(fnmatch.translate(pattern)).match
        named = {name for text in texts.values() for name in _KERNEL.findall(_matching(text, wanted))}
        texts = {
            name: kept
            for name, text in texts.items()
            if (kept := _matching(text, lambda word: word in named or wanted(word)))
        }
        if not texts:
            raise BadInput(f"--kernel {pattern}: nothing matches")
    if as_json:
        print_json(texts)
        return
    for name, text in texts.items():
        click.echo(f"==== {name}\n{text}")


def _segments(choice: SessionChoice) -> str:
    """Where the model is cut, a line each; "" where it is not."""
    from tinyinfer.runtime.check import check_model

    found = check_model(choice.model, choice.input_shapes, "CPU").segments or []
    if len(found) < 2:
        return ""
    return "\n".join(
        f"{number}{' (in a body)' if s.body else ''}: {s.launches} launches, then {s.action}"
        + (f" {s.node}" if s.node else "")
        for number, s in enumerate(found)
    )


_KERNEL = re.compile(r"^; kernel ([^\s,]+)", re.MULTILINE)
_WORD = re.compile(r"[^\s,;:()\[\]{}@\"']+")


def _matching(text: str, wanted: Callable[[str], Any]) -> str:
    """The blocks of `text` with a wanted word; blank lines part blocks, else every line is one."""
    parted = "\n\n" in text.strip()
    blocks = re.split(r"\n\s*\n", text) if parted else text.splitlines()
    kept = [block for block in blocks if any(map(wanted, _WORD.findall(block)))]
    return ("\n\n" if parted else "\n").join(kept)
