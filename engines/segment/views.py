"""The three planes in which a volume along RAS axes is cut into slices."""

from collections.abc import Mapping
from types import MappingProxyType

from engines.arrays import Array, namespace
from engines.errors import SettingsError

NORMALS: Mapping[str, int] = MappingProxyType({"sagittal": 0, "coronal": 1, "axial": 2})
"""View -> the axis of an (R, A, S) volume that its slices are stacked along.

A slice keeps the other two axes in their order: rows of a sagittal slice run to the
front and its columns upwards, and so on. Training cuts its slices the same way.
"""


def resolve(
    wanted: str | None,
    trained: tuple[str, ...],
    *,
    together: bool = False,
    name: str = "the model",
) -> tuple[str, ...]:
    """Return the views to use: those asked for, by default those trained for.

    Args:
        wanted: names with commas between, ``all``, or None.
        trained: views that the model was trained for.
        together: whether the network sees all of its views at once.
        name: of the model, for messages.

    Raises:
        SettingsError: an unknown view, or one that the model was not trained for.
    """
    if wanted is None:
        return trained
    views = tuple(NORMALS) if wanted == "all" else tuple(wanted.split(","))
    for view in views:
        if view not in NORMALS:
            msg = f"no view is called {view!r}"
            known = ", ".join((*NORMALS, "all"))
            raise SettingsError(msg, hint=f"Choose one of: {known}.")
        if view not in trained:
            msg = f"{name} was not trained on {view} slices"
            hint = f"It knows: {', '.join(trained)}. Or leave --views out."
            raise SettingsError(msg, hint=hint)
    if together and set(views) != set(trained):
        msg = "the network sees its three views together"
        raise SettingsError(msg, hint="Leave --views out.")
    return tuple(dict.fromkeys(views))


def stack(volume: Array, view: str) -> Array:
    """Return ``volume`` (R, A, S) as slices (N, H, W) of ``view``, without a copy."""
    return namespace(volume).moveaxis(volume, NORMALS[view], 0)
