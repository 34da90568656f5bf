"""Hounsfield units are told from everything else, whatever they are stored as."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.errors import ModalityError
from engines.preprocess.modality import guess_modality, require_modality
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
    "values",
    [
        pytest.param(body(), id="whole body"),
        pytest.param(_cropped(), id="inside the body"),
        pytest.param(_metal(), id="metal"),
        pytest.param(_padded(-2048), id="padding -2048"),
        pytest.param(_padded(-3024), id="padding -3024"),
        pytest.param(body().astype(np.float32) + 0.25, id="float"),
        pytest.param(body().clip(-200, 300), id="clamped to a window"),
        pytest.param(body()[:, :, 20:22], id="two slices"),
    ],
)
def test_ct_is_recognised(values: NDArray[Any]) -> None:
    scan = phantoms.volume(values)

    assert guess_modality(scan) == "ct"
    assert require_modality(scan, "ct") == ()


@pytest.mark.parametrize("name", ["tsexample_ct.nii.gz", "tptbox_ct.nii.gz"])
def test_real_ct_is_recognised(name: str) -> None:
    assert guess_modality(Volume.read(DATA / name)) == "ct"


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
        (body() + 1024, r"\(int16\).* offset of 1024"),
        ((body() + 1024).astype(np.uint16), r"\(uint16\).* offset of 1024"),
        (np.where(body() < 200, 0, body()), r"from 0 to 4\d\d .*none negative"),
        (body() / np.float32(1000), "hardly any as low as fat or air"),
        (_padded_mr(), r"from -2048 .*hardly any as low as fat or air"),
        (_ringing(), "hardly any as low as fat or air"),
        (
            np.random.default_rng(0).uniform(-4096, 4095, SHAPE),
            "hardly any of soft tissue",
        ),
    ],
    ids=[
        *("mr", "8-bit", "offset", "offset unsigned", "under 200 set to 0"),
        *("thousandths", "padded mr", "ringing", "phase"),
    ],
)
def test_all_else_is_refused_by_a_ct_model(values: NDArray[Any], match: str) -> None:
    scan = phantoms.volume(values)

    assert guess_modality(scan) != "ct"
    with pytest.raises(ModalityError, match=f"{match}.*; CT is needed") as caught:
        require_modality(scan, "ct")
    assert "--force" in caught.value.hint
    (note,) = require_modality(scan, "ct", True)
    assert note.code == "modality"
    assert str(caught.value) in note.message


def test_mr_is_guessed_from_more_than_8_bits() -> None:
    assert guess_modality(phantoms.volume(magnitudes())) == "mr"
    eight = phantoms.volume(magnitudes(200).astype(np.uint8))
    assert guess_modality(eight) == "unknown"


@pytest.mark.parametrize("high", [200, 900, 30000])
def test_mr_model_takes_what_is_not_ct(high: float) -> None:
    scan = phantoms.volume(magnitudes(high))

    assert require_modality(scan, "mr") == ()


def test_mr_model_refuses_ct() -> None:
    scan = phantoms.volume(body())

    with pytest.raises(ModalityError, match=r"look like CT .*; MR is needed") as caught:
        require_modality(scan, "mr")
    assert "model for CT" in caught.value.hint
    assert require_modality(scan, "mr", True)[0].code == "modality"
