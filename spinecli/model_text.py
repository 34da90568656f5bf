"""What a person asks of one model, in the terminal."""

from engines.networks.inventory import Entry
from engines.report import model_page
from spinecli import render


def show(entry: Entry) -> None:
    """Print a model: what it does, its figures, training, licence and limits."""
    described = model_page.describe(entry)
    for sentence in described.sentences:
        render.out(sentence)
    for title, headings, rows in described.tables:
        render.out("")
        render.out(title)
        render.table(headings, [[_cell(value) for value in row] for row in rows])
    if described.limits:
        render.out("Where it fails")
        for sentence in described.limits:
            render.out(f"  - {sentence}")
    if entry.path is not None:
        render.out("")
        render.out(
            f"Everything else: spine models {entry.name} --json, or --page FILE.html"
        )


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
