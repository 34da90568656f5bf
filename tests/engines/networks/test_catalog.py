"""Every row of the catalogue builds, keeps the grid, and names its paper."""

import subprocess
import sys

import pytest
import torch

from engines.errors import UnknownModelError
from engines.networks import catalog
from engines.networks.manifest import describe_network, parameter_counts
from engines.preprocess.recipe import RECIPES

ROWS = pytest.mark.parametrize("name", list(catalog.NETWORKS))


@ROWS
def test_row_keeps_the_grid(name: str) -> None:
    spec = catalog.find(name)
    network = spec.build(in_channels=1, classes=3).eval()
    with torch.inference_mode():
        logits = network(torch.zeros(2, 1, 2 * spec.stride, spec.stride))
    assert logits.shape == (2, 3, 2 * spec.stride, spec.stride)


@ROWS
def test_row_learns_one_batch(name: str) -> None:
    torch.manual_seed(0)
    spec = catalog.find(name)
    network = spec.build(in_channels=1, classes=2).train()
    image = torch.randn(2, 1, 2 * spec.stride, 2 * spec.stride)
    target = (image[:, 0] > 0.5).long()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for _ in range(25):
        loss = torch.nn.functional.cross_entropy(network(image), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


@ROWS
def test_row_names_its_paper_and_a_recipe(name: str) -> None:
    spec = catalog.find(name)
    assert len(spec.source) > 20
    assert spec.recipe in RECIPES


def test_unet_r34_has_the_library_s_parameters() -> None:
    counts = parameter_counts(catalog.find("unet-r34").build(in_channels=1, classes=2))
    assert counts["trainable"] == 24_430_242
    assert counts["total"] == counts["trainable"] + counts["non_trainable"]


def test_unet_r34_costs_what_it_should() -> None:
    told = describe_network("unet-r34", classes=2, size=256)
    assert told["gflop_per_slice"] == pytest.approx(15.4, abs=0.4)


def test_unknown_name_lists_the_known() -> None:
    with pytest.raises(UnknownModelError, match="'unet-r35'") as caught:
        catalog.find("unet-r35")
    assert "unet-r34" in caught.value.hint


def test_duplicate_rows_are_refused() -> None:
    row = catalog.find("unet-r34")
    with pytest.raises(ValueError, match="two rows are called 'unet-r34'"):
        catalog._by_name([row, row])


def test_table_imports_nothing_heavy() -> None:
    code = (
        "import sys, engines.networks.catalog, engines.preprocess.recipe;"
        "print({'torch', 'numpy', 'nibabel'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
