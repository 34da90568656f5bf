"""Devices, the processor and its threads, without torch where there is no GPU."""

import ctypes
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engines.errors import DeviceError
from engines.runtimes import devices
from engines.runtimes.devices import Device

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("device", "text"),
    [(Device("cpu"), "cpu"), (Device("cuda", 0), "cuda:0"), (Device("cuda"), "cuda")],
)
def test_a_device_reads_as_that_of_torch(device: Device, text: str) -> None:
    assert str(device) == text == str(torch.device(str(device)))
    assert (device.type, device.index) == (
        torch.device(text).type,
        torch.device(text).index,
    )
    assert len({device, Device(device.type, device.index)}) == 1


@pytest.mark.parametrize("name", ["tpu", "cuda:x", "cuda:99", "cuda:-1"])
def test_devices_that_are_not_there_are_refused(name: str) -> None:
    with pytest.raises(DeviceError, match=name):
        devices.pick(name)


@pytest.mark.parametrize(
    ("count", "name", "picked", "all_picked"),
    [
        (0, "auto", "cpu", ["cpu"]),
        (2, "auto", "cuda:0", ["cuda:0", "cuda:1"]),
        (2, "cuda", "cuda:0", ["cuda:0", "cuda:1"]),
        (2, "cuda:1", "cuda:1", ["cuda:1"]),
        (2, "cpu", "cpu", ["cpu"]),
    ],
)
def test_what_a_name_stands_for(
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    name: str,
    picked: str,
    all_picked: list[str],
) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: count)
    assert str(devices.pick(name)) == picked
    assert [str(device) for device in devices.pick_all(name)] == all_picked


def test_the_cpu_can_be_ruled_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: 0)
    with pytest.raises(DeviceError, match="the CPU was ruled out"):
        devices.pick_all("auto", gpu=True)
    with pytest.raises(DeviceError, match="has 0 usable CUDA devices"):
        devices.pick("cuda")


class Driver:
    """Stands for the CUDA driver library."""

    def __init__(self, init: int = 0, counted: int = 0, gpus: int = 0) -> None:
        self.cuInit = lambda flags: init
        self.counted, self.gpus = counted, gpus

    def cuDeviceGetCount(self, place: Any) -> int:  # noqa: N802
        place._obj.value = self.gpus
        return self.counted

    def cuDriverGetVersion(self, place: Any) -> int:  # noqa: N802
        place._obj.value = 13000
        return 0


@pytest.mark.parametrize(
    ("driver", "gpus"),
    [
        (Driver(gpus=2), 2),
        (Driver(gpus=0), 0),
        (Driver(init=100, gpus=2), 0),
        (Driver(counted=3, gpus=2), 0),
        (SimpleNamespace(), 0),
        (OSError("libcuda.so.1: cannot open shared object file"), 0),
    ],
    ids=["two", "none", "no-init", "no-count", "odd-library", "no-library"],
)
def test_the_driver_says_how_many_gpus_there_are(
    monkeypatch: pytest.MonkeyPatch, driver: Any, gpus: int
) -> None:
    def load(name: str) -> Any:
        assert name in ("libcuda.so.1", "nvcuda.dll")
        if isinstance(driver, OSError):
            raise driver
        return driver

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert devices.driver_gpus() == gpus


def test_torch_is_asked_only_where_the_driver_shows_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(devices, "driver_gpus", lambda: 0)
    assert devices.gpus() == 0
    monkeypatch.setattr(devices, "driver_gpus", lambda: 4)
    assert devices.gpus() == 3
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.gpus() == 0


def a_cpuinfo(folder: Path, *lines: str) -> Path:
    path = folder / "cpuinfo"
    path.write_text("\n".join(("processor\t: 0", *lines, "")))
    return path


@pytest.mark.parametrize(
    ("line", "has"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 sse", True),
        ("flags\t\t: fpu amx_bf16", True),
        ("Features\t: fp asimd bf16 i8mm", True),
        ("flags\t\t: fpu avx512f avx512_bf16x", False),
        ("Features\t: fp asimd", False),
        ("bugs\t\t: bf16", False),
    ],
)
def test_bfloat16_is_a_flag_of_the_processor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: str, has: bool
) -> None:
    monkeypatch.setattr(devices, "CPUINFO", a_cpuinfo(tmp_path, line))
    assert devices.cpu_has_bfloat16() is has


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists the flags")
def test_flags_torch_and_openvino_agree_on_bfloat16(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    able = torch.cpu.get_capabilities()
    expected = bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    assert devices.cpu_has_bfloat16() == expected
    pytest.importorskip("openvino")
    monkeypatch.setattr(devices, "CPUINFO", tmp_path / "elsewhere")
    assert devices.cpu_has_bfloat16() == expected


def test_the_processor_has_the_name_that_its_maker_gave(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = a_cpuinfo(tmp_path, "model name\t: Some  CPU @ 2 GHz", "model name\t: No")
    monkeypatch.setattr(devices, "CPUINFO", path)
    assert devices.processor() == "Some CPU @ 2 GHz"
    monkeypatch.setattr(devices, "CPUINFO", tmp_path / "nowhere")
    assert devices.processor()


def test_what_computes_alike_has_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "processor", lambda: "Some CPU")
    for has, name in ((True, "Some CPU with bfloat16"), (False, "Some CPU")):
        monkeypatch.setattr(devices, "cpu_has_bfloat16", lambda has=has: has)
        assert devices.kind(devices.CPU) == name
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device}")
    assert devices.kind(Device("cuda", 1)) == "GPU cuda:1"


def test_threads_are_physical_cores_unless_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(devices, "cores", lambda: [0, 1, 4, 5])
    monkeypatch.setattr(devices, "SIBLINGS", str(tmp_path / "{}"))
    assert devices.threads() == 4
    for core, pair in ((0, "0,4"), (1, "1,5"), (4, "0,4"), (5, "1,5")):
        (tmp_path / str(core)).write_text(f"{pair}\n")
    assert devices.threads() == 2
    for given, count in (("3", 3), ("6,2", 6), ("0", 2), ("-1", 2), ("many", 2)):
        monkeypatch.setenv("OMP_NUM_THREADS", given)
        assert devices.threads() == count


def test_the_driver_has_a_version_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    version = tmp_path / "version"
    monkeypatch.setattr(devices, "DRIVER", version)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    assert devices.driver() == ""
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Driver(gpus=1))
    assert devices.driver() == "CUDA 13000"
    version.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22\n"
        "GCC version:  gcc version 12.2.0 (Debian)\n"
    )
    assert devices.driver() == "550.54.14"


TORCH_FREE = (
    "backends", "cache", "choose", "devices", "gate", "openvino_runtime", "pins",
    "plan", "runtime", "sealed", "sturdy", "trial", "tune", "verdicts",
)  # fmt: skip


def test_what_chooses_and_runs_imports_no_torch() -> None:
    code = f"""
import sys
from importlib import import_module
for name in {TORCH_FREE!r}:
    import_module("engines.runtimes." + name)
    assert "torch" not in sys.modules, name
from engines.runtimes import devices
devices.driver_gpus = lambda: 0
for device in devices.pick_all("auto"):
    devices.kind(device)
devices.threads()
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
