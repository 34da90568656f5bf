"""Hounsfield units are told from everything else, whatever they are stored as."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.errors import ModalityError
from engines.preprocess.modality import (
    admit,
    guess_modality,
    recognise,
    require_known,
)
from engines.volume import Volume
from tests import phantoms

DATA = Path(__file__).parents[2] / "data"
SHAPE = (64, 56, 48)


def body() -> NDArray[np.int16]:
    return phantoms.ct_values(SHAPE)


def _cropped() -> NDArray[Any]:
    """Return muscle, bone and a little fat without any air, about -110 the lowest."""
    return body()[6:38, 18:38, :]


def _metal() -> NDArray[Any]:
    values = body().astype(np.int32)
    values[20:23, 20:23, :] = 30000
    return values


def _padded(value: int) -> NDArray[Any]:
    values = body()
    values[:, :20, :] = value
    return values


def magnitudes(high: float = 900) -> NDArray[np.float32]:
    """Return an MR: noise around, tissue of several brightnesses inside."""
    values = np.abs(np.random.default_rng(0).normal(0, 0.02, SHAPE)) * high
    values[body() > -500] += 0.3 * high
    values[phantoms.spine(SHAPE)] += 0.5 * high
    return values.astype(np.float32)


@pytest.mark.parametrize(
    ("values", "codes"),
    [
        pytest.param(body(), [], id="whole body"),
        pytest.param(_cropped(), [], id="inside the body"),
        pytest.param(_metal(), [], id="metal"),
        pytest.param(_padded(-2048), ["padding"], id="padding -2048"),
        pytest.param(_padded(-3024), ["padding"], id="padding -3024"),
        pytest.param(body().astype(np.float32) + 0.25, [], id="float"),
        pytest.param(body().clip(-200, 300), ["cut_off"] * 2, id="clamped to a window"),
        pytest.param(body().clip(-200), ["cut_off"], id="floored"),
        pytest.param(body()[:, :, 20:22], [], id="two slices"),
    ],
)
def test_ct_is_recognised(values: NDArray[Any], codes: list[str]) -> None:
    scan = phantoms.volume(values)

    assert guess_modality(scan) == "ct"
    _, notes = admit(scan, "ct")
    assert [note.code for note in notes] == codes


REAL = ("tsexample_ct.nii.gz", "tptbox_ct.nii.gz")


@pytest.mark.parametrize("name", REAL)
def test_real_ct_is_recognised(name: str) -> None:
    scan = Volume.read(DATA / name)

    assert guess_modality(scan) == "ct"
    admitted, notes = admit(scan, "ct")
    assert notes == ()
    np.testing.assert_array_equal(admitted.voxels, scan.voxels)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda a: a + 8192, "offset of 8192: it was taken off"),
        (lambda a: (a + 32768).astype(np.uint16), "offset of 32768"),
        (lambda a: (a + 32768).astype(np.float64), "offset of 32768"),
        (lambda a: a + 33792, "offset of 33792"),
        (lambda a: a + 2048, "offset of 2048"),
        (lambda a: a + 4096, "offset of 4096"),
        (lambda a: a.astype(np.uint16), "lost their sign: they were put back"),
        (lambda a: a.astype(np.uint16).astype(np.float32), "lost their sign"),
        (lambda a: a.astype(np.uint32), "lost their sign"),
    ],
)
def test_known_offset_is_taken_off(
    name: str, change: Callable[[NDArray[Any]], NDArray[Any]], told: str
) -> None:
    scan = Volume.read(DATA / name)
    changed = scan.with_voxels(change(scan.voxels.astype(np.int32)))

    assert guess_modality(changed) == "ct"
    assert require_known(changed, "scan", "", ("ct", "mr")) == "ct"
    admitted, (note,) = admit(changed, "ct")
    assert note.code == "offset"
    assert told in note.message
    np.testing.assert_array_equal(admitted.voxels, scan.voxels)


@pytest.mark.parametrize("offset", [1000, 1024, -1000, -1024])
def test_small_offset_is_taken_off_where_air_tells_which(offset: int) -> None:
    scan = Volume.read(DATA / "tsexample_ct.nii.gz")
    changed = scan.with_voxels(scan.voxels.astype(np.int32) + offset)

    admitted, (note,) = admit(changed, "ct")
    assert f"offset of {offset}: it was taken off" in note.message
    np.testing.assert_array_equal(admitted.voxels, scan.voxels)


def _clipped(offset: int) -> NDArray[np.int32]:
    scan = Volume.read(DATA / "tsexample_ct.nii.gz")
    return (scan.voxels.astype(np.int32) + offset).clip(0)


@pytest.mark.parametrize(
    "values",
    [
        Volume.read(DATA / "tptbox_ct.nii.gz").voxels.astype(np.float32) + 1000,
        Volume.read(DATA / "tptbox_ct.nii.gz").voxels.astype(np.int32) + 1024,
        _clipped(1000),
    ],
    ids=["no air", "no air, 1024", "air cut off"],
)
def test_offset_of_1000_or_1024_is_refused_where_it_may_be_either(
    values: NDArray[Any],
) -> None:
    scan = phantoms.volume(values)

    assert guess_modality(scan) == "unknown"
    with pytest.raises(ModalityError, match="an offset of 1000 or 1024") as caught:
        require_known(scan, "scan", "", ("ct", "mr"))
    assert "--modality mr" in caught.value.hint
    with pytest.raises(ModalityError, match="an offset of 1000 or 1024") as caught:
        admit(scan, "ct")
    assert "--modality ct" in caught.value.hint
    admitted, notes = admit(scan, "ct", told="ct")
    assert "1024 was taken off" in notes[0].message
    assert admitted.voxels.max() == values.max() - 1024


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda a: a + 500, "an offset of about (4[5-9]0|5[0-5]0)"),
        (lambda a: a + 12345, "an offset of about 12[34]"),
        (lambda a: a.clip(0), "none negative: MR, or CT without"),
        (lambda a: (a.clip(-200, 1800) + 200) * 2, "none negative: MR, or CT without"),
        (lambda a: (a.clip(-1024, 2000) + 1024) / 3.024, "none negative"),
        (lambda a: (a.clip(-160, 240) + 160) * 2.5, "none negative"),
        (lambda a: ((a.clip(-160, 240) + 160) * 0.6).astype(np.uint8), "8-bit"),
        (lambda a: np.where(a < 200, 0, a), "none negative"),
    ],
    ids=[
        *("+500", "+12345", "clipped at 0", "windowed to 0..4000", "grey 0..1000"),
        *("grey 0..1000 of a window", "8 bit of a window", "bone alone"),
    ],
)
def test_ct_whose_scale_cannot_be_told_is_no_mr(
    change: Callable[[NDArray[Any]], NDArray[Any]], match: str
) -> None:
    scan = Volume.read(DATA / "tsexample_ct.nii.gz")
    changed = scan.with_voxels(change(scan.voxels.astype(np.int32)))

    for name in ("scan", "scan_ct"):
        assert recognise(changed, name, "") == "unknown"
        with pytest.raises(ModalityError, match=f"cannot tell .*{match}") as caught:
            require_known(changed, name, "", ("ct", "mr"))
        assert "--modality mr goes on" in caught.value.hint
    with pytest.raises(ModalityError, match=match) as caught:
        admit(changed, "ct")
    assert "--force" in caught.value.hint
    with pytest.raises(ModalityError) as caught:
        admit(changed, "ct", may_force=False)
    assert "--" not in caught.value.hint
    assert admit(changed, "mr", told="mr") == (changed, ())
    # What says more than values do goes before them.
    assert recognise(changed, "scan_mr", "") == "mr"
    assert recognise(changed, "scan", "MR") == "mr"
    assert recognise(changed, "scan", "CT") == "ct"


@pytest.mark.parametrize("change", ["+500", "+1000", "clipped", "windowed", "grey"])
def test_crop_without_air_is_no_mr(change: str) -> None:
    values = Volume.read(DATA / "tptbox_ct.nii.gz").voxels.astype(np.int32)
    changed = {
        "+500": values + 500,
        "+1000": values + 1000,
        "clipped": values.clip(0),
        "windowed": (values.clip(-200, 1800) + 200) * 2,
        "grey": (values.clip(-1024, 2000) + 1024) / 3.024,
    }[change]

    assert recognise(phantoms.volume(changed), "scan", "") == "unknown"


def test_circle_of_padding_becomes_air() -> None:
    scan = Volume.read(DATA / "tsexample_ct.nii.gz")
    i, j, _ = np.indices(scan.grid.shape)
    outside = np.hypot(i / 61 - 1, j / 50.5 - 1) > 1
    for value in (-32768, -3024, -2048, 0, 3071):
        filled = np.where(outside, value, scan.voxels.clip(-1024, 3000))
        admitted, notes = admit(scan.with_voxels(filled.astype(np.int16)), "ct")
        (note,) = [note for note in notes if note.code == "padding"]
        assert f"padding of {value}" in note.message
        expected = np.where(outside, -1000, scan.voxels.clip(-1024, 3000))
        assert (admitted.voxels[outside] == -1000).all()
        # Tissue of just the value of the padding may touch it.
        assert (admitted.voxels != expected).mean() < (1e-4 if value == 0 else 1e-12)
    wrapped = np.where(outside, -3024, scan.voxels).astype(np.uint16)
    admitted, notes = admit(scan.with_voxels(wrapped), "ct")
    assert [note.code for note in notes] == ["offset", "padding"]
    assert admitted.voxels[outside].max() == -1000


def test_padding_below_mr_becomes_0() -> None:
    values = magnitudes().astype(np.int16)
    values[:, :20, :] = -2048
    admitted, (note,) = admit(phantoms.volume(values), "mr")

    assert note.code == "padding"
    assert (admitted.voxels == values.clip(0)).all()


def _padded_mr() -> NDArray[Any]:
    values = magnitudes()
    values[:, :20, :] = -2048
    return values


def _ringing() -> NDArray[Any]:
    values = magnitudes(4000) - 80
    values -= np.random.default_rng(1).normal(0, 12, SHAPE).astype(np.float32)
    return np.where(body() > -500, values, values.clip(min=-55))


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (magnitudes(), r"values from 0.* to \d+.* \(float32\), none negative: MR"),
        (magnitudes(200).astype(np.uint8), r"\(uint8\).* an 8-bit image"),
        (np.where(body() < 200, 0, body()), r"from 0 to 4\d\d .*none negative"),
        (body() / np.float32(1000), "hardly any as low as fat or air"),
        (_padded_mr(), r"from -2048 .*hardly any as low as fat or air"),
        (_ringing(), r"offset of about 10\d0, or MR"),
        (
            np.random.default_rng(0).uniform(-4096, 4095, SHAPE),
            "hardly any of soft tissue",
        ),
    ],
    ids=[
        *("mr", "8-bit", "under 200 set to 0"),
        *("thousandths", "padded mr", "ringing", "phase"),
    ],
)
def test_all_else_is_refused_by_a_ct_model(values: NDArray[Any], match: str) -> None:
    scan = phantoms.volume(values)

    assert guess_modality(scan) != "ct"
    with pytest.raises(ModalityError, match=f"{match}.*; CT is needed") as caught:
        admit(scan, "ct")
    assert "--force" in caught.value.hint
    _, (note,) = admit(scan, "ct", force=True)
    assert note.code == "modality"
    assert str(caught.value) in note.message


def test_values_never_prove_mr() -> None:
    scan = phantoms.volume(magnitudes())

    assert guess_modality(scan) == "unknown"
    with pytest.raises(ModalityError, match="cannot tell"):
        require_known(scan, "scan", "", ("ct", "mr"))
    assert require_known(scan, "scan_T2w", "", ("ct", "mr")) == "mr"


@pytest.mark.parametrize("high", [200, 900, 1100, 2000, 30000])
def test_mr_of_any_brightness_is_no_ct(high: float) -> None:
    scan = phantoms.volume(magnitudes(high))

    assert recognise(scan, "scan_mr", "") == "mr"
    assert admit(scan, "mr") == (scan, ())


@pytest.mark.parametrize("offset", [0, 8192, 32768])
def test_mr_model_refuses_ct(offset: int) -> None:
    scan = phantoms.volume(body().astype(np.int32) + offset)

    with pytest.raises(ModalityError, match=r"look like CT .*; MR is needed") as caught:
        admit(scan, "mr")
    assert "model for CT" in caught.value.hint
    assert admit(scan, "mr", force=True)[1][0].code == "modality"
    (note,) = admit(scan, "mr", told="mr")[1]
    assert "--modality" in note.message


def test_model_for_another_modality_than_was_said_is_refused() -> None:
    with pytest.raises(ModalityError, match="CT is needed, and --modality says MR"):
        admit(phantoms.volume(body()), "ct", told="mr")
