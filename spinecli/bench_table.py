"""The tables of ``spine bench``."""

from collections.abc import Mapping, Sequence
from typing import Any

from engines.results import CaseResult
from spinecli import render

NETWORK = (
    "network",
    "ms a slice",
    "slices/s",
    "GFLOP/s",
    "of ceiling",
    "times as fast",
    "agrees",
    "Dice",
    "load s",
    "GPU MiB",
)


def show(cases: Sequence[CaseResult], facts: Mapping[str, Any]) -> None:
    """Print what was measured on stdout, and what it was measured on on stderr."""
    _say_where(facts)
    by_kind: dict[str, list[CaseResult]] = {}
    for case in cases:
        by_kind.setdefault(case.details["kind"], []).append(case)
    networks = by_kind.pop("network", [])
    if networks:
        _show_networks(networks, several=facts["against"] is not None)
        _say_ceilings(networks, facts["ceilings"])
        _say_models(networks, facts)
    done = {
        kind: case.details for kind, (case,) in by_kind.items() if case.status == "done"
    }
    if done:
        _show_stages(done)
        _say_whole(done)
    render.closing_table([case for case in cases if case.error is not None])


def _say_where(facts: Mapping[str, Any]) -> None:
    machine = facts["machine"]
    memory = machine["memory_gib"]
    told = [
        machine["gpu"] or machine["cpu"] or machine["system"],
        f"{machine['cores']} cores",
        "" if memory is None else f"{memory:.0f} GiB",
        f"{machine['threads']} threads",
    ]
    render.say(f"machine: {', '.join(part for part in told if part)}")
    for scan in facts["scans"]:
        told = [scan["name"]]
        if "shape" in scan:
            told.append(f"{_by(scan['shape'])} voxels of {_by(scan['spacing_mm'])} mm")
        if facts["synthetic"]:
            told.append("a phantom made for this, not a scan of a person")
        render.say(f"scan: {', '.join(told)}")


def _show_networks(networks: Sequence[CaseResult], *, several: bool) -> None:
    """Print a row per backend and precision, without columns that no row fills."""
    if all(case.status != "done" for case in networks):
        return
    rows = [_network_cells(case, several=several) for case in networks]
    shown = [place for place in range(len(NETWORK)) if any(row[place] for row in rows)]
    render.table(
        [NETWORK[place] for place in shown],
        [[row[place] for place in shown] for row in rows],
        whole=True,
    )


def _network_cells(case: CaseResult, *, several: bool) -> list[str]:
    row = case.details
    name = f"{row['backend']} {row['precision']}"
    if several:
        name = f"{row['model']} {name}"
    if case.status != "done":
        why = "not installed" if case.status == "skipped" else "failed"
        return [f"{name} ({why})", *[""] * (len(NETWORK) - 1)]
    stands_in = "*" if row["ceiling_stands_in"] else ""
    share, faster = row["share_of_ceiling"], row["times_as_fast"]
    gate, memory = row["gate"], row["gpu_memory_bytes"]
    return [
        name,
        f"{row['ms_per_slice']:.2f}",
        f"{row['slices_per_second']:.1f}",
        f"{row['gflops']:.0f}",
        "" if share is None else f"{share:.0%}{stands_in}",
        "" if faster is None else f"{faster:.2f}",
        "" if gate is None else "yes" if gate["passed"] else "no",
        "" if gate is None else f"{gate['dice']:.4f}",
        f"{row['load_seconds']:.1f}",
        "" if memory is None else f"{memory / 2**20:.0f}",
    ]


def _say_ceilings(
    networks: Sequence[CaseResult], ceilings: Sequence[Mapping[str, Any]]
) -> None:
    parts = [
        f"{one['gflops']:.0f} in {one['precision']}{' (TF32)' * one['tf32']}"
        for one in ceilings
    ]
    if parts:
        render.say(f"ceiling, GFLOP/s of a matrix product: {', '.join(parts)}")
    if any(case.details.get("ceiling_stands_in") for case in networks):
        render.say("* int8 is held against bfloat16")


def _say_models(networks: Sequence[CaseResult], facts: Mapping[str, Any]) -> None:
    """Say of each backend how the second model compares with the first."""
    for case in networks:
        times = case.details.get("times_first")
        if times is not None:
            row = case.details
            render.say(
                f"{row['backend']} {row['precision']}: a slice of "
                f"{facts['model']['name']} takes {times:.2f} times as long as one of "
                f"{row['model']}"
            )


def _show_stages(done: Mapping[str, Mapping[str, Any]]) -> None:
    for kind, row in done.items():
        wall = row["wall_seconds"]
        cells = [
            [stage, f"{seconds:.2f}", f"{seconds / wall:.0%}"]
            for stage, seconds in row["stages"].items()
        ]
        if row["scans"] == 1:
            rest = row["elsewhere_seconds"]
            cells.append(["start and end", f"{rest:.2f}", f"{rest / wall:.0%}"])
        cells.append(["from start to end", f"{wall:.2f}", "100%"])
        render.table([_title(kind), "seconds", "share"], cells, whole=True)


def _say_whole(done: Mapping[str, Mapping[str, Any]]) -> None:
    for kind, row in done.items():
        told = [f"{row['wall_seconds']:.1f} s"]
        if row["scans"] > 1:
            told[0] += f" for {row['scans']} scans"
        if row["peak_memory_bytes"] is not None:
            told.append(f"{row['peak_memory_bytes'] / 2**20:.0f} MiB at most")
        told.append(f"{row['backend']} {row['precision']}")
        if row["scans"] > 1 and row["network_share"] is not None:
            told.append(f"the network ran {row['network_share']:.0%} of the time")
        render.say(f"{_title(kind)}: {', '.join(told)}")
    plain = done.get("plain")
    if plain is not None and plain["times_as_long"] is not None:
        alike = [one["dice"] for one in plain["agreement"]]
        render.say(
            f"the plain way takes {plain['times_as_long']:.2f} times as long; "
            f"Dice of the two masks {min(alike):.4f}"
            + (" or more" if len(alike) > 1 else "")
        )


def _title(kind: str) -> str:
    return "the plain way" if kind == "plain" else "spine segment"


def _by(numbers: Sequence[float]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
