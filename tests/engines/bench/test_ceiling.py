"""The ceiling: a matrix product, by precision."""

import pytest
import torch

from engines.bench import ceiling
from engines.bench.ceiling import Ceiling
from engines.runtimes.devices import CPU


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceiling, "SIZE", {"cpu": 64, "cuda": 512})


@pytest.mark.usefixtures("small")
def test_it_is_operations_over_the_median_of_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = iter([9.0, *[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 700.0]] * 2)
    monkeypatch.setattr(ceiling, "_seconds", lambda *_: next(given))

    found = ceiling.measure(CPU)

    assert list(found) == ["float32", "bfloat16"]
    for one in found.values():
        assert one.gflops == pytest.approx(2 * 64**3 / 4 / 1e9)
        assert (one.size, one.tf32) == (64, False)


def test_matrices_are_smaller_where_a_product_takes_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in bfloat16 on a processor that emulates it: 2048 took minutes there."""
    monkeypatch.setattr(ceiling, "SIZE", {"cpu": 2048})
    rows = []

    def seconds(left: torch.Tensor, *_: object) -> float:
        rows.append(len(left))
        return (len(left) / 256) ** 3 * (0.1 if left.dtype == torch.bfloat16 else 1e-4)

    monkeypatch.setattr(ceiling, "_seconds", seconds)
    found = ceiling.measure(CPU)
    assert (found["float32"].size, found["bfloat16"].size) == (2048, 512)
    assert found["bfloat16"].gflops == pytest.approx(2 * 256**3 / 0.1 / 1e9)


@pytest.mark.usefixtures("small")
def test_it_leaves_torch_as_it_was() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert all(one.gflops > 0 for one in ceiling.measure(CPU).values())
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_int8_is_held_against_bfloat16() -> None:
    known = {"bfloat16": Ceiling("bfloat16", 100.0, 64)}

    assert ceiling.held_against("int8", known) is known["bfloat16"]
    assert ceiling.held_against("float32", known) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_faster_in_half_precision() -> None:
    found = ceiling.measure(torch.device("cuda:0"))

    assert set(found) == {"float32", "bfloat16", "float16"}
    assert found["float16"].gflops > found["float32"].gflops
    assert found["float32"].tf32 == torch.backends.cudnn.allow_tf32
