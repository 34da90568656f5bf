"""Write the man pages from the app itself: ``python -m spinecli.manpages man/``.

The pages name no date and no version, so that they change only with the commands.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from engines.files import write_text
from spinecli.app import app
from spinecli.examples import EXAMPLES
from spinecli.status import MEANINGS

PROGRAM = "spine"
JSON_KEYS = "command, version, status, exit_status, warnings, error"

ENVIRONMENT = {
    "SPINE_MODELS": "Folders of model files, separated as in PATH. They are searched "
    "before the models that come with the program.",
    "SPINE_CACHE": "Folder that engines and verdicts on backends are kept in. Without "
    "it, the folder spine in XDG_CACHE_HOME, or in the user's folder for caches.",
    "NO_COLOR": "If set, text has no colours.",
    "CI": "If set, output is plain text as in a pipe, without a progress bar.",
}
_ENGINES = {
    "engine",
    *(f"engine-{word}" for word in ("build", "list", "inspect", "tune", "clear")),
}
USED_BY = {
    "SPINE_MODELS": {
        PROGRAM,
        "segment",
        "train",
        "study",
        "prune",
        "evaluate",
        "models",
        "doctor",
        "engine-build",
        "bench",
    },
    "SPINE_CACHE": {PROGRAM, "segment", "bench", "doctor", *_ENGINES},
}
"""Variable -> the pages that tell of it; the others are told of everywhere."""

FILES = {
    PROGRAM: {
        "NAME.safetensors": "A model: the weights of a network and all that is needed "
        "to use them, in one file."
    },
    "segment": {
        "OUT/NAME/NAME_seg-spine_msk.nii.gz": "The mask, on the grid of the scan.",
        "OUT/NAME/NAME_preview.png": "Views of the scan with the mask.",
        "OUT/spine-run.json": "The run: settings, model, and the record of each case.",
        "OUT/spine-run.csv": "The cases as a table.",
        "OUT/index.html": "A page to look through the results.",
    },
    "evaluate": {
        "OUT/evaluation.csv": "The scores, one row per case and label.",
        "OUT/evaluation.json": "The scores with those of the cohort.",
        "OUT/index.html": "The scores as a page, with pictures of the worst cases.",
        "OUT/robustness.csv": "With --robustness: one row per alteration.",
        "OUT/robustness.json": "The same, and what each scan lost.",
    },
    "bench": {
        "OUT/bench.json": "Everything that was measured, with the machine.",
        "OUT/bench.png": "The network by backend, and the stages, as charts.",
    },
    "models": {
        "NAME.page/failures.toml": "Beside a model file NAME.safetensors: where it "
        "fails, a picture and a sentence each, for its page.",
        "NAME.page/robustness.csv": "A table of 'spine evaluate --robustness', for "
        "its page.",
    },
    "engine-build": {
        "SPINE_CACHE/NAME.engine": "The engine, as its library wrote it.",
        "SPINE_CACHE/NAME.json": "What it was made of and with, its layers and its "
        "SHA-256.",
    },
    "engine-tune": {
        "SPINE_CACHE/tuned/NAME.json": "The order that is pinned, with what was "
        "measured.",
        "SPINE_CACHE/verdicts/NAME.json": "What the parity gate said of a backend.",
    },
    "prune": {
        "NAME.safetensors": "The pruned model; it rebuilds itself from this file.",
        "NAME-plan.json": "With --dry-run: which channels would leave, by group.",
        "NAME-pruning/report.html": "What was lost and won, with both pictures.",
        "NAME-pruning/report.png": "Dice against weights, operations, size and time.",
        "NAME-pruning/layers.png": "Per layer: scores of filters, and what is left.",
        "NAME-pruning/report.csv": "One row per network.",
        "NAME-pruning/CRITERION-SEED/round-K": "Plan, network and fine-tuning of a "
        "round.",
    },
    "study": {
        "STUDY": "A grid of trainings. Those in engines/train/studies reprint tables "
        "of papers and can be given by name.",
        "OUT/runs/NAME": "A training: its model, learning curve and result.json.",
        "OUT/study.md": "The table: means over seeds, beside published figures.",
        "OUT/study.csv": "One row per configuration, seed and metric.",
        "OUT/study.json": "The table with all that is known of each training.",
        "OUT/index.html": "The table, sortable, with the learning curves.",
    },
}


def pages() -> dict[str, str]:
    """Return file name -> roff text of all man pages."""
    group: Any = typer.main.get_command(app)
    return dict(_pages(PROGRAM, group))


def _pages(title: str, command: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401
    """Yield the page of a command and those of the commands below it."""
    below: dict[str, Any] = dict(sorted(getattr(command, "commands", {}).items()))
    name = f"{title}.1"
    yield name, _group_page(title, command, below) if below else _page(title, command)
    for word, inner in below.items():
        yield from _pages(f"{title}-{word}", inner)


def write(folder: Path) -> None:
    """Write the pages to ``folder`` and remove those of commands that are gone."""
    made = pages()
    for path in folder.glob(f"{PROGRAM}*.1"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        write_text(folder / name, text)


def _group_page(title: str, group: Any, commands: dict[str, Any]) -> str:  # noqa: ANN401
    lines = [*_head(title, group.help)]
    lines += [".SH SYNOPSIS", rf".B {_words(title)}", r"[OPTIONS] COMMAND [ARGS]..."]
    lines += [".SH DESCRIPTION", *_paragraphs(group.help)]
    lines += [".SH COMMANDS"]
    for name, command in commands.items():
        lines += [".TP", rf".BR {_text(f'{title}-{name}')} (1)"]
        lines += [_text(_first_sentence(command.help))]
    lines += [*_parameters(group), *_tail(title)]
    lines += [".SH SEE ALSO", *_above(title)]
    lines += [rf".BR {_text(f'{title}-{name}')} (1)" for name in commands]
    return "\n".join(lines) + "\n"


def _page(title: str, command: Any) -> str:  # noqa: ANN401
    lines = [*_head(title, command.help)]
    lines += [".SH SYNOPSIS", rf".B {_words(title)}", _synopsis(command)]
    lines += [".SH DESCRIPTION", *_paragraphs(command.help)]
    lines += [*_parameters(command), *_tail(title)]
    lines += [".SH SEE ALSO", *_above(title)]
    return "\n".join(lines) + "\n"


def _words(title: str) -> str:
    """Return what is typed for the command that a page is called after."""
    return _text(title.replace("-", " "))


def _above(title: str) -> Iterator[str]:
    if title != PROGRAM:
        yield rf".BR {_text(title.rpartition('-')[0])} (1)"


def _head(title: str, help_text: str) -> Iterator[str]:
    yield f'.TH "{_text(title.upper())}" 1 "" "{PROGRAM}" "{PROGRAM} manual"'
    yield ".SH NAME"
    yield rf"{_text(title)} \- {_text(_first_sentence(help_text).rstrip('.'))}"


def _synopsis(command: Any) -> str:  # noqa: ANN401
    needed = [
        f"{option.opts[0]} {_metavar(option)}"
        for option in _of_kind(command, "option")
        if option.required
    ]
    arguments = [
        _metavar(argument) if argument.required else f"[{_metavar(argument)}]"
        for argument in _of_kind(command, "argument")
    ]
    return _text(" ".join([*needed, "[OPTIONS]", *arguments]))


def _parameters(command: Any) -> Iterator[str]:  # noqa: ANN401
    arguments = _of_kind(command, "argument")
    if arguments:
        yield ".SH ARGUMENTS"
    for argument in arguments:
        yield from _entry(_metavar(argument), argument.help)
    yield ".SH OPTIONS"
    for option in _of_kind(command, "option"):
        names = ", ".join(sorted([*option.opts, *option.secondary_opts], key=len))
        shown = names if option.is_flag else f"{names} {_metavar(option)}"
        yield from _entry(shown, option.help, _default(option))
    yield from _entry("--help", "Show the help and exit.")
    if any(option.name == "as_json" for option in _of_kind(command, "option")):
        yield ".PP"
        yield _text(f"The JSON record of every command has the keys {JSON_KEYS}.")


def _tail(title: str) -> Iterator[str]:
    name = title.removeprefix(f"{PROGRAM}-")
    yield ".SH EXIT STATUS"
    for status, meaning in MEANINGS.items():
        yield from _entry(str(status.value), meaning[0].upper() + meaning[1:] + ".")
    if name in EXAMPLES:
        yield ".SH EXAMPLES"
        for line, meaning in EXAMPLES[name]:
            yield from _entry(line, meaning)
    if name in FILES:
        yield ".SH FILES"
        for path, meaning in FILES[name].items():
            yield from _entry(path, meaning)
    yield ".SH ENVIRONMENT"
    for variable, meaning in ENVIRONMENT.items():
        if name in USED_BY.get(variable, {name}):
            yield from _entry(variable, meaning)


def _entry(term: str, *texts: str) -> Iterator[str]:
    yield ".TP"
    yield rf"\fB{_text(term)}\fR"
    yield _text(" ".join(text for text in texts if text))


def _of_kind(command: Any, kind: str) -> list[Any]:  # noqa: ANN401
    shown = [p for p in command.params if not getattr(p, "hidden", False)]
    return [p for p in shown if p.param_type_name == kind and p.name != "help"]


def _metavar(parameter: Any) -> str:  # noqa: ANN401
    choices = parameter.type_descriptor.choices
    if choices and not parameter.metavar:
        return "|".join(str(choice) for choice in choices)
    named = str(parameter.metavar or parameter.name.upper())
    return named if parameter.nargs != -1 else named.removesuffix("...") + "..."


def _default(option: Any) -> str:  # noqa: ANN401
    shown = option.show_default and not option.is_flag
    return f"Default: {option.default}." if shown and option.default is not None else ""


def _first_sentence(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split())


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        yield ".PP"
        yield _text(" ".join(paragraph.split()))


def _text(plain: str) -> str:
    """Return ``plain`` with what roff would take for a command made harmless."""
    escaped = plain.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + escaped if escaped.startswith((".", "'")) else escaped


def main(arguments: Sequence[str]) -> None:
    """Write the pages to the folder that is the only argument."""
    if len(arguments) != 1:
        sys.exit("usage: python -m spinecli.manpages FOLDER")
    write(Path(arguments[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
