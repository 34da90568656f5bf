"""What the doctor finds on machines that lack something."""

from pathlib import Path

import pytest

from engines import doctor, extent
from engines.doctor import Finding
from engines.networks import shelf
from engines.runtimes import backends, devices


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_this_machine_is_examined_whole() -> None:
    found = by_name(doctor.examine())

    wanted = {"spine", "python", *doctor.LIBRARIES, "CPU cores", "CPU bfloat16"}
    assert wanted <= set(found)
    assert {"memory", "SPINE_MODELS", "temporary files"} <= set(found)
    assert [f for f in found.values() if "cannot be" in f.value] == []
    assert int(found["CPU cores"].value) >= 1
    for finding in found.values():
        assert bool(finding.hint) == (finding.verdict != "ok"), finding


def test_a_library_that_does_not_load_is_a_problem() -> None:
    found = doctor.library("no-such-thing", "no_such_thing")

    assert found.verdict == "problem"
    assert "No module named 'no_such_thing'" in found.value
    assert "pip install --force-reinstall no-such-thing" in found.hint


def test_an_old_python_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "OLDEST_PYTHON", (99, 0))
    monkeypatch.setattr(doctor, "LIBRARIES", {})

    found = by_name(list(doctor.versions()))["python"]

    assert (found.verdict, found.hint) == ("problem", "Install Python 99.0 or newer.")


def test_the_limit_of_a_container_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(extent, "CGROUP_LIMIT", limit)
    limit.write_text("max\n")
    whole = devices.memory_gib()
    limit.write_text(f"{2**31}\n")

    (found,) = doctor.memory()

    assert whole is not None
    assert whole > 2
    assert (found.value, found.verdict) == ("2.0 GiB", "warning")
    assert "--jobs 1" in found.hint


@pytest.fixture
def empty_shelf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Make a machine without models, and return its folder for them."""
    (tmp_path / "models").mkdir()
    monkeypatch.setattr(shelf, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setenv("SPINE_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def test_no_model_at_all_is_a_problem(empty_shelf: Path) -> None:
    found = by_name(list(doctor.models()))

    assert found["SPINE_MODELS"] == Finding("SPINE_MODELS", str(empty_shelf))
    assert (found["models"].value, found["models"].verdict) == (
        "none was found",
        "problem",
    )


def test_a_damaged_model_is_a_warning_and_does_not_count(empty_shelf: Path) -> None:
    (empty_shelf / "mine.safetensors").write_bytes(b"torn")

    found = by_name(list(doctor.models()))

    assert found["model mine"].verdict == "warning"
    assert found["models"].verdict == "problem"


def test_a_folder_of_models_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SPINE_MODELS", str(tmp_path / "nowhere"))

    found = by_name(list(doctor.models()))["SPINE_MODELS"]

    assert found.verdict == "warning"
    assert "nowhere" in found.value


def test_a_temporary_folder_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))

    (found,) = doctor.storage()

    assert (found.verdict, found.hint) == (
        "warning",
        "Set TMPDIR to a folder that may be written to.",
    )


def test_a_driver_that_torch_cannot_use_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(doctor, "NVIDIA_DRIVER", tmp_path / "nowhere")
    (without,) = doctor.graphics()
    monkeypatch.setattr(doctor, "NVIDIA_DRIVER", tmp_path)
    (with_driver,) = doctor.graphics()

    assert without == Finding("CUDA", "no device: the CPU is used")
    assert (with_driver.name, with_driver.verdict) == ("CUDA", "warning")


def test_a_backend_that_is_not_installed_is_told_and_no_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(row: backends.Backend) -> str | None:
        return "tensorrt_rtx" if row.name == "tensorrt-rtx" else None

    monkeypatch.setattr(backends.Backend, "missing", missing)
    monkeypatch.setattr(backends.Backend, "version", lambda row: f"1.2 {row.name}")

    found = by_name(list(doctor.runtimes()))

    assert set(found) == {f"backend {name}" for name in backends.BACKENDS}
    assert found["backend torch"].value == "1.2 torch"
    lacking = found["backend tensorrt-rtx"]
    assert lacking.value == "not installed: pip install 'spinecli[rtx]'"
    assert {finding.verdict for finding in found.values()} == {"ok"}


def test_a_check_that_breaks_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken() -> list[Finding]:
        raise RuntimeError("no driver")

    checks = {"graphics": broken, "storage": doctor.storage}
    monkeypatch.setattr(doctor, "CHECKS", checks)

    first, second = doctor.examine()

    assert first.value == "cannot be examined: RuntimeError: no driver"
    assert (first.name, first.verdict) == ("graphics", "warning")
    assert second.name == "temporary files"
