"""Examples of the man pages: lines that a test runs, each with what it does."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

EXAMPLES: Mapping[str, Sequence[tuple[str, str]]] = MappingProxyType(
    {
        "segment": (
            ("spine segment scans/ -o OUT", "Label every scan below a folder."),
            (
                "spine segment scans/ -o OUT --model mru-net-3d",
                "Number single vertebrae.",
            ),
            (
                "spine segment scans/ -o OUT --dry-run",
                "Say which cases are done already, and which would be segmented.",
            ),
        ),
        "convert": (
            ("spine convert /data/export nifti/", "A NIfTI file for each series."),
            ("spine convert /data/export nifti/ --list", "Only list the series."),
        ),
        "inspect": (("spine inspect /data/export", "What is there, what is wrong."),),
        "preprocess": (
            (
                "spine preprocess scans/ prepared/ --recipe linknet-2025",
                "Prepare scans as a paper does.",
            ),
        ),
        "train": (
            (
                "spine train --data DIR -o MINE --classes regions --parent unet-r34 "
                "--steps 500",
                "Go on from the shipped model with scans of your own.",
            ),
            (
                "spine train --data DIR --preview-data sheet.png",
                "Look at training slices as the network gets them.",
            ),
        ),
        "study": (("spine study mine.toml --data DIR -o OUT", "A grid of trainings."),),
        "prune": (
            (
                "spine prune unet-r34 --data DIR --flops 50% -o small.safetensors",
                "Leave half of the operations.",
            ),
        ),
        "evaluate": (
            ("spine evaluate preds/ gt/ -o scores", "Scores, as tables and a page."),
            (
                "spine evaluate preds/ gt/ --json > scores.json",
                "The same for a program.",
            ),
        ),
        "models": (
            ("spine models", "The models that can be used here."),
            ("spine models unet-r34", "What one does, how good it is, its limits."),
            (
                "spine models unet-r34 --page unet-r34.html",
                "The same as a page, with pictures of where it fails.",
            ),
        ),
        "engine-build": (
            (
                "spine engine build unet-r34 --backend openvino",
                "An engine for CPUs, ahead of the first run.",
            ),
        ),
        "engine-list": (("spine engine list", "The engines that are kept."),),
        "engine-inspect": (
            ("spine engine inspect unet-r34", "All engines of that model."),
        ),
        "engine-tune": (
            (
                "spine engine tune unet-r34",
                "Measure the backends here, and prefer the fastest from now on.",
            ),
            ("spine engine tune unet-r34 --forget", "Go back to the usual order."),
        ),
        "engine-clear": (("spine engine clear unet-r34", "Remove them."),),
        "bench": (
            (
                "spine bench scans/ --backend torch",
                "Time this machine on scans of your own.",
            ),
        ),
        "doctor": (("spine doctor", "What is here, what will not work, and why."),),
    }
)
"""Page, without the program's name -> lines and what each does."""
