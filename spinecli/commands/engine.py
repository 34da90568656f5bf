"""``spine engine``: build, list, inspect, tune and clear."""

from typing import Annotated, Any

import typer

from spinecli import options, render
from spinecli.status import EPILOG

app = typer.Typer(
    name="engine",
    help="Build and look after the engines that other runtimes than PyTorch run.\n\n"
    "An engine is a model compiled for a kind of GPU. It is kept in the folder that "
    "SPINE_CACHE names and made again for another model file, precision, batch, GPU, "
    "driver or version of its library. What the parity gate said of a backend is kept "
    "beside the engines, for the same things.",
    epilog=EPILOG,
    no_args_is_help=True,
)

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Model to build: a name that 'spine models' lists, or a model file.",
        show_default=False,
    ),
]
TunedModel = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Model: a name that 'spine models' lists, or a model file.",
        show_default=False,
    ),
]
Backend = Annotated[
    str,
    typer.Option(
        "--backend",
        metavar="NAME",
        help="tensorrt for data-centre and older GPUs, tensorrt-rtx for RTX cards, "
        "openvino for CPUs, or auto: the first of them that is installed.",
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        metavar="PRECISION",
        help="What it computes in: float16 or float32, on CPUs bfloat16 or float32, or "
        "int8, calibrated on the golden probes of the model. Default: the half.",
        show_default=False,
    ),
]
Batch = Annotated[
    int,
    typer.Option(
        "--batch", min=1, metavar="N", help="Slices or cubes that it takes at once."
    ),
]
For = Annotated[
    str | None,
    typer.Option(
        "--for",
        metavar="LIST",
        help="RTX cards that it is for, by compute capability with commas between, as "
        "sm86,sm89,sm120; none of them need be here. Without it, the GPU here.",
        show_default=False,
    ),
]
Engine = Annotated[
    str,
    typer.Argument(
        metavar="ENGINE",
        help="Name that 'spine engine list' shows, or how it begins.",
        show_default=False,
    ),
]
Engines = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ENGINES",
        help="Names, or how they begin, as a model's; without any, everything.",
        show_default=False,
    ),
]

Repeats = Annotated[
    int,
    typer.Option(
        "--repeats", min=1, metavar="N", help="Rounds; the median of them counts."
    ),
]
Forget = Annotated[
    bool,
    typer.Option(
        "--forget", help="Measure nothing; go back to the usual order of preference."
    ),
]

HEADINGS = ("engine", "of the model file", "for", "batches", "MB", "made")
TUNED = ("backend", "precision", "ms a slice", "agreement", "Dice", "verdict")


@app.command(epilog=EPILOG)
def build(
    model: Model,
    *,
    backend: Backend = "auto",
    precision: Precision = None,
    batch: Batch = 8,
    gpus: For = None,
    device: options.Device = "auto",
    as_json: options.AsJson = False,
) -> None:
    """Build the engine of a model and keep it, unless it is kept already.

    Engines for RTX cards are built on any machine, with or without a GPU, for the
    kinds of card that --for names, and run on all of these. Others are built on the
    GPU that they will run on.
    """
    with render.command("engine build", as_json=as_json, cases=False) as run:
        from engines.runtimes import engine
        from engines.runtimes.plan import Wanted
        from engines.segment import golden

        wanted = Wanted(precision or "", batch, engine.targets(gpus), device)
        built = engine.build(model, backend, wanted, probes=golden.of)
        run.facts["engine"] = built.as_json()
        if not as_json:
            render.table(HEADINGS, [built.cells()])
            render.say("built" if built.fresh else "it was there already")


@app.command("list", epilog=EPILOG)
def list_engines(*, as_json: options.AsJson = False) -> None:
    """List the engines that are kept."""
    with render.command("engine list", as_json=as_json, cases=False) as run:
        from engines.runtimes import cache, engine

        kept = engine.listing()
        run.facts["folder"] = str(cache.default_folder())
        run.facts["engines"] = [one.as_json() for one in kept]
        if not as_json:
            render.table(HEADINGS, [one.cells() for one in kept])
            render.say(f"folder: {cache.default_folder()}")


@app.command(epilog=EPILOG)
def inspect(name: Engine, *, as_json: options.AsJson = False) -> None:
    """Show engines whole: layers, precision, memory, and what they were built with.

    A name that several engines begin with, as that of a model with engines for several
    backends and precisions, shows all of them; each says which model file it is of.
    The layers are those of the finished engine, after the library has joined what it
    can. The file is checked against the sum that was taken when it was made.
    """
    with render.command("engine inspect", as_json=as_json, cases=False) as run:
        from engines.runtimes import engine

        found, notes = engine.inspect(name)
        run.facts["engines"] = [one.as_json(whole=True) for one in found]
        run.warnings += notes
        if not as_json:
            if len(found) > 1:
                render.table(HEADINGS, [one.cells() for one in found])
            for one in found:
                _show(one.as_json(whole=True))


@app.command(epilog=EPILOG)
def tune(
    model: TunedModel,
    *,
    device: options.Device = "auto",
    repeats: Repeats = 5,
    forget: Forget = False,
    as_json: options.AsJson = False,
) -> None:
    """Measure the backends for a model here, and prefer the fastest from now on.

    Every backend and precision that is installed labels the golden probes of the model.
    Those that agree with the reference are timed on them in turns, and the order, the
    fastest first, is pinned for this model file and this kind of device: each later
    run takes it in place of the usual one, and its record says so. Nothing else that
    is measured ever changes what computes.
    """
    with render.command("engine tune", as_json=as_json, cases=False) as run:
        from engines.networks import shelf
        from engines.runtimes import devices, pins, tune
        from engines.segment import golden

        opened, place = shelf.open(model), devices.pick(device)
        if forget:
            run.facts["forgotten"] = pins.forget(opened, place)
            if not as_json:
                there = "forgotten" if run.facts["forgotten"] else "nothing was pinned"
                render.say(f"order for {model} on {devices.kind(place)}: {there}")
            return
        rows, pin = tune.tune(
            opened,
            place,
            probes=lambda: golden.of(opened),
            repeats=repeats,
            notify=(lambda line: None) if as_json else render.say,
        )
        run.facts["candidates"] = [row.as_json() for row in rows]
        run.facts["pin"] = pin.as_json()
        if not as_json:
            render.table(TUNED, [row.cells() for row in rows])
            render.say(f"pinned for {pin.title} on {pin.device}")


@app.command(epilog=EPILOG)
def clear(names: Engines = None, *, as_json: options.AsJson = False) -> None:
    """Remove engines, verdicts of the parity gate and pinned orders.

    The next run makes what it needs again and computes the same; only an order that
    'spine engine tune' pinned is gone. What interrupted builds have left goes too.
    """
    with render.command("engine clear", as_json=as_json, cases=False) as run:
        from engines.runtimes import engine

        cleared = engine.clear(names or ())
        run.facts |= cleared.as_json()
        run.warnings += cleared.notes
        if not as_json:
            render.say(f"removed: {', '.join(cleared.engines) or 'no engine'}")
            render.say(f"verdicts removed: {cleared.verdicts}")
            render.say(f"pinned orders removed: {cleared.pins}")


def _show(record: dict[str, Any]) -> None:
    """Print an engine: what it is, then its layers."""
    layers, model = record.pop("layers"), record.pop("model")
    where = model["path"] or "none here has this hash"
    render.details(
        {
            "engine": record.pop("name"),
            "model": f"{model['name']}, SHA-256 {model['sha256'][:16]}",
            "model file": where,
            **{key: _words(value) for key, value in record.items() if value},
        }
    )
    headings = ("layer", "kind", "precision", "shape")
    render.table(headings, [_row(layer) for layer in layers])


def _words(value: object) -> str:
    """Return a value of a record as a person reads it."""
    if isinstance(value, dict):
        pairs = ((str(key).replace("_", " "), _words(v)) for key, v in value.items())
        return ", ".join(f"{key} {told}" for key, told in pairs)
    if isinstance(value, list | tuple):
        return "; ".join(_words(one) for one in value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 10_000:
        return f"{value:,}"
    return str(value)


def _row(layer: dict[str, object]) -> tuple[str, ...]:
    shape = layer["shape"] if isinstance(layer["shape"], list) else []
    told = " x ".join("any" if size == -1 else str(size) for size in shape)
    return (str(layer["name"]), str(layer["kind"]), str(layer["precision"] or ""), told)
