"""Values keep the smallest type that holds all of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.convert import rescale
from engines.convert.frames import Frame
from engines.errors import MixedSeriesError, UnsupportedError
from engines.volume import RGB
from tests import dicom_phantoms as made
from tests import phantoms


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Frame:
    """Return an unsigned 16-bit frame with slope 1 and intercept -1024."""
    folder = tmp_path_factory.mktemp("plain")
    frame: Frame = made.frames_of(phantoms.write_dicom(folder, made.ct())[0])[0]
    return frame


def stored(*values: int, dtype: str = "uint16") -> NDArray[Any]:
    return np.array([values], dtype)


@pytest.mark.parametrize(
    ("slope", "intercept", "kind"),
    [
        (1, -1024, "int16"),
        (None, None, "int16"),
        (2, 0, "int16"),
        (0.5, 0, "float32"),
        (1, -0.5, "float32"),
        (None, 0.25, "float32"),
    ],
)
def test_first_guess_goes_by_slope_and_intercept(
    plain: Frame, slope: float | None, intercept: float | None, kind: str
) -> None:
    frame = replace(plain, slope=slope, intercept=intercept)

    assert rescale.narrowest([plain, frame]) == kind


@pytest.mark.parametrize(
    ("changes", "slope", "kind"),
    [
        ({"bits_allocated": 8}, None, "uint8"),
        ({"bits_allocated": 8}, 1, "uint8"),
        ({"bits_allocated": 8}, 2, "int16"),
        ({"bits_allocated": 8, "signed": True}, None, "int16"),
        ({"bits_allocated": 64}, None, "float32"),
        ({"lut": True}, None, "float32"),
    ],
)
def test_first_guess_goes_by_the_stored_bits(
    plain: Frame, changes: dict[str, Any], slope: float | None, kind: str
) -> None:
    pixels = replace(plain.pixels, **changes)
    frame = replace(plain, pixels=pixels, slope=slope, intercept=None)

    assert rescale.narrowest([frame]) == kind


def test_colour_is_guessed_by_the_samples(plain: Frame) -> None:
    frame = replace(plain, pixels=replace(plain.pixels, samples=3))

    assert rescale.narrowest([frame]) == RGB


@pytest.mark.parametrize(
    ("value", "slope", "intercept", "kind"),
    [
        (32767, 1, 0, "int16"),
        (32768, 1, 0, "int32"),
        (33791, 1, -1024, "int16"),
        (33792, 1, -1024, "int32"),
        (16384, -2, 0, "int16"),
        (16385, -2, 0, "int32"),
        (1, 32767, 1, "int32"),
        (65535, 32768, 0, "int32"),
        (65535, 40000, 0, "float32"),
    ],
)
def test_type_grows_only_where_a_value_needs_it(
    plain: Frame, value: int, slope: float, intercept: float, kind: str
) -> None:
    frame = replace(plain, slope=slope, intercept=intercept)
    image = stored(0, value)

    assert rescale.needed(frame, image, np.dtype("int16")) == kind
    values = rescale.rescaled(frame, image, np.dtype(kind))
    assert values.dtype == kind
    assert values.tolist() == [
        [intercept, np.dtype(kind).type(slope * value + intercept)]
    ]


def test_type_never_shrinks(plain: Frame) -> None:
    assert rescale.needed(plain, stored(0, 1), np.dtype("int32")) == "int32"
    assert rescale.needed(plain, stored(0, 1), rescale.FLOAT) == "float32"


def test_bytes_grow_to_int16_where_a_slice_is_signed(plain: Frame) -> None:
    frame = replace(plain, slope=None, intercept=None)

    held = rescale.needed(frame, stored(0, 255, dtype="uint8"), np.dtype("uint8"))
    assert held == "uint8"
    assert rescale.needed(frame, stored(-1, dtype="int8"), held) == "int16"


def test_fractions_are_exact_to_float32(plain: Frame) -> None:
    frame = replace(plain, slope=0.1, intercept=-1000.3)
    values = rescale.rescaled(frame, stored(0, 3, 65535), rescale.FLOAT)

    assert values.dtype == np.float32
    wanted = np.float32([-1000.3, 0.1 * 3 - 1000.3, 0.1 * 65535 - 1000.3])
    np.testing.assert_array_equal(values[0], wanted)


def test_stored_pixels_are_not_changed(plain: Frame) -> None:
    image = stored(5, 6)
    image.setflags(write=False)

    assert rescale.rescaled(plain, image, np.dtype("int16")).tolist() == [
        [-1019, -1018]
    ]
    assert image.tolist() == [[5, 6]]


def test_colour_becomes_records(plain: Frame) -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)

    assert rescale.needed(plain, image, RGB) == RGB
    values = rescale.rescaled(plain, image, RGB)
    assert values.shape == (2, 2)
    assert values[1, 0].tolist() == (6, 7, 8)


def test_colour_among_grey_slices_is_refused(plain: Frame) -> None:
    colour = np.zeros((2, 2, 3), np.uint8)

    for image, held in ((colour, np.dtype("int16")), (stored(0), RGB)):
        with pytest.raises(MixedSeriesError, match=r"IM\d+\.dcm: colour among grey"):
            rescale.needed(plain, image, held)


def test_deep_colour_is_refused(plain: Frame) -> None:
    with pytest.raises(UnsupportedError, match="another kind than 8-bit RGB"):
        rescale.needed(plain, np.zeros((2, 2, 3), np.uint16), RGB)


@pytest.mark.parametrize("intercept", [-1024, 3_000_000_000])
def test_large_intercepts_do_not_wrap(plain: Frame, intercept: int) -> None:
    frame = replace(plain, slope=1, intercept=intercept)
    kind = rescale.needed(frame, stored(7), rescale.narrowest([frame]))
    values = rescale.rescaled(frame, stored(7), kind)

    assert float(values[0, 0]) == pytest.approx(intercept + 7, rel=1e-7)


def test_slices_of_other_bits_share_a_type(tmp_path: Path) -> None:
    frames = [
        made.frames_of(
            phantoms.write_dicom(tmp_path / kind, made.ct(), stored=kind)[0]
        )[0]
        for kind in ("uint16", "int32")
    ]

    assert rescale.narrowest(frames) == "int16"
