"""Patients' names do not get into names of outputs, records, tables or messages."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from typer.testing import CliRunner

from engines.convert.convert import ConvertRun, ConvertSettings
from engines.convert.inspect import inspect
from engines.convert.persons import Hidden, words_of
from engines.scans import find_scans, read_case, survey
from spinecli.app import app
from tests import dicom_phantoms as made
from tests import phantoms


def hidden(name: str = "", identity: str = "", **more: str) -> Hidden:
    header = Dataset()
    header.PatientName, header.PatientID = name, identity
    for keyword, value in more.items():
        setattr(header, keyword, value)
    return Hidden(dict(words_of(header)))


@pytest.mark.parametrize(
    ("name", "identity", "part"),
    [
        ("Muster^Erika", "", "MUSTER"),
        ("MUSTER^ERIKA", "", "erika_ct_2"),
        ("Muster^Erika", "", "ErikaMuster"),
        ("Muster^Erika", "", "20200101muster01"),
        ("Müller^Hans", "", "Mueller"),
        ("Mueller^Hans", "", "MÜLLER"),
        ("Müller^Hans", "", "muller-h"),
        ("Núñez Peña^José", "", "NUNEZ"),
        ("Groß^Max", "", "GROSS"),
        ("Li^An", "", "Li_An"),
        ("Li^An", "", "an li"),
        ("Kim^Ree", "", "kim_1"),
        ("Yamada^Tarou=山田^太郎", "", "山田"),
        ("", "AB-123456", "ab123456"),
        ("", "AB-123456", "CT_123456"),
        ("", "00123456", "x00123456x"),
        ("", "4711", "4711_ct"),
    ],
)
def test_part_that_contains_name_or_number_is_replaced(
    name: str, identity: str, part: str
) -> None:
    one = hidden(name, identity)

    assert one.part(part).startswith("anon-")
    assert len(one.part(part)) == 13
    assert one.part(part) == hidden(name, identity).part(part)
    assert one.part(one.part(part)) == one.part(part)


@pytest.mark.parametrize(
    ("name", "identity", "part"),
    [
        ("A^B", "1", "AB1"),
        ("Muster^Erika", "", "spine_ct"),
        ("Anonymous", "", "anonymous_3"),
        ("Li^An", "", "lying"),
        ("Kim^X", "", "kimono"),
        ("", "4711", "147112"),
        ("", "12", "12"),
        ("", "", "Muster"),
    ],
)
def test_other_parts_stay(name: str, identity: str, part: str) -> None:
    assert hidden(name, identity).part(part) == part


def test_headers_without_identities_name_nobody() -> None:
    told = hidden("sub-0012", "sub-0012", PatientIdentityRemoved="YES")
    assert told.part("sub-0012") == "sub-0012"


def test_messages_keep_all_but_the_name() -> None:
    told = hidden("Muster^Erika", "").text("/in/Muster Erika/a.dcm: series 3 in 'ser'")

    assert told.startswith("/in/anon-")
    assert told.endswith("/a.dcm: series 3 in 'ser'")
    assert "uster" not in told


NAMED = made.having(PatientName="Muster^Erika", PatientID="AB-123456")


def tree(folder: Path) -> Path:
    """Return a tree with a good series, a broken one, and files that are left out."""
    root = folder / "Muster_Erika"
    phantoms.write_dicom(root / "AB123456" / "ser", made.ct(), edit=NAMED)
    gap = root / "MUSTER, E" / "gap"
    other = made.having(SeriesInstanceUID="1.2.3.99")
    edit = made.all_of(NAMED, made.instances("2"), other)
    phantoms.write_dicom(gap, made.ct(), edit=edit)
    sorted(gap.iterdir())[2].unlink()
    (root / "erika.txt").write_text("no scan")
    damaged = root / "damaged erika"
    damaged.mkdir()
    (damaged / "muster.dcm").write_bytes(b"no dicom")
    return root


def leaked(*texts: str) -> list[str]:
    words = ("muster", "erika", "123456")
    return [text for text in texts if any(word in text.lower() for word in words)]


def test_no_output_of_convert_names_the_patient(tmp_path: Path) -> None:
    source, out = tree(tmp_path), tmp_path / "out"
    result = CliRunner().invoke(app, ["convert", str(source), str(out)])

    assert result.exit_code == 3
    files = [path for path in out.rglob("*") if path.is_file()]
    content = [path.read_text() for path in files if path.suffix != ".gz"]
    names = [path.relative_to(out).as_posix() for path in files]
    assert leaked(*names, *content, result.output) == []
    assert len([*out.rglob("*.nii.gz")]) == 1
    record = json.loads((out / "convert.json").read_text())
    (done,) = [one for one in record["cases"] if one["status"] == "done"]
    (note,) = [one for one in done["warnings"] if one["code"] == "name_hidden"]
    assert "PatientID" in note["message"]


def test_same_input_has_the_same_names(tmp_path: Path) -> None:
    source = tree(tmp_path)
    runs = []
    for out in (tmp_path / "1", tmp_path / "2", tmp_path / "2"):
        typed = f"spine convert '{source}' out"
        work = ConvertRun([source], out, ConvertSettings(), command=typed)
        runs.append({result.name: result.status for result in work.results()})

    assert leaked((tmp_path / "2" / "convert.json").read_text()) == []
    assert runs[0] == runs[1]
    assert set(runs[2]) == set(runs[1])
    assert "skipped" in runs[2].values()


def test_names_stay_where_identifiers_are_kept(tmp_path: Path) -> None:
    source = tree(tmp_path)
    settings = ConvertSettings(keep_identifiers=True)
    work = ConvertRun([source], tmp_path / "out", settings)

    names = [case.name for case in work.cases]
    assert "AB123456/ser" in names
    assert all(not result.warnings for result in work.results() if result.error is None)


def test_scans_to_work_on_are_called_by_hashes_too(tmp_path: Path) -> None:
    seen = survey([tree(tmp_path)])
    texts = [f"{one.name} {one.path} {one.problem}" for one in seen.found]
    texts += [str(one.path) for one in seen.left_out]
    assert leaked(*texts) == []

    (good, bad) = [one for one in seen.found if one.stack]
    good, bad = (good, bad) if good.name.endswith("ser") else (bad, good)
    volume, notes = read_case(good)
    assert volume.grid.shape == made.ct().grid.shape
    assert [note.code for note in notes] == ["name_hidden"]
    with pytest.raises(Exception, match="slice") as caught:
        read_case(bad)
    assert leaked(str(caught.value)) == []


def test_real_names_may_be_used_to_choose(tmp_path: Path) -> None:
    found = find_scans([tree(tmp_path)], include=["AB123456/*"])
    assert [one.name.split("/")[-1] for one in found] == ["ser"]


def test_table_of_series_names_nobody(tmp_path: Path) -> None:
    rows: Any = inspect([tree(tmp_path)]).rows
    assert leaked(*(json.dumps(row.as_json()) for row in rows)) == []
