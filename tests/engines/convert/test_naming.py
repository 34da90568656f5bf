"""Names of files are filled from the header and never leave their folder."""

from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from engines.convert import naming
from engines.convert.stack import Stack
from engines.errors import SettingsError
from tests import dicom_phantoms as made
from tests import phantoms


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Stack:
    folder = tmp_path_factory.mktemp("series")
    return made.stack_of(phantoms.write_dicom(folder, made.ct()))


def header(**values: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def named(
    stack: Stack,
    template: str,
    told: Dataset | None = None,
    *,
    keep_identifiers: bool = False,
) -> str:
    return naming.name_of(
        stack,
        "p 1/ser",
        told or Dataset(),
        naming.check(template),
        keep_identifiers=keep_identifiers,
    )


@pytest.mark.parametrize(
    ("template", "name"),
    [
        (naming.DEFAULT, "p 1/ser_ct"),
        ("{case}", "p 1/ser"),
        ("{modality}/{series}", "ct/3"),
        ("s{series}_{description}", "s3_L-Spine_1.5_B70"),
        ("{protocol}", "Routine"),
        ("{patient}/{date}_{time}_{study}", "4711/20240229_131415_S1"),
        ("{part}", "unknown"),
        ("{{{series}}}", "{3}"),
    ],
)
def test_fields_are_filled(stack: Stack, template: str, name: str) -> None:
    told = header(
        SeriesDescription="L-Spine 1.5 B70",
        ProtocolName="Routine",
        PatientID="4711",
        StudyDate="20240229",
        StudyTime="131415",
        StudyID="S1",
    )

    assert named(stack, template, told) == name


def test_digest_is_that_of_the_series(stack: Stack) -> None:
    assert named(stack, "{digest}") == stack.origin.digest


def test_silent_header_is_called_unknown(stack: Stack) -> None:
    fields = ("description", "protocol", "patient", "date", "time", "study", "part")

    for field in fields:
        assert named(stack, f"x_{{{field}}}") == "x_unknown"


def test_parts_of_a_series_have_names_of_their_own(tmp_path: Path) -> None:
    paths = made.write_marked(tmp_path, [made.ct(), made.ct()], "echo")
    first, second = made.stack_of(paths).split()

    assert named(first, "{modality}") == "ct_e01"
    assert named(second, "{part}/{modality}") == "e02/ct"


def test_part_is_not_told_twice(tmp_path: Path) -> None:
    paths = made.write_marked(tmp_path, [made.ct(), made.ct()], "echo")
    first, _ = made.stack_of(paths).split()
    name = naming.name_of(
        first, "ser_e01", Dataset(), naming.DEFAULT, keep_identifiers=False
    )

    assert name == "ser_e01_ct"


@pytest.mark.parametrize("text", ["Spine of Person", "SECRET spine", "x4711x"])
def test_texts_that_name_the_patient_are_unknown(stack: Stack, text: str) -> None:
    told = header(
        SeriesDescription=text,
        ProtocolName=text,
        PatientName="Secret^Person",
        PatientID="4711",
    )

    assert named(stack, "{description}_{protocol}", told) == "unknown_unknown"
    kept = named(stack, "{description}", told, keep_identifiers=True)
    assert kept == naming.tidy(text)


@pytest.mark.parametrize(
    ("text", "tidied"),
    [
        ("a b/c\\d:e*f?g", "a_b_c_d_e_f_g"),
        ("../../etc/passwd", "etc_passwd"),
        ("..", ""),
        (".hidden", "hidden"),
        ("  wide  ", "wide"),
        ("a\0b\nc", "a_b_c"),
        ("Größe 5", "Größe_5"),
        ("x" * 300, "x" * naming.MAX_LENGTH),
        ("", ""),
    ],
)
def test_texts_become_parts_of_file_names(text: str, tidied: str) -> None:
    assert naming.tidy(text) == tidied


@pytest.mark.parametrize("hostile", ["../../up", "/etc/passwd", "..", "a/../../b"])
def test_no_header_leads_out_of_the_folder(stack: Stack, hostile: str) -> None:
    told = header(SeriesDescription=hostile, PatientID=hostile, StudyID=hostile)
    name = Path(named(stack, "x/{description}/{patient}/{study}", told))

    assert len(name.parts) == 4
    assert not name.is_absolute()
    assert ".." not in name.parts


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{age}", "no field of a name is called 'age'"),
        ("{}", "no field of a name is called ''"),
        ("{0}", "no field of a name is called '0'"),
        ("{case.parent}", "no field of a name is called 'case.parent'"),
        ("{case[0]}", r"no field of a name is called 'case\[0\]'"),
        ("{case!r}", "no field of a name is called"),
        ("{series:03}", "no field of a name is called"),
        ("{case", "a brace too many or too few"),
        ("case}", "a brace too many or too few"),
        ("scan", "needs a field and may not leave its folder"),
        ("", "needs a field and may not leave its folder"),
        ("{{case}}", "needs a field and may not leave its folder"),
        ("../{case}", "needs a field and may not leave its folder"),
        ("{case}/../../x", "needs a field and may not leave its folder"),
        ("/{case}", "needs a field and may not leave its folder"),
    ],
)
def test_bad_templates_are_refused(template: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        naming.check(template)


def test_unknown_field_is_told_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="'age'") as caught:
        naming.check("{age}")

    assert caught.value.hint == f"Choose from: {', '.join(naming.FIELDS)}."


@pytest.mark.parametrize(
    ("template", "needed"),
    [
        (naming.DEFAULT, False),
        ("{case}_{series}_{digest}_{part}", False),
        ("{description}", True),
        ("{case}/{date}", True),
    ],
)
def test_whole_header_is_read_only_where_a_field_needs_it(
    template: str, *, needed: bool
) -> None:
    assert naming.needs_header(template) is needed
