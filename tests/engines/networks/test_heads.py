"""Networks that are given more classes begin with what they knew."""

import pytest
import torch

from engines import labels
from engines.networks import catalog, heads

SLICE = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("wanted", ["regions", "vertebrae"])
def test_parts_sum_up_to_the_whole(wanted: str) -> None:
    spec = catalog.find("unet-r34")
    network = spec.build(in_channels=1, classes=2).eval()
    names = network.state_dict().keys()
    held, classes = labels.SPINE_CLASSES, labels.CLASS_SETS[wanted]
    with torch.no_grad():
        whole = network(SLICE).softmax(dim=1)[:, 1]

    heads.divide(network, spec.name, {}, held, classes)

    with torch.no_grad():
        parts = network(SLICE).softmax(dim=1)
    assert parts.shape[1] == len(classes)
    torch.testing.assert_close(parts[:, 1:].sum(dim=1), whole, rtol=0, atol=1e-5)
    assert network.state_dict().keys() == names


@pytest.mark.parametrize("name", ["inception-dual-unet", "linknet-34", "mru-net-3d"])
def test_regions_become_vertebrae(name: str) -> None:
    spec = catalog.find(name)
    network = spec.build(in_channels=1, classes=5).eval()
    image = torch.randn(spec.shape(spec.stride * 2))
    with torch.no_grad():
        regions = network(image).softmax(dim=1)
    given, wanted = labels.REGION_CLASSES, labels.VERTEBRA_CLASSES

    heads.divide(network, name, {}, given, wanted)

    with torch.no_grad():
        found = network(image).softmax(dim=1)
    lumbar = [labels.BY_NAME[f"L{n}"].id for n in range(1, 7)]
    torch.testing.assert_close(
        found[:, lumbar].sum(dim=1), regions[:, given["lumbar"]], rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    ("held", "wanted", "possible"),
    [
        ("spine", "regions", True),
        ("spine", "vertebrae", True),
        ("regions", "vertebrae", True),
        ("regions", "spine", False),
        ("spine", "mr", False),
        ("mr", "spine", False),
    ],
)
def test_only_parts_can_be_told_apart(
    held: str, wanted: str, *, possible: bool
) -> None:
    sets = labels.CLASS_SETS

    assert heads.divides(sets[held], sets[wanted]) is possible
