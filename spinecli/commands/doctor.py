"""``spine doctor``."""

from spinecli import options, render


def doctor(*, as_json: options.AsJson = False) -> None:
    """Examine this machine: versions, devices, models, and how to mend what is wrong.

    The exit status is 1 when something makes segmentation impossible here.
    """
    with render.command("doctor", as_json=as_json, cases=False) as run:
        from engines.doctor import examine
        from engines.results import Problem

        findings = examine()
        run.facts["checks"] = [finding.as_json() for finding in findings]
        if not as_json:
            headings = ("what", "found", "verdict", "what to do")
            rows = [(f.name, f.value, f.verdict, f.hint) for f in findings]
            render.table(headings, rows)
        problems = [finding for finding in findings if finding.verdict == "problem"]
        if problems:
            named = ", ".join(finding.name for finding in problems)
            message = f"segmentation cannot work here: {named}"
            run.fail(Problem("doctor", message, problems[0].hint))
