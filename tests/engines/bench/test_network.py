"""The network alone: what is chosen, measured in turns, and told of what breaks."""

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch

from engines.arrays import Array
from engines.bench import network
from engines.bench.ceiling import Ceiling
from engines.errors import BackendError, SettingsError
from engines.labels import SPINE_CLASSES
from engines.networks import catalog
from engines.networks.complexity import describe_network
from engines.networks.manifest import Manifest, Model
from engines.preprocess.recipe import RECIPES
from engines.results import CaseResult
from engines.runtimes import backends
from engines.runtimes.backends import BACKENDS, Backend
from engines.runtimes.devices import CPU, Device
from engines.runtimes.torch_runtime import TorchRuntime
from engines.volume import Volume

CROP = Path(__file__).parents[2] / "data/tptbox_ct.nii.gz"
NETWORK = "linknet-mobilenet-v2"
CEILINGS = {name: Ceiling(name, 100.0, 64) for name in ("float32", "bfloat16")}

pytestmark = pytest.mark.usefixtures("one_thread")


def a_model(views: tuple[str, ...] = ("sagittal", "axial"), name: str = "one") -> Model:
    torch.manual_seed(0)
    net = catalog.find(NETWORK).build(in_channels=1, classes=2).eval()
    manifest = Manifest(
        name, NETWORK, SPINE_CLASSES, "ct", views, RECIPES["spine-ct"], patch=64
    )
    return Model(manifest, net, "", Path("one.safetensors"))


@pytest.fixture(scope="module")
def subject() -> network.Subject:
    return network.subject_of("one", a_model(), Volume.read(CROP), CPU)


def broken(*_: object) -> TorchRuntime:
    raise BackendError("the library refused the network")


def buggy(*_: object) -> TorchRuntime:
    return [][1]  # type: ignore[no-any-return]


class Breaks(TorchRuntime):
    """A runtime that gives up after its first rounds."""

    left = 4

    def predict(self, slices: Array) -> Array:
        if self.left == 0:
            raise RuntimeError("out of memory")
        self.left -= 1
        return super().predict(slices)


class Blind(TorchRuntime):
    """A runtime that sees spine nowhere."""

    def predict(self, slices: Array) -> Array:
        everywhere = np.ones_like(slices)
        return np.concatenate([everywhere, 0 * everywhere], axis=1)


def breaking(model: Model, device: Device, precision: str, _: object) -> Breaks:
    return Breaks(model, device, precision)


def blind(model: Model, device: Device, precision: str, _: object) -> Blind:
    made = Blind(model, device, "float32")
    made.precision = precision
    return made


def row(
    name: str, factory: str, libraries: Sequence[str] = (), precision: str = "float32"
) -> Backend:
    return Backend(
        name, f"{__name__}:{factory}", tuple(libraries), "torch", "extra",
        {"cpu": (precision,)},
    )  # fmt: skip


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Backend]:
    """Put rows of all fates into the table of backends."""
    torch_row = BACKENDS["torch"]
    rows = {
        "absent": row("absent", "broken", ["no_such_library"]),
        "torch": torch_row,
        "broken": row("broken", "broken"),
        "buggy": row("buggy", "buggy"),
        "lost": Backend(
            "lost", "engines.nowhere:load", (), "torch", "", {"cpu": ("int8",)}
        ),
        "breaking": row("breaking", "breaking"),
        "blind": row("blind", "blind", precision="int8"),
    }
    held = MappingProxyType(rows)
    monkeypatch.setattr(backends, "BACKENDS", held)
    monkeypatch.setattr(network, "BACKENDS", held)
    return held


def by_name(results: Sequence[CaseResult]) -> dict[str, CaseResult]:
    return {result.name: result for result in results}


def test_all_that_fits_the_device_is_chosen() -> None:
    chosen = {(row.name, p) for row, p in network.choices("cpu")}

    assert chosen == {
        (name, precision)
        for name, row in BACKENDS.items()
        for precision in row.precisions.get("cpu", ())
    }
    assert ("torch", "float32") in chosen
    assert not {name for name, _ in chosen} & {"tensorrt", "tensorrt-rtx"}


def test_the_reference_is_always_there() -> None:
    chosen = network.choices("cpu", ["openvino"], ["int8"])

    assert [(row.name, p) for row, p in chosen] == [
        ("torch", "float32"),
        ("openvino", "int8"),
    ]


@pytest.mark.parametrize(
    ("names", "precisions", "said"),
    [
        (["onnx"], [], "no backend is called 'onnx'"),
        ([], ["float64"], "no precision is called 'float64'"),
        (["tensorrt"], [], "tensorrt does not run on cpu"),
        (["openvino"], ["float16"], "no backend computes in float16 on cpu"),
    ],
)
def test_what_makes_no_sense_is_refused(
    names: list[str], precisions: list[str], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        network.choices("cpu", names, precisions)


def test_a_subject_is_slices_of_every_view(subject: network.Subject) -> None:
    assert subject.slices == sum(len(batch) for batch in subject.batches) == 16
    for batch in subject.batches:
        assert batch.shape[1] == 1
        assert min(batch.shape[2:]) >= 64
        assert (batch.max(axis=(1, 2, 3)) > 0).all()


def test_operations_are_those_that_the_manifest_counts() -> None:
    narrow = network.subject_of("one", a_model(("axial",)), Volume.read(CROP), CPU)
    (batch,) = narrow.batches
    rows, columns = batch.shape[2:]
    told = describe_network(NETWORK, 2, 256)["gflop_per_slice"]

    share = rows * columns / 256**2
    assert narrow.gflop / narrow.slices == pytest.approx(told * share, rel=0.02)


def test_all_are_measured_in_turns(
    subject: network.Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    kept = network._turn

    def turn(one: network.Contender, device: Device) -> None:
        seen.append(one.precision)
        kept(one, device)

    monkeypatch.setattr(network, "_turn", turn)

    measured = network.measure([subject], network.choices("cpu", ["torch"]), CPU, 3)

    assert seen == ["float32", "bfloat16"] * 4
    assert [len(one.seconds) for one in measured] == [3, 3]


def test_figures_follow_from_medians(
    subject: network.Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = count()
    lengths = {"float32": [9.0, 1.6, 3.2, 80.0], "bfloat16": [9.0, 0.4, 0.8, 1.2]}

    def turn(one: network.Contender, _: Device) -> None:
        one.seconds.append(lengths[one.precision][next(ticks) // 2])

    monkeypatch.setattr(network, "_turn", turn)
    measured = network.measure([subject], network.choices("cpu", ["torch"]), CPU, 3)
    reference, other = (r.details for r in network.results(measured, CEILINGS))

    assert reference["ms_per_slice"] == pytest.approx(3.2e3 / 16)
    assert other["ms_per_slice"] == pytest.approx(0.8e3 / 16)
    assert other["ms_range"] == pytest.approx([0.4e3 / 16, 1.2e3 / 16])
    assert other["slices_per_second"] == pytest.approx(20)
    assert (reference["times_as_fast"], other["times_as_fast"]) == (1, 4)
    assert other["gflops"] == pytest.approx(subject.gflop / 0.8, abs=0.06)
    share = subject.gflop / 0.8 / 100
    assert other["share_of_ceiling"] == pytest.approx(share, abs=1e-4)
    assert reference["gate"] is None
    assert other["gate"]["slices"] == sum(len(probe) for probe in subject.probes)


@pytest.mark.usefixtures("table")
def test_one_that_breaks_is_told_and_the_others_go_on(subject: network.Subject) -> None:
    measured = network.measure([subject], network.choices("cpu"), CPU, 3)
    rows = by_name(list(network.results(measured, CEILINGS)))

    assert rows["one torch float32"].status == "done"
    assert rows["one torch bfloat16"].status == "done"
    absent = rows["one absent float32"]
    assert absent.status == "skipped"
    assert absent.error is not None
    assert absent.error.hint == "Run: pip install 'spinecli[extra]'"
    told = {
        "broken float32": ("backend", "the library refused the network"),
        "buggy float32": ("bug", "IndexError"),
        "lost int8": ("bug", "No module named 'engines.nowhere'"),
        "breaking float32": ("bug", "out of memory"),
    }
    for name, (code, message) in told.items():
        failed = rows[f"one {name}"]
        assert failed.status == "failed"
        assert failed.error is not None
        assert failed.error.code == code
        assert message in failed.error.message
        assert "ms_per_slice" not in failed.details


@pytest.mark.usefixtures("table")
def test_labels_that_differ_are_told(subject: network.Subject) -> None:
    chosen = network.choices("cpu", ["blind"])
    measured = network.measure([subject], chosen, CPU, 1)
    _, blind_row = (r.details for r in network.results(measured, CEILINGS))

    assert blind_row["gate"]["passed"] is False
    assert blind_row["ceiling_precision"] == "bfloat16"
    assert blind_row["ceiling_stands_in"] is True


def test_a_second_model_is_held_against_the_first(
    subject: network.Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = {"one": 4.0, "two": 1.0}
    monkeypatch.setattr(
        network, "_turn", lambda one, _: one.seconds.append(lengths[one.subject.name])
    )
    small = network.subject_of("two", a_model(name="two"), Volume.read(CROP), CPU)
    chosen = network.choices("cpu", ["torch"], ["float32"])
    measured = network.measure([subject, small], chosen, CPU, 1)
    first, second = (r.details for r in network.results(measured, CEILINGS))

    assert (first["times_first"], second["times_first"]) == (None, 4)
    assert (first["times_as_fast"], second["times_as_fast"]) == (1, 1)


def test_a_network_in_three_dimensions_is_given_a_cube() -> None:
    net = catalog.find("mru-net-3d").build(in_channels=1, classes=2).eval()
    recipe = RECIPES["attention-linknet-cubes"]
    views = ("sagittal", "coronal", "axial")
    manifest = Manifest(
        "solid", "mru-net-3d", SPINE_CLASSES, "ct", views, recipe, patch=32
    )
    model = Model(manifest, net, "", Path("solid.safetensors"))

    made = network.subject_of("solid", model, Volume.read(CROP), CPU)

    (cube,) = made.batches
    assert cube.shape == (1, 1, 32, 32, 32)
    assert made.slices == 32
    assert made.gflop > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_tells_its_memory() -> None:
    device = Device("cuda", 0)
    placed = network.subject_of("one", a_model(), Volume.read(CROP), device)
    chosen = network.choices("cuda", ["torch"])

    rows = [
        result.details
        for result in network.results(
            network.measure([placed], chosen, device, 2), CEILINGS
        )
    ]

    assert {one["precision"] for one in rows} == {"float16", "bfloat16", "float32"}
    assert all(one["ms_per_slice"] > 0 for one in rows)
    assert any(one["gpu_memory_bytes"] > 0 for one in rows)
