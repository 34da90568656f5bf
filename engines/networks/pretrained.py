"""ImageNet weights for the encoders, from a file or from what this machine holds.

Nothing is downloaded. Caches looked into are those of the Hugging Face hub and of
torch, where segmentation-models-pytorch, timm and torchvision keep theirs.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import safetensors.torch
import torch
from huggingface_hub import try_to_load_from_cache
from segmentation_models_pytorch.encoders import encoders
from torch import Tensor, nn

from engines.errors import SettingsError

CACHE = "cache"
"""What a user types for the weights that this machine already holds."""

TIMM = "tu-"
"""Start of the names of timm's encoders."""

HINT = "Give a file with --pretrained FILE, or leave it out to start at random."


def load(network: nn.Module, encoder: str, where: str) -> Path:
    """Put ImageNet weights into every encoder of ``network``.

    Args:
        network: one with ``encoder``, or several in ``encoders``; where it has one
            input channel, the three colours are added up.
        encoder: name of the encoder in segmentation-models-pytorch.
        where: path of a ``.safetensors`` or ``.pth`` file, or ``cache``.

    Returns:
        the file.

    Raises:
        SettingsError: no encoder, no such weights here, or weights of another one.
    """
    targets = list(_encoders_of(network))
    if not encoder or not targets:
        msg = "this network has no encoder that ImageNet weights exist for"
        raise SettingsError(msg, hint="Leave --pretrained out.")
    path = _cached(encoder) if where == CACHE else Path(where)
    if path is None:
        msg = f"this machine holds no ImageNet weights of {encoder!r}"
        raise SettingsError(msg, hint=HINT)
    held = _read(path)
    for target in targets:
        _put(target, held, path, encoder)
    return path


def _encoders_of(network: nn.Module) -> Iterator[nn.Module]:
    for name in ("encoder", "encoders"):
        found = getattr(network, name, None)
        if isinstance(found, nn.ModuleList):
            yield from found
        elif isinstance(found, nn.Module):
            yield found


def _cached(encoder: str) -> Path | None:
    known = encoders.get(encoder, {}).get("pretrained_settings", {}).get("imagenet")
    if encoder.startswith(TIMM):
        import timm

        told = timm.get_pretrained_cfg(encoder.removeprefix(TIMM))
        name = told.hf_hub_id if told else None
        known = {"repo_id": name, "revision": None} if name else None
    if known:
        repository, revision = known["repo_id"], known["revision"]
        found = try_to_load_from_cache(
            repository, "model.safetensors", revision=revision
        )
        if isinstance(found, str):
            return Path(found)
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    return next(iter(sorted(folder.glob(f"{encoder}-*.pth"))), None)


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            tensors: Mapping[str, Tensor] = safetensors.torch.load_file(path)
            return tensors
        held = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        msg = f"there is no file {path}"
        raise SettingsError(msg, hint=HINT) from None
    except Exception as error:
        msg = f"{path} holds no weights that can be read"
        raise SettingsError(msg, hint=HINT) from error
    if not isinstance(held, Mapping):
        msg = f"{path} holds a {type(held).__name__}, not a table of weights"
        raise SettingsError(msg, hint=HINT)
    table: Mapping[str, Tensor] = held.get("state_dict", held)
    return table


def _put(target: nn.Module, held: Mapping[str, Tensor], path: Path, name: str) -> None:
    wanted, found = target.state_dict(), {}
    for key, value in wanted.items():
        given = held.get(key, held.get(key.removeprefix("model.")))
        if given is None and key.endswith("num_batches_tracked"):
            given = value
        if isinstance(given, Tensor) and given.ndim == value.ndim == 4:
            colours, channels = given.shape[1], value.shape[1]
            if colours == 3 and channels == 1:
                given = given.sum(dim=1, keepdim=True)
            elif colours == 3 and channels != colours and given.shape[0] == len(value):
                turns = -(-channels // colours)
                given = given.repeat(1, turns, 1, 1)[:, :channels] * colours / channels
        if not isinstance(given, Tensor) or given.shape != value.shape:
            msg = f"{path} does not hold the weights of {name!r}: {key} does not fit"
            raise SettingsError(msg, hint=HINT)
        found[key] = given
    target.load_state_dict(found)
