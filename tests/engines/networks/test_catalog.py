"""The table of networks: its names, its sources, and what ``README.md`` says of it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engines.errors import UnknownModelError
from engines.networks import catalog, shelf
from engines.networks.complexity import describe_network, parameter_counts
from engines.networks.inventory import inventory
from engines.preprocess.recipe import RECIPES

README = Path(__file__).parents[3] / "README.md"
ROWS = pytest.mark.parametrize("name", list(catalog.NETWORKS))


@ROWS
def test_row_names_its_paper_and_a_recipe(name: str) -> None:
    spec = catalog.find(name)
    assert len(spec.source) > 20
    modality = RECIPES[spec.recipe].modality
    ct_views = ("axial", "sagittal", "coronal")
    assert spec.views == {"ct": ct_views, "mr": ("sagittal",)}[modality]


@ROWS
def test_readme_gives_the_row_and_its_weights(name: str) -> None:
    with torch.device("meta"):
        network = catalog.find(name).build(in_channels=1, classes=2)
    trainable = parameter_counts(network)["trainable"]
    row = rf"\| `{re.escape(name)}` \| [^|]+ \| {trainable:,} \|"
    assert re.search(row, README.read_text(encoding="utf-8"))


@ROWS
def test_inventory_lists_the_row(name: str) -> None:
    (entry,) = (one for one in inventory() if one.name == name)
    record = entry.as_json()
    assert record["modality"] == RECIPES[catalog.find(name).recipe].modality
    assert record["parameters"]["trainable"] > 1_000_000
    assert record["gflop_per_slice"] > 0.1


def test_networks_without_weights_have_no_path() -> None:
    held = {entry.name: entry.path is not None for entry in inventory()}
    shipped = {name for name, has_path in held.items() if has_path}
    assert shipped == {*shelf.DEFAULTS.values(), "mru-net-3d"}
    assert set(held) == set(catalog.NETWORKS)


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
