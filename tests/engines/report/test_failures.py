"""Where a model fails: the list beside its file, and the pictures drawn from it."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engines.errors import ModelFileError, NotFoundError
from engines.labels import REGION_CLASSES
from engines.networks import shelf
from engines.report import closeup, failures
from engines.report.closeup import Cut
from engines.volume import Volume
from tests import phantoms

ROW = """
[[failure]]
picture = "ribs.jpg"
scan = "chest_ct"
sentence = "Ribs are marked."
origin = "a phantom"
licence = "none"
"""
DRAWN = 'plane = "sagittal"\ncentre_mm = [-16, 20, 700]\nsize_mm = [40, 60]\n'
LIMIT = 80_000


def folder(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "model.page"
    path.mkdir()
    (path / failures.LIST).write_text(text)
    return path


def scan_and_mask() -> tuple[Volume, Volume]:
    """Return a bright ball in air and its mask, 10 mm in front of and above 0."""
    shape, spacing = (30, 40, 50), (2.0, 2.0, 2.0)
    affine = phantoms.affine("LPS", spacing, origin_mm=(30.0, 40.0, -50.0))
    scan = phantoms.volume(np.full(shape, -1000, np.int16), "LPS", spacing)
    place = [np.arange(n) * 2.0 for n in shape]
    x, y, z = np.meshgrid(*place, indexing="ij")
    ball = np.hypot(np.hypot(30 - x, 40 - y - 10), -50 + z - 10) < 8
    grid = type(scan.grid)(shape, affine)
    hu = np.where(ball, 500, -1000).astype(np.int16)
    return Volume(hu, grid), Volume(ball.astype(np.uint8), grid)


def panels(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    image = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    width = (image.shape[1] - 4) // 2
    return image[:, :width], image[:, -width:]


@pytest.mark.parametrize("plane", ["axial", "sagittal", "coronal"])
def test_the_centre_is_in_the_middle_and_the_mask_on_the_right(
    plane: closeup.Plane,
) -> None:
    scan, mask = scan_and_mask()

    content = closeup.draw(scan, mask, Cut(plane, (0.0, 10.0, 10.0), (60.0, 40.0)))

    plain, marked = panels(content)
    assert plain.shape[0] == closeup.PIXELS
    assert plain.shape[1] == pytest.approx(1.5 * closeup.PIXELS, abs=1)
    rows, columns = np.nonzero(plain.sum(axis=2) > 300)
    assert rows.mean() == pytest.approx(plain.shape[0] / 2, abs=6)
    assert columns.mean() == pytest.approx(plain.shape[1] / 2, abs=6)
    assert np.ptp(rows) == pytest.approx(13 / 40 * closeup.PIXELS, rel=0.1)
    warm = marked[..., 0] - marked[..., 2]
    assert warm[rows.min() : rows.max()].max() > 100
    assert (plain[..., 0] - plain[..., 2]).max() < 20


def test_up_is_the_head_and_to_the_right_is_the_front() -> None:
    scan, mask = scan_and_mask()

    content = closeup.draw(scan, mask, Cut("sagittal", (0, 0, 0), (60, 60)))

    plain, _ = panels(content)
    rows, columns = np.nonzero(plain.sum(axis=2) > 300)
    assert rows.mean() < 0.45 * plain.shape[0]
    assert columns.mean() > 0.55 * plain.shape[1]


def test_beyond_the_scan_there_is_air() -> None:
    scan, mask = scan_and_mask()

    content = closeup.draw(scan, mask, Cut("axial", (0, 0, 10), (300, 300)))

    assert panels(content)[0][0, 0].sum() == 0
    with pytest.raises(NotFoundError, match="outside the scan"):
        closeup.draw(scan, mask, Cut("axial", (0, 0, 999), (30, 30)))


def colours(*labels: int, names: dict[str, str] | None = None) -> Any:
    voxels = np.array(labels, np.uint8).reshape(-1, 1, 1)
    told = {"labels": names} if names else {}
    return closeup.colours_of(replace(phantoms.volume(voxels), provenance=told))


def test_colours_are_those_of_regions() -> None:
    told = colours(0, 1, 4)

    assert set(told) == {1, 2, 3, 4}
    assert told[REGION_CLASSES["lumbar"]] == (240, 150, 50)
    assert colours(0, 1) == {1: closeup.ORANGE}
    assert colours(20)[26] == (220, 80, 160)


def test_what_the_header_says_of_the_labels_goes_first() -> None:
    told = colours(0, 1, names={"1": "cervical", "4": "sacral"})

    assert told == {1: (70, 130, 240), 4: (220, 80, 160)}
    assert colours(0, 1, names={"1": "spine"}) == {1: closeup.ORANGE}
    assert colours(0, 1, names={"1": "C1", "26": "sacrum"})[26] == (220, 80, 160)


def test_pictures_are_drawn_again(tmp_path: Path) -> None:
    held = folder(tmp_path, ROW + DRAWN.replace("[-16, 20, 700]", "[0, 10, 10]"))
    scan, mask = scan_and_mask()
    phantoms.write_nifti(tmp_path / "scans/chest_ct.nii.gz", scan)
    name = "out/chest_ct/chest_ct_seg-spine_msk.nii.gz"
    phantoms.write_nifti(tmp_path / name, mask)

    (written,) = failures.redraw(held, tmp_path / "scans", tmp_path / "out")
    ((failure, content),) = failures.read(held).failures

    assert written.read_bytes() == content
    assert failure.sentence == "Ribs are marked."
    assert len(content) < LIMIT
    (tmp_path / name).unlink()
    with pytest.raises(NotFoundError, match="no mask of chest_ct"):
        failures.redraw(held, tmp_path / "scans", tmp_path / "out")


def test_a_model_without_a_folder_has_nothing_to_tell(tmp_path: Path) -> None:
    assert failures.read(tmp_path / "none.page") == failures.Weaknesses()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (ROW, "a picture that is not there: ribs.jpg"),
        (ROW.replace("sentence", "words"), "no list of failures"),
        (ROW + DRAWN.replace("sagittal", "oblique"), "no plane is called 'oblique'"),
        ("[[failure", "cannot be read"),
    ],
)
def test_a_damaged_folder_is_told(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ModelFileError, match=told):
        failures.read(folder(tmp_path, text))


def test_a_robustness_table_beside_the_list(tmp_path: Path) -> None:
    held = folder(tmp_path, '[robustness]\ndata = "two scans"\n')
    (held / failures.TABLE).write_text(
        "alteration,dice,fall,identical\nnoise,0.9,0.05,\norientation,,,True\n"
    )

    found = failures.read(held)

    assert found.measured_on == "two scans"
    first, second = found.robustness
    assert (first["dice"], first["identical"]) == (0.9, None)
    assert (second["dice"], second["identical"]) == (None, True)


def test_the_shipped_model_shows_where_it_fails() -> None:
    held = shelf.page_folder(shelf.locate(shelf.DEFAULT_MODEL))

    found = failures.read(held)

    assert 3 <= len(found.failures) <= 6
    for failure, content in found.failures:
        assert len(content) < LIMIT, failure.picture
        assert failure.cut is not None
        assert failure.sentence.endswith(".")
        assert failure.origin
        assert failure.licence
    listed = {failure.picture for failure, _ in found.failures}
    assert {path.name for path in held.glob("*.jpg")} == listed
