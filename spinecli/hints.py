"""Hints that name options, fitted to the command that shows them.

Engines serve several commands: what one of them would take, as ``--force``, another
does not have. A clause of a hint that names an option which the command lacks is left
out; what is in quotes, as ``'spine convert --regrid'``, is another command's.
"""

import re
from collections.abc import Collection
from dataclasses import replace
from functools import cache
from typing import Any

from engines.results import CaseResult, Problem

_QUOTED = re.compile(r"'[^']*'")
_OPTION = re.compile(r"(?<![\w-])--?[a-z][\w-]*")
_CLAUSE = re.compile(r"(,? or (?=[a-z])|; |, (?=[a-z]))")


def fitting(hint: str, known: Collection[str]) -> str:
    """Return a hint without the clauses that name an option not in ``known``."""
    sentences = re.split(r"(?<=[.!?]) ", hint)
    if all(_fits(sentence, known) for sentence in sentences):
        return hint
    return " ".join(filter(None, (_fitted(one, known) for one in sentences)))


def for_command(problem: Problem, command: str) -> Problem:
    """Return a problem whose hint names options of ``command`` alone."""
    return replace(problem, hint=fitting(problem.hint, options_of(command)))


def of_case(result: CaseResult, command: str) -> CaseResult:
    """Return a case whose hint names options of ``command`` alone."""
    if result.error is None or not result.error.hint:
        return result
    return replace(result, error=for_command(result.error, command))


@cache
def options_of(command: str) -> frozenset[str]:
    """Return the options of a command, as ``engine build``; all if there is none."""
    import typer

    from spinecli.app import app

    found: Any = typer.main.get_command(app)
    for word in command.split():
        found = getattr(found, "commands", {}).get(word, found)
    names = [name for parameter in found.params for name in parameter.opts]
    return frozenset([*names, "--help"])


def _fits(words: str, known: Collection[str]) -> bool:
    return all(name in known for name in _OPTION.findall(_QUOTED.sub("", words)))


def _fitted(sentence: str, known: Collection[str]) -> str:
    first, *rest = _CLAUSE.split(sentence.rstrip("."))
    clauses = [("", first), *zip(rest[::2], rest[1::2], strict=True)]
    kept = [(joint, words) for joint, words in clauses if _fits(words, known)]
    if not kept:
        return ""
    text = kept[0][1] + "".join(joint + words for joint, words in kept[1:])
    return text[0].upper() + text[1:] + "."
