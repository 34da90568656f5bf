"""Sidecars speak BIDS, and name nobody unless asked to."""

import gzip
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest
from pydicom.dataset import Dataset

from engines.convert import sidecar
from engines.convert.assemble import assemble
from engines.convert.convert import ConvertRun, ConvertSettings
from engines.convert.findings import NONE, Repairs
from engines.convert.stack import Stack
from engines.errors import SpineError
from tests import dicom_phantoms as made
from tests import phantoms

PERSONAL = made.having(
    PatientName="Secret^Person^Q",
    PatientID="ID-4711-77",
    PatientBirthDate="19620317",
    PatientSex="F",
    PatientAge="061Y",
    PatientWeight=71.5,
    AccessionNumber="ACC90210",
    StudyID="ST31337",
    StudyInstanceUID="1.2.99.1",
    FrameOfReferenceUID="1.2.99.2",
    StudyDescription="Study of a person",
    StudyDate="20240229",
    StudyTime="131415",
    SeriesDate="20240229",
    AcquisitionDate="20240229",
    AcquisitionTime="131416",
    ContentDate="20240229",
    InstitutionName="Mercy Clinic",
    InstitutionAddress="Hidden Lane 5",
    ReferringPhysicianName="Doctor^Who",
    OperatorsName="Oper^Ator",
    StationName="CT99STATION",
    DeviceSerialNumber="SN55512",
)
SECRETS = (
    *("Secret", "Person", "4711", "19620317", "1962-03-17", "061Y", "71.5"),
    *("ACC90210", "ST31337", "1.2.99", "Study of", "20240229", "2024-02-29"),
    *("131415", "131416", "Mercy", "Hidden", "Doctor", "Oper", "CT99", "SN55512"),
)


def record(
    folder: Path,
    edit: made.Edit = made.as_is,
    repairs: Repairs = NONE,
    *,
    keep_identifiers: bool = False,
) -> dict[str, Any]:
    stack = made.stack_of(phantoms.write_dicom(folder, made.ct(), edit=edit))
    return of_stack(stack, repairs, keep_identifiers=keep_identifiers)


def of_stack(
    stack: Stack,
    repairs: Repairs = NONE,
    *,
    keep_identifiers: bool = False,
) -> dict[str, Any]:
    header = sidecar.facts(stack.volumes[0][0].path)
    told = sidecar.record(
        stack, header, assemble(stack, repairs), keep_identifiers=keep_identifiers
    )
    return dict(json.loads(json.dumps(told)))


def files_in(folder: Path) -> str:
    """Return the content of all files, NIfTI headers unpacked, in lower case."""
    parts = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            content = gzip.decompress(content) if path.suffix == ".gz" else content
            parts.append(path.name + content.decode("latin-1"))
    return "\n".join(parts).lower()


def convert(source: Path, output: Path, **settings: Any) -> None:
    run = ConvertRun([source], output, ConvertSettings(**settings))
    assert [result.status for result in run.results()] == ["done"]


def test_nothing_that_is_written_names_anybody(tmp_path: Path) -> None:
    phantoms.write_dicom(tmp_path / "in", made.ct(), edit=PERSONAL)
    convert(tmp_path / "in", tmp_path / "out")
    written = files_in(tmp_path / "out")

    assert "conversionsoftware" in written
    assert [word for word in SECRETS if word.lower() in written] == []


@pytest.mark.parametrize(
    "text",
    [
        "Spine SECRET",
        "person_lumbar",
        "CT 4711",
        "born 19620317",
        "for ACC90210",
        "scan of 20240229",
        "scan of 2024-02-29",
        "29.02.2024",
        "born 17-03-1962",
    ],
)
@pytest.mark.parametrize("keyword", ["SeriesDescription", "ProtocolName"])
def test_texts_that_hold_something_personal_are_dropped(
    tmp_path: Path, keyword: str, text: str
) -> None:
    told = made.all_of(PERSONAL, made.having(**{keyword: text}))
    phantoms.write_dicom(tmp_path / "in", made.ct(), edit=told)
    convert(tmp_path / "in", tmp_path / "out")
    written = files_in(tmp_path / "out")

    assert keyword.lower() not in written
    assert [word for word in SECRETS if word.lower() in written] == []


def test_harmless_texts_stay(tmp_path: Path) -> None:
    texts = {"SeriesDescription": "L-Spine 1.5 B70", "ProtocolName": "Spine routine"}

    told = record(tmp_path, made.all_of(PERSONAL, made.having(**texts)))
    assert {key: told[key] for key in texts} == texts


def test_file_names_are_not_told(tmp_path: Path) -> None:
    stray = made.having(2, ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    paths = phantoms.write_dicom(tmp_path / "in", made.ct(), edit=stray)
    for path in paths:
        path.rename(path.with_name(f"Secret_Person_{path.name}"))
    stack = made.stack_of(sorted((tmp_path / "in").iterdir()))

    told = of_stack(stack, Repairs(allow_gaps=True))
    assert told["Spine"]["Warnings"]
    assert "secret" not in json.dumps(told).lower()


def test_identifiers_are_kept_on_request(tmp_path: Path) -> None:
    told = made.all_of(PERSONAL, made.having(SeriesDescription="Secret spine"))
    kept = record(tmp_path, told, keep_identifiers=True)

    assert kept["PatientName"] == "Secret^Person^Q"
    assert kept["PatientID"] == "ID-4711-77"
    assert kept["PatientBirthDate"] == "19620317"
    assert kept["AcquisitionTime"] == "131416"
    assert kept["SeriesInstanceUID"].startswith("1.2.826")
    assert kept["InstitutionName"] == "Mercy Clinic"
    assert kept["SeriesDescription"] == "Secret spine"


def test_identifiers_stay_out_of_the_nifti_header_even_then(tmp_path: Path) -> None:
    phantoms.write_dicom(tmp_path / "in", made.ct(), edit=PERSONAL)
    convert(tmp_path / "in", tmp_path / "out", keep_identifiers=True)
    image = nib.load(tmp_path / "out" / "in_ct.nii.gz")
    header = image.header.binaryblock + b"".join(
        extension.get_content().encode()
        if isinstance(extension.get_content(), str)
        else bytes(extension.get_content())
        for extension in image.header.extensions
    )

    assert b"Secret" in (tmp_path / "out" / "in_ct.json").read_bytes()
    assert b"Secret" not in header
    assert b"20240229" not in header


@pytest.mark.parametrize(
    ("values", "key", "told"),
    [
        ({"EchoTime": 30.5}, "EchoTime", 0.0305),
        ({"RepetitionTime": 2500}, "RepetitionTime", 2.5),
        ({"InversionTime": 900}, "InversionTime", 0.9),
        ({"ExposureTime": 750}, "ExposureTime", 0.75),
        ({"FlipAngle": 12}, "FlipAngle", 12),
        ({"KVP": 120}, "KVP", 120),
        ({"XRayTubeCurrent": 180}, "XRayTubeCurrent", 180),
        ({"Exposure": 90}, "XRayExposure", 90),
        ({"CTDIvol": 4.5}, "CTDIvol", 4.5),
        ({"ConvolutionKernel": "B70f"}, "ConvolutionKernel", "B70f"),
        ({"ConvolutionKernel": ["Br58f", "3"]}, "ConvolutionKernel", "Br58f_3"),
        ({"ScanningSequence": ["SE", "IR"]}, "ScanningSequence", "SE_IR"),
        ({"Manufacturer": "Maker"}, "Manufacturer", "Maker"),
        ({"ManufacturerModelName": "M 1"}, "ManufacturersModelName", "M 1"),
        ({"BodyPartExamined": "SPINE"}, "BodyPart", "SPINE"),
        ({"PatientPosition": "HFS"}, "PatientPosition", "HFS"),
        ({"SliceThickness": 3}, "SliceThickness", 3),
        ({"EchoTrainLength": 17}, "EchoTrainLength", 17),
        ({"AcquisitionNumber": 2}, "AcquisitionNumber", 2),
        ({"GantryDetectorTilt": 12.5}, "GantryDetectorTilt", 12.5),
    ],
)
def test_keys_and_units_are_those_of_bids(
    tmp_path: Path, values: dict[str, Any], key: str, told: object
) -> None:
    found = record(tmp_path, made.having(**values))

    assert found[key] == told
    assert found["SeriesNumber"] == 3
    assert type(found["SeriesNumber"]) is int


@pytest.mark.parametrize("value", ["", None])
def test_empty_values_have_no_key(tmp_path: Path, value: object) -> None:
    told = record(tmp_path, made.having(KVP=value, Manufacturer=value))

    assert "KVP" not in told
    assert "Manufacturer" not in told


def test_values_that_are_no_numbers_have_no_key(tmp_path: Path) -> None:
    stack = made.stack_of(phantoms.write_dicom(tmp_path, made.ct()))
    header = sidecar.facts(stack.volumes[0][0].path)
    header.add_new("EchoTime", "LO", "short")
    told = sidecar.record(stack, header, assemble(stack), keep_identifiers=False)

    assert "EchoTime" not in told


def test_image_type_and_orientation_are_told(tmp_path: Path) -> None:
    told = record(tmp_path)

    assert told["ImageType"] == ["ORIGINAL", "PRIMARY", "AXIAL"]
    assert told["ImageOrientationPatientDICOM"] == [1, 0, 0, 0, 1, 0]
    assert told["ConversionSoftware"] == "spine"


def test_what_was_done_is_told(tmp_path: Path) -> None:
    told = record(tmp_path, made.moved({4: (0, 0, 2.5)}), Repairs(allow_gaps=True))[
        "Spine"
    ]

    assert told["Files"] == 5
    assert len(told["Series"]) == 8
    assert told["TransferSyntax"] == ["Explicit VR Little Endian"]
    assert told["Repairs"] == {"filled_slices": [4]}
    assert told["Warnings"] == ["series_gap"]
    assert "FourthAxis" not in told


@pytest.mark.parametrize(
    ("mark", "axis", "values"),
    [
        ("echo", "echo", [30.5, 60]),
        ("b_value", "b-value", [0, 1000]),
        ("temporal", "time", [1, 2]),
        ("acquisition", "acquisition", [1, 2]),
    ],
)
def test_fourth_axis_is_told(
    tmp_path: Path, mark: str, axis: str, values: list[float]
) -> None:
    paths = made.write_marked(tmp_path, [made.ct(), made.ct()], mark)
    told = of_stack(made.stack_of(paths))["Spine"]

    assert (told["FourthAxis"], told["FourthAxisValues"]) == (axis, values)


@pytest.mark.parametrize(
    ("times", "seconds"),
    [
        (("101500", "101530.5"), [0, 30.5]),
        (("095959.75", "100000.25"), [0, 0.5]),
        (("1015", "1016"), [0, 60]),
    ],
)
def test_times_of_day_count_from_the_first(
    tmp_path: Path, times: tuple[str, str], seconds: list[float]
) -> None:
    paths = []
    for number, time in enumerate(times):
        edit = made.all_of(made.instances(time), made.having(AcquisitionTime=time))
        folder = tmp_path / str(number)
        paths += phantoms.write_dicom(folder, made.ct(), edit=edit)
    told = of_stack(made.stack_of(paths))

    assert told["Spine"]["FourthAxisValues"] == seconds
    assert times[0] not in json.dumps(told)


def test_trigger_times_are_no_times_of_day(tmp_path: Path) -> None:
    paths = []
    for time in ("1000", "1400"):
        edit = made.all_of(made.instances(time), made.having(TriggerTime=time))
        paths += phantoms.write_dicom(tmp_path / time, made.ct(), edit=edit)
    told = of_stack(made.stack_of(paths))

    assert told["Spine"]["FourthAxisValues"] == [1000, 1400]


def test_part_of_a_series_is_told(tmp_path: Path) -> None:
    paths = made.write_marked(tmp_path, [made.ct(), made.ct()], "echo")
    first, second = made.stack_of(paths).split()

    assert of_stack(first)["Spine"]["Part"] == "e01"
    assert of_stack(second)["Spine"]["Part"] == "e02"


def test_echo_times_of_split_echoes_are_their_own(tmp_path: Path) -> None:
    paths = made.write_marked(tmp_path, [made.ct(), made.ct()], "echo")
    first, second = made.stack_of(paths).split()

    assert of_stack(first)["EchoTime"] == 0.0305
    assert of_stack(second)["EchoTime"] == 0.06


def test_groups_of_enhanced_objects_are_searched(tmp_path: Path) -> None:
    def tell(dataset: Dataset) -> None:
        shared = dataset.SharedFunctionalGroupsSequence[0]
        timing, echo, exposure = Dataset(), Dataset(), Dataset()
        timing.RepetitionTime, timing.FlipAngle = 2000, 90
        echo.EffectiveEchoTime = 90
        exposure.XRayTubeCurrentInmA, exposure.ExposureTimeInms = 210, 500
        shared.MRTimingAndRelatedParametersSequence = [timing]
        shared.MREchoSequence = [echo]
        shared.CTExposureSequence = [exposure]

    path = made.write_enhanced(
        tmp_path / "x.dcm", [made.ct()], modality="MR", edit=tell
    )
    told = of_stack(made.stack_of([path]))

    assert told["RepetitionTime"] == 2
    assert told["FlipAngle"] == 90
    assert told["EchoTime"] == 0.09
    assert told["XRayTubeCurrent"] == 210
    assert told["ExposureTime"] == 0.5


def test_scaling_of_philips_is_told(tmp_path: Path) -> None:
    def philips(number: int, dataset: Dataset) -> None:
        made.as_mr(number, dataset)
        dataset.Manufacturer = "Philips Healthcare"
        dataset.RescaleSlope, dataset.RescaleIntercept = 2, 1
        block = dataset.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
        block.add_new(0x0E, "FL", 0.5)

    told = record(tmp_path, philips)

    assert told["PhilipsRescaleSlope"] == 2
    assert told["PhilipsRescaleIntercept"] == 1
    assert told["PhilipsScaleSlope"] == 0.5


def test_secrets_are_words_of_three_letters_or_more() -> None:
    header = Dataset()
    header.PatientName, header.PatientID = "Li^Wei^Q", "A7-4711"
    header.OperatorsName = "Oper^Ator"

    assert sidecar.secrets(header) == {"wei", "4711", "oper", "ator"}


def test_facts_of_a_file_that_vanished(tmp_path: Path) -> None:
    with pytest.raises((OSError, SpineError)):
        sidecar.facts(tmp_path / "gone.dcm")
