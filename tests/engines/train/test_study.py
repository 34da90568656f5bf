"""Studies: what they read, refuse, train, skip, resume and print."""

import csv
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from engines.errors import (
    DeviceError,
    NotFoundError,
    SettingsError,
    TrainingError,
)
from engines.results import CaseResult
from engines.train import loop, study, study_run, study_table, study_text
from engines.train.study import Study
from engines.train.study_marks import fingerprint
from engines.train.study_run import StudyRun

DATA = Path(__file__).parents[2] / "data"
TINY = """
title = "Two losses"
metrics = ["dice", "hd_px"]
seeds = [0, 1]

[base]
network = "unet-r34"
views = ["sagittal"]
steps = 2
batch = 1
patches = [64]
warmup_steps = 1
validate_every = 2
checkpoint_every = 1
precision = "float32"

[[base.source]]
path = "train"
part = "train"

[[base.source]]
path = "test"
part = "test"

[[axis]]
name = "Loss"
key = "loss"
values = ["dice", "bce"]

[[figure]]
labels = ["bce"]
dice = 0.9
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(text)
    return path


def read(tmp_path: Path, text: str) -> Study:
    return study.read(written(tmp_path, text))


def grid(more: str = "", axes: str = "") -> str:
    rows = axes or '[[axis]]\nkey = "loss"\nvalues = ["dice", "bce"]\n'
    return f"{more}\n{rows}"


@pytest.mark.parametrize("name", study.shipped())
def test_a_shipped_study_reads_and_tells_its_paper(name: str) -> None:
    """All its configurations are valid and its figures match, or it is refused."""
    path = study.shipped()[name]
    found = study.read(path)

    assert found.published
    assert len(found.configurations) > 1 or len(found.seeds) > 1
    assert f"spine study {name} " in path.read_text()
    assert study.find(name) == path


def test_the_papers_figures_are_shipped() -> None:
    networks = study.read(study.find("mr-networks-losses"))
    published = {one.labels: one.published for one in networks.configurations}
    assert len(published) == 20
    assert published["U-Net", "BCE"]["miou"] == 0.8874
    assert published["Inception dual-output U-Net", "Dice"]["hd_px"] == 8.56
    linknet = study.read(study.find("ct-linknet-networks"))
    assert linknet.configurations[-1].published == {"dice": 0.9685, "iou": 0.9537}


def test_axes_are_combined_in_every_way(tmp_path: Path) -> None:
    axes = """
[base]
network = "inception-dual-unet"
[base.network_options]
dropout = 0.25
[[axis]]
name = "Attention"
[[axis.row]]
label = "SE"
set = { network_options = { attention = "se" } }
[[axis.row]]
label = "none"
[[axis]]
key = "network_options.inception"
values = [true, false]
"""
    found = read(tmp_path, grid(axes=axes))

    assert found.headings == ("Attention", "network_options.inception")
    assert [one.labels for one in found.configurations] == [
        ("SE", "true"),
        ("SE", "false"),
        ("none", "true"),
        ("none", "false"),
    ]
    assert found.configurations[1].settings.network_options == {
        "dropout": 0.25,
        "attention": "se",
        "inception": False,
    }
    assert found.configurations[1].run_name(3) == "se-false-seed3"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("seeds = [", "is not TOML"),
        ("title = 'x'", "no axes and no runs"),
        (grid(axes="[[axis]]\nname = 'x'\n"), "axis x: there are no rows"),
        (grid("[[run]]\nlabel = 'x'\n"), "both axes and runs"),
        (grid("[base]\nlose = 'dice'"), "dice: settings: there is no setting .*'lose'"),
        (grid("[base]\naugment = 3"), "dice: a setting is of the wrong kind"),
        (grid("[base]\nepochs = 3"), "dice: oblique slices have no end"),
        (grid("[base]\nnetwork = 'unet-r35'"), "dice: no model is called 'unet-r35'"),
        (grid("[base]\nclasses = 'ribs'"), "dice: classes cannot be 'ribs'"),
        (grid("base = 3"), "base must be a table"),
        (grid("colour = 'red'"), "no setting called 'colour'"),
        (grid("metrics = ['f2']"), "metrics: there is no metric called 'f2'"),
        (grid("metrics = []"), "metrics must be a list"),
        (grid("seeds = [1, 1]"), "seeds must be different whole numbers"),
        (grid("seeds = []"), "seeds must be different whole numbers"),
        (grid("[[figure]]\nlabels = ['hinge']\ndice = 0.9"), "figure .*: hinge"),
        (grid("[[figure]]\nlabels = ['bce']\nf2 = 0.9"), "no metric called 'f2'"),
        (grid("[[figure]]\ndice = 0.9"), "a figure has no labels"),
        (
            "[[run]]\nlabel = 'a b'\n[[run]]\nlabel = 'A-B'\n",
            "the same labels: a b and A-B",
        ),
        ("[[run]]\nlabel = 'a'\nseed = 3\n", "run: there is no setting called 'seed'"),
    ],
)
def test_nonsense_is_refused(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=told):
        read(tmp_path, text)


def test_a_missing_study_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        SettingsError, match=r"there is no study nowhere\.toml"
    ) as found:
        study.find("nowhere.toml")
    assert "mr-networks-losses" in found.value.hint


def test_the_fingerprint_counts_what_is_learnt_alone(tmp_path: Path) -> None:
    one = read(tmp_path, TINY).configurations[0]
    usual = fingerprint(one.of_seed(0))

    assert fingerprint(one.of_seed(0, "cuda")) == usual
    assert fingerprint(one.of_seed(1)) != usual
    for other in ('licence = "CC0"\nsteps = 2', "steps = 3"):
        changed = read(tmp_path, TINY.replace("steps = 2", other, 1)).configurations[0]
        same = fingerprint(changed.of_seed(0)) == usual
        assert same == ("licence" in other)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for part, name in (("train", "tptbox"), ("test", "tsexample")):
        (folder / part).mkdir(parents=True)
        for kind in ("ct", "seg-vert_msk"):
            shutil.copy(DATA / f"{name}_{kind}.nii.gz", folder / part)
    return folder


@pytest.fixture
def plan(tmp_path: Path) -> Study:
    return read(tmp_path, TINY)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads that wait for each other are slow beside other work on few cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Put a stand-in for the training in place, and return what it was asked for."""
    asked: list[tuple[str, bool]] = []

    def train(
        settings: Any, root: Path, run: Path,
        *, resume: bool, command: str, probes: bool,
    ) -> Iterator[loop.Event]:  # fmt: skip
        asked.append((settings.name, resume))
        if settings.loss == "bce" and (root / "burst").exists():
            msg = "the loss is nan at step 1"
            raise TrainingError(msg, hint="Lower learning_rate and resume.")
        (run / loop.CHECKPOINT).write_text("")
        (run / f"{settings.name}.safetensors").write_text("")
        (run / loop.CURVE).write_text(
            "step,loss,learning_rate,val_dice,seconds,waiting\n"
            f"1,{1 + settings.seed},1e-3,,3.0,0\n2,0.5,1e-3,0.25,1.5,0\n"
        )
        yield loop.Event(2, 2, 0.5, 1e-3, 0.25, 1.5, 0.0)

    def scored(self: StudyRun, one: Any, known: Any) -> dict[str, Any]:
        value = (0.5 if one.settings.loss == "dice" else 0.75) + 0.1 * one.seed
        curve = study_table.read_curve(one.folder / loop.CURVE)
        return {
            "status": "done",
            "metrics": dict.fromkeys(study.measures.MEASURES, value),
            "cases": {},
            "scored": {"part": "test", "cases": 1},
            "parameters": {"total": 24_447_266},
            "gflop_per_slice": 1.5,
            "seconds_per_slice": 0.25,
            "training_seconds": study_run._seconds(curve),
            "steps": 2,
            "device": "cpu",
        }

    monkeypatch.setattr(loop, "train", train)
    monkeypatch.setattr(StudyRun, "_scored", scored)
    return asked


def run(plan: Study, scans: Path, out: Path, **options: Any) -> list[CaseResult]:
    return list(StudyRun(plan, out, **options).results(scans, lambda *_: None))


def statuses(results: list[CaseResult]) -> list[str]:
    return [result.status for result in results]


@pytest.mark.usefixtures("one_thread")
def test_a_study_is_trained_scored_and_not_trained_again(
    scans: Path, tmp_path: Path
) -> None:
    """The real thing, with two steps for each of two configurations."""
    plan = read(tmp_path, TINY.replace("seeds = [0, 1]", "seeds = [4]"))
    out = tmp_path / "out"
    interrupted = StudyRun(plan, out)
    told = interrupted.results(scans, stop_after_a_step)
    with pytest.raises(KeyboardInterrupt):
        next(told)
    folder = out / "runs" / "dice-seed4"
    before = torch.load(folder / "checkpoint.pt", weights_only=True)["step"]

    steps: list[int] = []
    work = StudyRun(plan, out)
    first = list(work.results(scans, lambda _, event: steps.append(event.step)))

    assert statuses(first) == ["done", "done"]
    assert before == 2
    assert steps == [2]  # of the second alone: the first was resumed at its end
    record = json.loads((folder / "result.json").read_text())
    assert (record["scored"], record["steps"]) == ({"part": "test", "cases": 1}, 2)
    assert 0 <= record["metrics"]["dice"] <= 1
    assert record["cases"]["tsexample"]["dice"] == record["metrics"]["dice"]
    assert record["parameters"]["trainable"] == 24_430_242
    assert record["seconds_per_slice"] > 0
    names = sorted(path.name for path in folder.iterdir())
    assert "dice-seed4.safetensors" in names
    assert not {"checkpoint.pt", "begun.json"} & set(names)
    assert statuses(run(plan, scans, out)) == ["skipped", "skipped"]


def stop_after_a_step(_: object, event: loop.Event) -> None:
    raise KeyboardInterrupt


def test_only_what_is_missing_or_changed_is_trained(
    quick: list[tuple[str, bool]], plan: Study, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert statuses(run(plan, scans, out)) == ["done"] * 4
    assert statuses(run(plan, scans, out)) == ["skipped"] * 4
    assert len(quick) == 4

    (out / "runs" / "bce-seed0" / "result.json").unlink()
    assert statuses(run(plan, scans, out)) == ["skipped", "skipped", "done", "skipped"]

    changed = read(tmp_path, TINY.replace('values = ["dice"', 'values = ["focal"'))
    assert statuses(run(changed, scans, out)) == ["done", "done", "skipped", "skipped"]

    slower = read(tmp_path, TINY.replace("steps = 2", "steps = 2\nlearning_rate = 0.1"))
    assert statuses(run(slower, scans, out)) == ["done"] * 4

    shutil.copy(
        scans / "train" / "tptbox_ct.nii.gz", scans / "train" / "second_ct.nii.gz"
    )
    shutil.copy(
        scans / "train" / "tptbox_seg-vert_msk.nii.gz",
        scans / "train" / "second_seg-vert_msk.nii.gz",
    )
    assert statuses(run(slower, scans, out)) == ["done"] * 4


def test_a_checkpoint_of_the_same_settings_alone_is_resumed(
    quick: list[tuple[str, bool]], plan: Study, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for text in (TINY, TINY, TINY.replace("steps = 2", "steps = 2\nbatch = 2", 1)):
        text = text.replace("batch = 1", "") if "batch = 2" in text else text
        told = StudyRun(read(tmp_path, text), out).results(scans, stop_after_a_step)
        with pytest.raises(KeyboardInterrupt):
            next(told)

    assert quick == [
        ("dice-seed0", False),
        ("dice-seed0", True),
        ("dice-seed0", False),
    ]


def test_a_training_that_fails_leaves_the_others_and_begins_anew(
    quick: list[tuple[str, bool]], plan: Study, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (scans / "burst").touch()

    results = run(plan, scans, out)

    assert statuses(results) == ["done", "done", "failed", "failed"]
    assert results[2].error is not None
    assert results[2].error.message == "the loss is nan at step 1"
    table = (out / "study.md").read_text()
    assert "| 0 of 2 seeds, 2 failed |" in table
    assert "bce, seed 1 failed: the loss is nan at step 1" in table
    (scans / "burst").unlink()
    assert statuses(run(plan, scans, out)) == ["skipped", "skipped", "done", "done"]
    assert quick[-2:] == [("bce-seed0", False), ("bce-seed1", False)]


@pytest.mark.usefixtures("one_thread")
def test_a_network_that_overflows_fails_in_the_real_loop(
    monkeypatch: pytest.MonkeyPatch, scans: Path, tmp_path: Path
) -> None:
    plan = read(tmp_path, TINY.replace("seeds = [0, 1]", "seeds = [0]"))
    nan = torch.tensor(float("nan"), requires_grad=True)
    monkeypatch.setattr(loop.losses, "of_outputs", lambda *_: nan * 1)

    results = run(plan, scans, tmp_path / "out", only=["bce"])

    assert statuses(results) == ["failed"]
    assert results[0].error is not None
    assert "the loss is nan at step 1" in results[0].error.message


def test_the_table_holds_means_spreads_and_published_figures(
    quick: list[tuple[str, bool]], plan: Study, scans: Path, tmp_path: Path
) -> None:
    """Dice .5 and .6, .75 and .85: the sd of each pair is .1 / sqrt(2)."""
    out = tmp_path / "out"
    run(plan, scans, out)

    lines = (out / "study.md").read_text().splitlines()
    assert lines[0] == "# Two losses"
    assert "| dice | 0.5500 ± 0.0707 | **0.55 ± 0.07** |" in lines[-2]
    assert "| bce | **0.8000 ± 0.0707** (0.9000) | 0.80 ± 0.07 |" in lines[-1]
    assert lines[-1].endswith("| 24.45 | 1.50 | 250.0 | 2 of 2 seeds |")
    rows = list(csv.DictReader(io.StringIO((out / "study.csv").read_text())))
    dice = [
        (row["Loss"], row["seed"], float(row["value"]))
        for row in rows
        if row["metric"] == "dice"
    ]
    assert dice == [
        ("dice", "0", 0.5),
        ("dice", "1", 0.6),
        ("bce", "0", 0.75),
        ("bce", "1", 0.85),
    ]
    record = json.loads((out / "study.json").read_text())
    held = record["table"][1]["metrics"]["dice"]
    assert (held["mean"], held["best"], held["published"]) == (0.8, True, 0.9)
    assert held["sd"] == pytest.approx(0.1 / 2**0.5)
    assert record["table"][0]["training_seconds"] == 4.5
    page = (out / "index.html").read_text()
    assert page.count("<polyline") == 2
    assert "<title>bce</title>" in page
    assert [
        study_table.course(row, out, "loss") for row in study_table.gather(plan, out)
    ] == [[(1, 1.5), (2, 0.5)]] * 2


def test_what_is_not_finished_is_told(
    quick: list[tuple[str, bool]], plan: Study, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    next(StudyRun(plan, out).results(scans, lambda *_: None))

    lines = (out / "study.md").read_text().splitlines()
    assert lines[-2].startswith("| dice | 0.5000 | 0.50 |")
    assert lines[-2].endswith("| 1 of 2 seeds |")
    assert lines[-1] == "| bce | (0.9000) |  |  |  |  | 0 of 2 seeds |"


def test_results_of_other_settings_are_left_out_of_the_table(
    quick: list[tuple[str, bool]], plan: Study, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(plan, scans, out)
    slower = read(tmp_path, TINY.replace("steps = 2", "steps = 2\nlearning_rate = 0.1"))

    rows = study_text.write(slower, out)

    assert [row.finished for row in rows] == ["0 of 2 seeds"] * 2
    assert "other settings and left out: dice, seed 0;" in study_text.remarks(rows)[0]


def test_models_can_be_dropped_and_the_table_printed_alone(
    quick: list[tuple[str, bool]], plan: Study, scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(NotFoundError, match="no training of this study has ended"):
        list(StudyRun(plan, out).found())
    run(plan, scans, out, only=["BCE"], keep_models=False)

    assert not list(out.rglob("*.safetensors"))
    for name in study_text.TABLES:
        (out / name).unlink()
    found = list(StudyRun(plan, out).found())
    assert [one.name for one in found] == ["bce, seed 0", "bce, seed 1"]
    assert all((out / name).is_file() for name in study_text.TABLES)
    with pytest.raises(SettingsError, match="no configuration has 'hinge'"):
        StudyRun(plan, out, only=["hinge"])


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('part = "train"', 'part = "val"', "dice, seed 0: the split leaves no scan"),
        ('part = "test"', 'part = "train"', "dice, seed 0: there is no scan held out"),
        ('path = "test"', 'path = "none"', "there is no folder"),
        (
            "steps = 2",
            'steps = 2\nnetwork_options = { encoder = "vgg0" }',
            "dice, seed 0: unet cannot stand on the encoder 'vgg0'",
        ),
    ],
)
def test_nothing_is_trained_before_all_can_be(
    old: str,
    new: str,
    told: str,
    quick: list[tuple[str, bool]],
    scans: Path,
    tmp_path: Path,
) -> None:
    plan = read(tmp_path, TINY.replace(old, new, 1))
    with pytest.raises((SettingsError, TrainingError), match=told):
        run(plan, scans, tmp_path / "out")
    assert quick == []


def test_a_device_that_is_not_there_is_refused(
    quick: list[tuple[str, bool]], plan: Study, scans: Path, tmp_path: Path
) -> None:
    with pytest.raises(DeviceError):
        run(plan, scans, tmp_path / "out", device="cuda:77")
    assert quick == []


def test_a_label_outside_the_scheme_fails_the_training_with_its_name(
    scans: Path, tmp_path: Path
) -> None:
    text = TINY.replace('part = "train"', 'part = "train"\nscheme = "binary"', 1)
    plan = read(tmp_path, text.replace("seeds = [0, 1]", "seeds = [0]"))

    (result,) = run(plan, scans, tmp_path / "out", only=["bce"])

    assert result.error is not None
    assert "in the scheme 'binary'" in result.error.message
