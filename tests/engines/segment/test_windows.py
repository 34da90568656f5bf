"""Windows follow the spine, hold it with a margin, and stay inside the scan."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engines.segment import fuse, windows
from engines.segment.slices import Frame

FRAME = Frame(stride=16, least=32, empty=0.0)


def leaning(shape: tuple[int, int, int] = (40, 200, 120)) -> np.ndarray:
    """A column that moves from one corner to the other, slice by slice."""
    seen = np.zeros(shape, bool)
    for index in range(5, 35):
        seen[index, 4 * index : 4 * index + 20, 2 * index : 2 * index + 12] = True
    return seen


def test_each_window_holds_what_was_seen_with_a_margin() -> None:
    seen = leaning()
    found = windows.around(seen, reach=3, follows=1, margins=(8, 6), frame=FRAME)
    assert found.slices.tolist() == list(range(2, 38))
    assert found.size[0] * found.size[1] < 0.3 * 200 * 120
    for index, rows, columns in zip(*found.places(), strict=True):
        assert rows.start >= 0
        assert rows.stop <= 200
        assert columns.start >= 0
        assert columns.stop <= 120
        outside = seen[index].copy()
        outside[rows, columns] = False
        assert not outside.any()
    inner = found.slices.tolist().index(20)
    held_rows = np.flatnonzero(seen[20].any(axis=1))
    _, rows, _ = (part[inner] for part in found.places())
    assert held_rows[0] - rows.start >= 8
    assert rows.stop - 1 - held_rows[-1] >= 8


def test_windows_are_what_the_network_is_given_anyway() -> None:
    found = windows.around(leaning(), reach=0, follows=0, margins=(2, 2), frame=FRAME)
    assert found.size == (32, 32)


def test_a_stray_voxel_widens_no_window() -> None:
    seen = leaning()
    plain = windows.around(seen, reach=0, follows=0, margins=(8, 8), frame=FRAME)
    seen[20, 0, 119] = True
    assert windows.around(seen, 0, 0, (8, 8), FRAME).size == plain.size


def test_where_nothing_was_seen_everything_is_looked_at() -> None:
    found = windows.around(np.zeros((4, 5, 6), bool), 1, 1, (1, 1), FRAME)
    assert found.size == (5, 6)
    assert found.slices.tolist() == [0, 1, 2, 3]


@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 100))
def test_windows_never_leave_the_slice(rows: int, columns: int, margin: int) -> None:
    seen = np.zeros((3, rows, columns), bool)
    seen[1, rows - 1, 0] = True
    found = windows.around(seen, 5, 5, (margin, margin), FRAME)
    for _, there, across in zip(*found.places(), strict=True):
        assert 0 <= there.start < there.stop <= rows
        assert 0 <= across.start < across.stop <= columns


def test_batches_hold_the_windows_and_skip_empty_slices() -> None:
    volume = torch.zeros(40, 200, 120)
    volume[:20] = torch.arange(120.0) + 1
    found = windows.around(leaning(), reach=0, follows=0, margins=(8, 8), frame=FRAME)
    numbers, batches = zip(*found.batches(volume, FRAME), strict=True)
    assert [n for part in numbers for n in part] == list(range(15))
    index, _, columns = (part[0] for part in found.places())
    assert index == 5
    shown = FRAME.take(batches[0], found.size)[0, 0, 0]
    torch.testing.assert_close(shown, volume[5, 0, columns])


class Bright:
    """Finds spine where a pixel is above one half, and counts."""

    backend, precision, device = "test", "float32", "cpu"
    pixels = 0

    def predict(self, slices: torch.Tensor) -> torch.Tensor:
        self.pixels += slices.numel()
        spine = (slices > 0.5).float()
        return torch.cat([1 - spine, spine], dim=1)


@pytest.mark.parametrize("first", [None, "seen"])
def test_three_views_find_the_same_as_looking_everywhere(first: str | None) -> None:
    spine = np.zeros((96, 120, 100), np.float32)
    for z in range(100):
        spine[40 + z // 10 : 56 + z // 10, 30 + z // 4 : 50 + z // 4, z] = 1
    volume = torch.from_numpy(np.maximum(spine, 0.1))
    runtime = Bright()
    found = fuse.probabilities(
        volume,
        runtime,
        ("axial", "sagittal", "coronal"),
        classes=2,
        frame=Frame(16, 32, 0.0),
        spacing_mm=(1.5, 1.5, 1.5),
        seen=None if first is None else spine > 0,
    )
    np.testing.assert_allclose(found[0], spine, atol=1e-6)
    assert runtime.pixels < 0.75 * 3 * volume.numel()
