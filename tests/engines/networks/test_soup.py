"""The mean of several states of one network, and nothing else, is averaged."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engines.errors import ModelFileError
from engines.labels import SPINE_CLASSES
from engines.networks import catalog, soup
from engines.networks.manifest import Manifest, Model
from engines.preprocess.recipe import RECIPES

pytestmark = pytest.mark.usefixtures("one_thread")


def a_model(seed: int, name: str = "linknet-mobilenet-v2") -> Model:
    torch.manual_seed(seed)
    network = catalog.find(name).build(in_channels=1, classes=2).train()
    network(torch.randn(2, 1, 32, 32))  # running statistics of its own
    recipe = RECIPES["spine-ct"]
    manifest = Manifest("m", name, SPINE_CLASSES, "ct", ("axial",), recipe)
    return Model(manifest, network.eval(), "", Path(f"{seed}.safetensors"))


def test_every_weight_is_the_mean() -> None:
    models = [a_model(seed) for seed in range(3)]

    made = soup.averaged(models)

    assert not made.training
    for name, value in made.state_dict().items():
        given = [model.network.state_dict()[name] for model in models]
        if value.is_floating_point():
            torch.testing.assert_close(value, torch.stack(given).mean(dim=0))
        else:
            assert torch.equal(value, given[-1])


def test_one_model_stays_what_it_is() -> None:
    model = a_model(0)
    image = torch.randn(1, 1, 32, 32)
    with torch.inference_mode():
        assert torch.equal(soup.averaged([model])(image), model.network(image))


def test_models_of_several_shapes_are_refused() -> None:
    with pytest.raises(ModelFileError, match=r"0\.safetensors and 1\.safetensors"):
        soup.averaged([a_model(0), a_model(1, "linknet-34")])


def test_models_of_other_classes_are_refused() -> None:
    one, other = a_model(0), a_model(1)
    manifest = replace(other.manifest, classes={"background": 0, "bone": 1})
    other = replace(other, manifest=manifest)
    with pytest.raises(ModelFileError, match="not of one shape"):
        soup.averaged([one, other])


def test_nothing_cannot_be_averaged() -> None:
    with pytest.raises(ModelFileError, match="no model"):
        soup.averaged([])
