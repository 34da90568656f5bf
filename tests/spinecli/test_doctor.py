"""``spine doctor`` shows the findings and says whether segmentation can work."""

import json

import pytest
from typer.testing import CliRunner

from engines import doctor
from engines.doctor import Finding
from spinecli.app import app

FINE = Finding("torch", "2.9")
WARNING = Finding("CUDA", "no device", "warning", "Buy one.")
PROBLEM = Finding("models", "none was found", "problem", "Install it again.")


@pytest.mark.parametrize(
    ("findings", "status"), [([FINE, WARNING], 0), ([FINE, PROBLEM, WARNING], 1)]
)
def test_only_a_problem_fails(
    monkeypatch: pytest.MonkeyPatch, findings: list[Finding], status: int
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: findings)

    done = CliRunner().invoke(app, ["doctor", "--json"])

    record = json.loads(done.stdout)
    assert done.exit_code == record["exit_status"] == status
    assert record["checks"] == [finding.as_json() for finding in findings]
    if status:
        assert record["error"] == {
            "code": "doctor",
            "message": "segmentation cannot work here: models",
            "hint": "Install it again.",
        }


def test_people_get_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: [FINE, PROBLEM])

    done = CliRunner().invoke(app, ["doctor"])

    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert done.exit_code == 1
    assert "torch 2.9 ok" in lines
    assert "models none was found problem Install it again." in lines
    assert "error: segmentation cannot work here: models" in done.stderr
