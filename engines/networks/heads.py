"""Networks that learn to tell more classes apart than they did.

The class layers get one row of weights for each new class. It begins as the row of the
class that the new one is a part of, lowered so that the parts' probabilities sum up to
what the whole had: at first the network says what it said, and which part, by chance.
"""

from collections.abc import Mapping

import torch
from torch import nn

from engines import labels
from engines.networks import catalog
from engines.networks.resize import fit, shapes_of

Classes = Mapping[str, int]


def whole_of(name: str, held: Classes) -> int | None:
    """Return the index in ``held`` of the class that holds ``name``, None without."""
    if name in held:
        return held[name]
    vertebra = labels.BY_NAME.get(name)
    if vertebra is not None and vertebra.region in held:
        return held[vertebra.region]
    bony = vertebra is not None or name in labels.REGIONS
    return held.get("spine") if bony else None


def divides(held: Classes, wanted: Classes) -> bool:
    """Say whether every class of ``wanted`` is one of ``held`` or a part of one."""
    return all(whole_of(name, held) is not None for name in wanted)


def divide(
    network: nn.Module,
    architecture: str,
    options: Mapping[str, object],
    held: Classes,
    wanted: Classes,
) -> None:
    """Change a network of the classes ``held`` into one of ``wanted``, in place.

    Args:
        network: of ``architecture``, pruned or not.
        architecture: row of the catalogue.
        options: what it was built with.
        held: classes that it tells apart.
        wanted: classes that it is to tell apart; ``divides`` must be true.
    """
    spec = catalog.find(architecture)
    sizes = len(held), len(wanted)
    with torch.device("meta"):
        before, after = (
            shapes_of(spec.build(in_channels=1, classes=n, options=options))
            for n in sizes
        )
    rows = {index: whole_of(name, held) for name, index in wanted.items()}
    parts = torch.bincount(torch.tensor([rows[i] for i in range(sizes[1])]))
    kept = network.state_dict()
    grown = {
        name: _grown(kept[name], axis, rows, parts, lowers=name.endswith("bias"))
        for name in before
        for axis in _axis(before[name], after[name])
    }
    fit(network, {name: tuple(value.shape) for name, value in grown.items()})
    network.load_state_dict({**kept, **grown})


def _axis(before: tuple[int, ...], after: tuple[int, ...]) -> list[int]:
    """Return along which axis, if any, two shapes differ."""
    return [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]


def _grown(
    value: torch.Tensor,
    axis: int,
    rows: Mapping[int, int | None],
    parts: torch.Tensor,
    *,
    lowers: bool,
) -> torch.Tensor:
    chosen = torch.tensor([rows[i] for i in range(len(rows))])
    grown = value.index_select(axis, chosen)
    if lowers:
        grown = grown - parts[chosen].to(grown.dtype).log()
    return grown
