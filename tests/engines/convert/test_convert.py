"""A run converts each series whole, or says why not, and never spoils another."""

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.uid import RLELossless

from engines.convert import bits, convert, headers, sidecar
from engines.convert.convert import ConvertRun, ConvertSettings
from engines.convert.findings import Repairs
from engines.errors import OutputError, SettingsError
from engines.results import CaseResult
from engines.volume import Planes, Volume
from tests import dicom_phantoms as made
from tests import phantoms

Results = dict[str, CaseResult]


def run(source: Path, output: Path, **settings: Any) -> Results:
    """Convert all under ``source``; return the records by name."""
    work = ConvertRun([source], output, ConvertSettings(**settings))
    return {result.name: result for result in work.results()}


def written(folder: Path) -> list[str]:
    """Return the files below ``folder`` but for the run's record, sorted."""
    files = (path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix() for path in files}
    return sorted(names - {"convert.json", "convert.csv"})


def error_of(result: CaseResult) -> str:
    assert result.status == "failed"
    assert result.error is not None
    return result.error.code


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a folder with a good series in ``p 1/ser``."""
    phantoms.write_dicom(tmp_path / "in" / "p 1" / "ser", made.ct())
    return tmp_path / "in"


def test_series_becomes_nifti_with_sidecar(source: Path, tmp_path: Path) -> None:
    (result,) = run(source, tmp_path / "out").values()

    assert (result.name, result.status) == ("p 1/ser", "done")
    assert written(tmp_path / "out") == ["p 1/ser_ct.json", "p 1/ser_ct.nii.gz"]
    assert result.outputs == {
        "nifti": str(tmp_path / "out" / "p 1" / "ser_ct.nii.gz"),
        "sidecar": str(tmp_path / "out" / "p 1" / "ser_ct.json"),
    }
    read = Volume.read(Path(result.outputs["nifti"]))
    np.testing.assert_array_equal(read.voxels, made.ct().voxels)
    np.testing.assert_allclose(read.grid.affine, made.ct().grid.affine, atol=1e-4)
    assert read.provenance["kind"] == "converted"
    assert (
        read.provenance["series"]
        == made.stack_of(sorted((source / "p 1" / "ser").iterdir())).origin.digest
    )


def test_record_says_what_the_volume_is(source: Path, tmp_path: Path) -> None:
    (result,) = run(source, tmp_path / "out").values()

    assert result.details["volume"] == {
        "shape": [7, 6, 5],
        "type": "int16",
        "spacing_mm": [0.7, 1.1, 2.5],
        "axes": "LPS",
        "repairs": {},
    }
    record = json.loads((tmp_path / "out" / "convert.json").read_text())
    (case,) = record["cases"]
    assert case["outputs"]["nifti"] == "p 1/ser_ct.nii.gz"
    assert case["made_from"]["settings"] == ConvertSettings().as_json()
    assert record["left_out"] == []


def test_header_of_the_file_holds_the_affine_twice(
    source: Path, tmp_path: Path
) -> None:
    (result,) = run(source, tmp_path / "out").values()
    image = nib.load(result.outputs["nifti"])

    assert (image.header["qform_code"], image.header["sform_code"]) == (1, 1)
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert image.header["descrip"].item() == b""


@pytest.mark.parametrize(
    ("mark", "shape"), [("temporal", (7, 6, 5, 2)), ("b_value", (7, 6, 5, 2))]
)
def test_fourth_axis_is_written(
    tmp_path: Path, mark: str, shape: tuple[int, ...]
) -> None:
    first = made.ct()
    second = first.with_voxels(first.voxels + 5)
    (tmp_path / "in").mkdir()
    made.write_marked(tmp_path / "in", [first, second], mark)
    (result,) = run(tmp_path / "in", tmp_path / "out").values()

    image = nib.load(result.outputs["nifti"])
    assert image.shape == shape
    values = np.asanyarray(image.dataobj)
    np.testing.assert_array_equal(values[..., 0], first.voxels)
    np.testing.assert_array_equal(values[..., 1], second.voxels)


def test_colour_is_written(tmp_path: Path) -> None:
    scan = made.ct().with_voxels((phantoms.volume().voxels % 250).astype(np.int16))
    phantoms.write_dicom(tmp_path / "in", scan, intercept=0, edit=made.as_colour)
    (result,) = run(tmp_path / "in", tmp_path / "out").values()

    voxels = np.asanyarray(nib.load(result.outputs["nifti"]).dataobj)
    np.testing.assert_array_equal(voxels["R"], scan.voxels)
    np.testing.assert_array_equal(voxels["G"], 255 - scan.voxels)
    assert result.details["volume"]["type"] == "rgb"


def test_split_writes_a_file_for_each_step(tmp_path: Path) -> None:
    first = made.ct()
    second = first.with_voxels(first.voxels + 5)
    (tmp_path / "in").mkdir()
    made.write_marked(tmp_path / "in", [first, second], "echo")
    results = run(tmp_path / "in", tmp_path / "out", split=True)

    assert [*results] == ["in_e01", "in_e02"]
    for result, scan in zip(results.values(), (first, second), strict=True):
        read = Volume.read(Path(result.outputs["nifti"]))
        np.testing.assert_array_equal(read.voxels, scan.voxels)
    assert written(tmp_path / "out") == [
        *("in_e01_ct.json", "in_e01_ct.nii.gz"),
        *("in_e02_ct.json", "in_e02_ct.nii.gz"),
    ]


def test_parts_are_split_under_a_name_that_tells_each_once(tmp_path: Path) -> None:
    for kind in ("M", "P"):
        for time in (1, 2):
            edit = made.all_of(
                made.instances(f"{kind}{time}"),
                made.having(
                    ImageType=["ORIGINAL", "PRIMARY", kind],
                    TemporalPositionIdentifier=time,
                ),
            )
            folder = tmp_path / "in" / f"{kind}{time}"
            phantoms.write_dicom(folder, made.ct(), edit=edit)
    results = run(tmp_path / "in", tmp_path / "out", split=True)

    ends = [name.partition("_")[2].partition("_")[2] for name in results]
    assert ends == ["m_t01", "m_t02", "p_t01", "p_t02"]


def test_refused_series_never_stops_the_others(source: Path, tmp_path: Path) -> None:
    for name, edit in (
        ("0tilted", made.tilted(12)),
        ("a_gap", made.moved({4: (0, 0, 2.5)})),
        ("z_slopes", made.having(2, RescaleSlope=2)),
    ):
        phantoms.write_dicom(
            source / name, made.ct(), edit=edit, uid=f"1.2.{len(name)}"
        )
    (source / "bad.dcm").write_bytes(b"notes")
    truncated = phantoms.write_dicom(source / "truncated", made.ct(), uid="1.2.99")
    truncated[3].write_bytes(truncated[3].read_bytes()[:-30])
    results = run(source, tmp_path / "out")

    assert {name: error_of(r) for name, r in results.items() if r.error} == {
        "0tilted": "gantry_tilt",
        "a_gap": "series_gap",
        "z_slopes": "inconsistent_slope",
        "in": "unreadable",
        "truncated": "unreadable",
    }
    assert results["p 1/ser"].status == "done"
    assert written(tmp_path / "out") == ["p 1/ser_ct.json", "p 1/ser_ct.nii.gz"]


def test_repairs_are_recorded(source: Path, tmp_path: Path) -> None:
    next((source / "p 1" / "ser").glob("*2.dcm")).unlink()
    refused = run(source, tmp_path / "out")
    (result,) = run(source, tmp_path / "out", repairs=Repairs(allow_gaps=True)).values()

    assert error_of(refused["p 1/ser"]) in ("series_gap", "too_few_slices")
    filled = result.details["volume"]["repairs"]["filled_slices"]
    sidecar = json.loads(Path(result.outputs["sidecar"]).read_text())
    read = Volume.read(Path(result.outputs["nifti"]))
    assert len(filled) == 1
    assert sidecar["Spine"]["Repairs"] == {"filled_slices": filled}
    assert read.provenance["repairs"] == {"filled_slices": filled}
    assert [note.code for note in result.warnings] == ["series_gap"]


def _other_settings(_: Path) -> dict[str, Any]:
    return {"keep_identifiers": True}


def _other_pixels(source: Path) -> dict[str, Any]:
    changed = made.ct().with_voxels(made.ct().voxels + 1)
    phantoms.write_dicom(source / "p 1" / "ser", changed)
    return {}


def _lost_output(source: Path) -> dict[str, Any]:
    (source.parent / "out" / "p 1" / "ser_ct.nii.gz").unlink()
    return {}


def _lost_sidecar(source: Path) -> dict[str, Any]:
    (source.parent / "out" / "p 1" / "ser_ct.json").unlink()
    return {}


def _lost_record(source: Path) -> dict[str, Any]:
    (source.parent / "out" / "convert.json").unlink()
    return {}


def _forced(_: Path) -> dict[str, Any]:
    return {"overwrite": True}


def test_second_run_skips_and_touches_nothing(source: Path, tmp_path: Path) -> None:
    (first,) = run(source, tmp_path / "out").values()
    before = Path(first.outputs["nifti"]).stat().st_mtime_ns
    (again,) = run(source, tmp_path / "out").values()

    assert again.status == "skipped"
    assert again.outputs == first.outputs
    assert again.details == first.details
    assert Path(first.outputs["nifti"]).stat().st_mtime_ns == before


def test_skipped_case_keeps_its_warnings(source: Path, tmp_path: Path) -> None:
    next((source / "p 1" / "ser").glob("*2.dcm")).unlink()
    repairs = Repairs(allow_gaps=True, allow_few_slices=True)
    (first,) = run(source, tmp_path / "out", repairs=repairs).values()
    (again,) = run(source, tmp_path / "out", repairs=repairs).values()

    assert again.status == "skipped"
    assert again.warnings == first.warnings != ()


@pytest.mark.parametrize(
    "change",
    [
        _other_settings,
        _other_pixels,
        _lost_output,
        _lost_sidecar,
        _lost_record,
        _forced,
    ],
)
def test_case_is_redone_after_a_change(
    source: Path, tmp_path: Path, change: Callable[[Path], dict[str, Any]]
) -> None:
    run(source, tmp_path / "out")
    (again,) = run(source, tmp_path / "out", **change(source)).values()

    assert again.status == "done"
    assert written(tmp_path / "out") == ["p 1/ser_ct.json", "p 1/ser_ct.nii.gz"]


def test_threads_change_nothing_that_is_made(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out", threads=1)
    (again,) = run(source, tmp_path / "out", threads=3).values()

    assert again.status == "skipped"


def test_same_input_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "a")
    run(source, tmp_path / "b")
    names = written(tmp_path / "a")

    assert len(names) == 2
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (
            tmp_path / "b" / name
        ).read_bytes()


def test_held_and_streamed_slices_give_the_same_bytes(
    source: Path, tmp_path: Path
) -> None:
    packed = tmp_path / "packed" / "p 1" / "ser"
    for path in phantoms.write_dicom(packed, made.ct()):
        made.rewrite(path, RLELossless)
    (one,) = run(source, tmp_path / "a").values()
    (other,) = run(tmp_path / "packed", tmp_path / "b").values()

    plain = Path(one.outputs["nifti"]).read_bytes()
    assert Path(other.outputs["nifti"]).read_bytes() == plain


def test_names_that_clash_get_the_letters_of_their_series(
    source: Path, tmp_path: Path
) -> None:
    phantoms.write_dicom(source / "q", made.ct(), uid="1.2.3")
    results = run(source, tmp_path / "out", name="{modality}")
    stacks = {
        name: made.stack_of(sorted((source / name).iterdir())) for name in results
    }

    assert {result.status for result in results.values()} == {"done"}
    assert written(tmp_path / "out") == sorted(
        f"ct_{stack.origin.digest}{suffix}"
        for stack in stacks.values()
        for suffix in (".json", ".nii.gz")
    )


def test_names_that_clash_all_the_same_are_refused(
    source: Path, tmp_path: Path
) -> None:
    phantoms.write_dicom(source / "copy", made.ct())
    results = run(source, tmp_path / "out", name="{series}")

    assert {error_of(result) for result in results.values()} == {"name_clash"}
    for result in results.values():
        assert result.error is not None
        assert "copy and p 1/ser would both be called 3_" in result.error.message
        assert "{case}" in result.error.hint
    assert written(tmp_path / "out") == []


def test_name_is_filled_from_the_header(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out", name="s{series}/{patient}_{digest}")

    (sidecar, nifti) = written(tmp_path / "out")
    assert nifti.startswith("s3/4711_")
    assert sidecar == nifti.replace(".nii.gz", ".json")


def test_bad_template_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="'age'"):
        ConvertSettings(name="{age}")


def test_localizers_are_told(source: Path, tmp_path: Path) -> None:
    scout = made.having(ImageType="LOCALIZER")
    paths = phantoms.write_dicom(source / "scout", made.ct(), edit=scout, uid="1.2.3")
    work = ConvertRun([source], tmp_path / "out", ConvertSettings())
    results = [*work.results()]

    assert [result.status for result in results] == ["done"]
    assert {one["path"] for one in work.facts()["left_out"]} == set(map(str, paths))
    record = json.loads((tmp_path / "out" / "convert.json").read_text())
    assert len(record["left_out"]) == 5


def test_archives_are_converted(source: Path, tmp_path: Path) -> None:
    archive = tmp_path / "scans.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted(source.rglob("*.dcm")):
            packed.write(path, path.relative_to(source))
    (result,) = run(archive, tmp_path / "out").values()

    assert (result.name, result.status) == ("p 1/ser", "done")
    assert result.input == str(archive / "p 1" / "ser")
    read = Volume.read(Path(result.outputs["nifti"]))
    np.testing.assert_array_equal(read.voxels, made.ct().voxels)
    (again,) = run(archive, tmp_path / "out").values()
    assert again.status == "skipped"


def test_globs_choose_the_cases(source: Path, tmp_path: Path) -> None:
    phantoms.write_dicom(source / "q", made.ct(), uid="1.2.3")
    results = run(source, tmp_path / "out", include=("*",), exclude=("q",))

    assert [*results] == ["p 1/ser"]


def test_output_below_the_input_is_not_searched(source: Path) -> None:
    out = source / "out"
    run(source, out)
    phantoms.write_dicom(out / "stray", made.ct(), uid="1.2.3")

    assert [r.status for r in run(source, out).values()] == ["skipped"]


def test_originals_are_safe(source: Path) -> None:
    before = sorted(path.name for path in source.rglob("*"))

    with pytest.raises(SettingsError, match="holds the originals"):
        run(source, source)
    assert sorted(path.name for path in source.rglob("*")) == before


def test_input_that_is_gone_is_a_failed_case(tmp_path: Path) -> None:
    (result,) = run(tmp_path / "gone", tmp_path / "out").values()

    assert error_of(result) == "not_found"


def test_nothing_half_written_is_left_after_an_error(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scan = convert.write_scan

    def broken(path: Path, planes: Planes, *rest: Any, timed: bool) -> None:
        def some() -> Iterator[NDArray[Any]]:
            yield from [*planes.planes()][:2]
            raise OSError(28, "No space left on device")

        cut = Planes(planes.shape, planes.dtype, some)
        write_scan(path, cut, *rest, timed=timed)

    monkeypatch.setattr(convert, "write_scan", broken)
    (result,) = run(source, tmp_path / "out").values()

    assert error_of(result) == "output"
    assert written(tmp_path / "out") == []


def test_file_that_shrinks_while_it_is_converted_leaves_nothing(
    source: Path, tmp_path: Path
) -> None:
    path = sorted((source / "p 1" / "ser").iterdir())[3]

    def shrink(_: str, stage: str) -> None:
        if stage == "write":
            path.write_bytes(path.read_bytes()[:-40])

    work = ConvertRun([source], tmp_path / "out", ConvertSettings(), told=shrink)
    (result,) = work.results()

    assert error_of(result) == "unreadable"
    assert written(tmp_path / "out") == []


def test_failed_redo_keeps_no_stale_record(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out")
    path = sorted((source / "p 1" / "ser").iterdir())[3]
    path.write_bytes(path.read_bytes()[:-40])
    (result,) = run(source, tmp_path / "out").values()

    assert error_of(result) == "unreadable"
    record = json.loads((tmp_path / "out" / "convert.json").read_text())
    assert [case["status"] for case in record["cases"]] == ["failed"]


def test_output_that_cannot_be_made_is_told(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")

    with pytest.raises(OutputError, match="cannot write to"):
        run(source, tmp_path / "out")


def test_stages_are_told_as_they_begin(source: Path, tmp_path: Path) -> None:
    heard: list[tuple[str, str]] = []

    def told(name: str, stage: str) -> None:
        heard.append((name, stage))

    work = ConvertRun([source], tmp_path / "out", ConvertSettings(), told=told)
    assert [*work.results()]
    assert heard[-2:] == [("p 1/ser", "read"), ("p 1/ser", "write")]


@pytest.mark.parametrize("when", ["found", "read", "written"])
def test_file_that_is_replaced_meanwhile_is_refused(
    source: Path, tmp_path: Path, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder,) = source.glob("*/*")
    other = made.ct()
    changed = tmp_path / "other"
    phantoms.write_dicom(changed, other.with_voxels(other.voxels + 7))

    def swap() -> None:
        for path in changed.iterdir():
            path.replace(folder / path.name)

    work = ConvertRun([source], tmp_path / "out", ConvertSettings())
    if when == "found":
        swap()
    else:
        name = "assemble" if when == "read" else "write_scan"
        real = getattr(convert, name)

        def then(*args: Any, **more: Any) -> Any:
            swap()
            return real(*args, **more)

        monkeypatch.setattr(convert, name, then)
    (result,) = work.results()

    assert error_of(result) == "unreadable"
    assert result.error is not None
    assert "was changed while it was read" in result.error.message
    assert written(tmp_path / "out") == []
    monkeypatch.undo()
    (again,) = run(source, tmp_path / "out").values()
    assert again.status == "done"
    read = Volume.read(Path(again.outputs["nifti"]))
    np.testing.assert_array_equal(read.voxels, other.voxels + 7)


@pytest.mark.parametrize(
    ("where", "name"),
    [
        (headers, "marks_of"),
        (headers.FrameReader, "_frames"),
        (bits, "used"),
        (sidecar, "_number"),
    ],
)
@pytest.mark.parametrize("kind", [AttributeError, TypeError, KeyError, IndexError])
def test_fault_of_the_program_is_no_damage(
    source: Path,
    tmp_path: Path,
    where: Any,
    name: str,
    kind: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise kind("mistyped")

    monkeypatch.setattr(where, name, broken)
    results = run(source, tmp_path / "out")
    (failed,) = [one for one in results.values() if one.status == "failed"]

    assert error_of(failed) == "bug"
    assert failed.error is not None
    assert kind.__name__ in failed.error.message
    assert "in broken" in failed.error.traceback
    assert written(tmp_path / "out") == []
