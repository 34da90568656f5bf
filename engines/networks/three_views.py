"""A cube seen by three 2D encoders, one per view, and how their maps meet in 3D.

A cube lies along right, anterior and superior. Its planes across the first axis are
sagittal slices, across the second coronal ones and across the third axial ones; each
encoder sees every plane of its own view, as a batch of slices of one channel. The
maps of a view's planes, one behind the other along its normal, are a map in 3D that
is coarse along two axes and fine along the third. Brought to one grid, the three
views' maps tell of the same place at the same index, and are concatenated there.
"""

from torch import Tensor

VIEWS = ("sagittal", "coronal", "axial")
"""Views in the order of the axes they are across."""


def planes(cube: Tensor, view: int) -> Tensor:
    """Return the planes of a view.

    Args:
        cube: (N, C, R, A, S).
        view: index in ``VIEWS``.

    Returns:
        (N * D, C, H, W), D the size of the axis that the view is across.
    """
    return cube.movedim(2 + view, 1).flatten(0, 1)


def stacked(maps: Tensor, view: int, cubes: int) -> Tensor:
    """Return the maps of a view's planes as maps of their cubes.

    Args:
        maps: (N * D, C, H, W).
        view: index in ``VIEWS``.
        cubes: N.

    Returns:
        (N, C, ...), with D back at the axis that the view is across.
    """
    several = maps.reshape(cubes, -1, *maps.shape[1:])
    return several.movedim(1, 2 + view)
