"""An evaluation writes its files, and a page that opens with the worst case."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from engines.errors import SettingsError
from engines.metrics.evaluate import EvaluateSettings
from engines.report import evaluation
from engines.report.evaluation import EvaluateRun, inputs_of
from tests.browser import opened

DATA = Path(__file__).parents[2] / "data"
SHIFTS = {"good": 0, "fair": 1, "poor": 3}


def save(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels.astype(np.uint8), affine), path)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    root = tmp_path_factory.mktemp("evaluation")
    image = nib.load(DATA / "tptbox_seg-vert_msk.nii.gz")
    labels = np.asanyarray(image.dataobj)
    for name, shift in SHIFTS.items():
        file = f"{name}_seg-vert_msk.nii.gz"
        save(root / "truth" / file, labels, image.affine)
        save(root / "preds" / file, np.roll(labels, shift, 0), image.affine)
        save(root / "others" / file, np.roll(labels, 2, 0), image.affine)
    save(root / "truth" / "lost_seg-vert_msk.nii.gz", labels, image.affine)
    scan = nib.load(DATA / "tptbox_ct.nii.gz")
    nib.save(scan, root / "truth" / "poor_ct.nii.gz")
    return SimpleNamespace(
        preds=root / "preds", truth=root / "truth", others=root / "others"
    )


def run(folders: SimpleNamespace, output: Path | None, **more: Any) -> EvaluateRun:
    inputs = inputs_of(folders.preds, folders.truth, None)
    work = EvaluateRun(inputs, EvaluateSettings(), output, **more)
    list(work.results())
    return work


@pytest.fixture(scope="module")
def written(folders: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("report")
    run(folders, output, compare=folders.others, scans=folders.truth, command="spine")
    return output


def test_all_files_are_written(written: Path) -> None:
    assert sorted(path.name for path in written.iterdir()) == [
        "evaluation.csv",
        "evaluation.json",
        "index.html",
        "summary.json",
    ]
    record = json.loads((written / "evaluation.json").read_text())
    rows = list(csv.DictReader((written / "evaluation.csv").read_text().splitlines()))
    assert [case["name"] for case in record["cases"]] == [
        "fair",
        "good",
        "lost",
        "poor",
    ]
    assert len(rows) == sum(len(case["labels"]) for case in record["cases"])
    assert record["comparison"]["dice"]["wins"] == 2
    assert record["comparison"]["dice"]["losses"] == 1


def test_the_worst_case_comes_first(browser: Any, written: Path) -> None:
    page = written / "index.html"
    with opened(browser, page) as seen:
        names = seen.page.locator("tr.case td.name").all_inner_texts()
        captions = seen.page.locator(".gallery figcaption").all_inner_texts()
        facts = seen.page.locator(".facts").inner_text()

        assert [name.strip("▸ \xa0") for name in names] == [
            "lost",
            "poor",
            "fair",
            "good",
        ]
        assert captions[0] == "lost: Dice 0.0000 (no prediction)"
        assert captions[-1] == "good: Dice 1.0000"
        assert "4 cases, 4 scored" in facts
    assert seen.errors == []
    assert seen.requests == [page.as_uri()]


def test_what_is_not_there_stands_out(browser: Any, tmp_path: Path) -> None:
    image = nib.load(DATA / "tptbox_seg-vert_msk.nii.gz")
    labels = np.asanyarray(image.dataobj)
    for name, found in (("lost", None), ("empty", 0 * labels), ("shifted", labels)):
        save(tmp_path / "truth" / f"{name}.nii.gz", labels, image.affine)
        if found is not None:
            path = tmp_path / "preds" / f"{name}.nii.gz"
            save(path, np.roll(found, 40, 0), image.affine)
    save(tmp_path / "truth" / "other.nii.gz", labels, image.affine)
    save(tmp_path / "preds" / "other.nii.gz", labels[1:], image.affine)
    given = SimpleNamespace(preds=tmp_path / "preds", truth=tmp_path / "truth")
    run(given, tmp_path / "out")

    with opened(browser, tmp_path / "out" / "index.html") as seen:
        alarms = seen.page.locator(".alarms li").all_inner_texts()
        rows = seen.page.locator("tr.case")
        first = [text.split("\t")[:2] for text in rows.all_inner_texts()]
        marked = [(names or "").split() for names in classes(rows)]
        below = seen.page.locator("tr.case + tr.notes").all_inner_texts()

    assert alarms == [
        "1 failed: other",
        "1 without a prediction: lost",
        "1 with an empty prediction: empty",
    ]
    assert [[name.strip("▸ \xa0\n"), status] for name, status in first] == [
        ["other", "failed"],
        ["lost", "no prediction"],
        ["empty", "empty prediction"],
        ["shifted", "done"],
    ]
    assert marked == [["case", "failed"]] * 3 + [["case"]]
    assert "different grids" in below[0]
    assert below[1].strip() == "no prediction: every label counts as missed"


def classes(rows: Any) -> list[str]:
    return rows.evaluate_all("all => all.map(row => row.className)")


def test_spread_of_the_cohort_is_shown_as_in_the_record(
    browser: Any, written: Path
) -> None:
    record = json.loads((written / "evaluation.json").read_text())["cohort"]
    dice, far = record["dice"], record["hd95_mm"]
    with opened(browser, written / "index.html") as seen:
        table = seen.page.locator("section:has(h2:text-is('Cohort'))")
        head = table.locator("th").all_inner_texts()
        rows = [row.split("\t") for row in table.locator("tr").all_inner_texts()[1:]]

    assert head[1:7] == ["mean", "95 % interval", "sd", "median", "quartiles", "cases"]
    cells = {row[0]: row[1:] for row in rows}
    low, high = dice["ci95"]
    first, third = dice["quartiles"]
    assert cells["Dice"] == [
        f"{dice['mean']:.4f}",
        f"{low:.4f} to {high:.4f}",
        f"{dice['sd']:.4f}",
        f"{dice['median']:.4f}",
        f"{first:.4f} to {third:.4f}",
        "4",
        "0",
    ]
    assert far["mean"] == "inf"
    assert cells["HD95 mm"][0] == "∞"
    assert cells["HD95 mm"][-1] == "1"


def test_all_scores_are_a_tick_away(browser: Any, written: Path) -> None:
    with opened(browser, written / "index.html") as seen:
        head = seen.page.locator("#cases > thead th:visible")
        assert head.count() == 9
        seen.page.get_by_label("all columns").check()
        assert head.count() == 16


def test_a_printed_page_is_as_wide_as_paper(browser: Any, written: Path) -> None:
    paper = 720
    with opened(browser, written / "index.html") as seen:
        seen.page.set_viewport_size({"width": paper, "height": 1000})
        seen.page.emulate_media(media="print")
        seen.page.evaluate("dispatchEvent(new Event('beforeprint'))")

        assert seen.page.locator("tr.details:visible").count() == 4
        wide = seen.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= paper


def test_failures_alone_have_no_scores_and_no_charts(
    tmp_path: Path,
) -> None:
    image = nib.load(DATA / "tptbox_seg-vert_msk.nii.gz")
    labels = np.asanyarray(image.dataobj)
    save(tmp_path / "truth" / "a.nii.gz", labels, image.affine)
    save(tmp_path / "preds" / "a.nii.gz", labels[1:], image.affine)
    given = SimpleNamespace(preds=tmp_path / "preds", truth=tmp_path / "truth")

    run(given, tmp_path / "out")

    text = (tmp_path / "out" / "index.html").read_text()
    assert "1 failed: a" in text
    assert "<svg" not in text
    assert "Cohort" not in text


def test_labels_of_a_case_open_with_infinite_distances(
    browser: Any, written: Path
) -> None:
    with opened(browser, written / "index.html") as seen:
        seen.page.locator("td.name button", has_text="lost").click()
        told = seen.page.locator("tr.details:visible").inner_text()

        assert "L3" in told
        assert "∞" in told


def test_a_scan_lies_below_the_labels_where_it_is_given(
    folders: SimpleNamespace, written: Path, tmp_path: Path
) -> None:
    run(folders, tmp_path / "plain")
    plain = (tmp_path / "plain" / "index.html").stat().st_size

    assert (written / "index.html").stat().st_size > plain + 10_000


def test_pictures_are_kept_of_the_worst_only(
    folders: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "PICTURES", 2)
    run(folders, tmp_path)
    text = (tmp_path / "index.html").read_text()

    captions = [part.split("<")[0] for part in text.split("<figcaption>")]
    shown = [told.split(":")[0] for told in captions if ": Dice" in told]
    assert shown == ["lost", "poor"]


def test_same_input_gives_the_same_files(
    folders: SimpleNamespace, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        run(folders, tmp_path / name, command="spine")

    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_inputs_are_two_folders_or_a_table(folders: SimpleNamespace) -> None:
    with pytest.raises(SettingsError, match="PREDS and GT are needed"):
        inputs_of(folders.preds, None, None)
    with pytest.raises(SettingsError, match="or --pairs instead"):
        inputs_of(folders.preds, folders.truth, folders.truth / "pairs.csv")


def test_a_table_cannot_be_compared(folders: SimpleNamespace, tmp_path: Path) -> None:
    table = tmp_path / "pairs.csv"
    name = "good_seg-vert_msk.nii.gz"
    table.write_text(
        f"prediction,truth\n{folders.preds / name},{folders.truth / name}\n"
    )
    inputs = inputs_of(None, None, table)

    with pytest.raises(SettingsError, match="--compare needs PREDS and GT"):
        EvaluateRun(inputs, EvaluateSettings(), compare=folders.others)
