"""Run a command as a process of its own, and tell its time and its memory.

A system counts what a process held before it became another program, so the peak of
a child of a large process is that of its parent. Between the two stands a small one,
this module run as a program: ``python -m engines.bench.process FOLDER COMMAND...``.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import engines

OUT, ERR, USAGE = "stdout", "stderr", "usage.json"


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a process.

    Attributes:
        status: its exit status; below 0 the signal that ended it.
        seconds: from its start to its end.
        peak_bytes: most memory that it held at once; None where the system does not
            tell.
    """

    status: int
    seconds: float
    peak_bytes: int | None
    stdout: str
    stderr: str


def timed(command: Sequence[str]) -> Ended:
    """Run ``command`` to its end. It and all it started end with this process.

    Programs of this package that it names are those that run here.
    """
    here = str(Path(engines.__file__).parents[1])
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with tempfile.TemporaryDirectory(prefix="spine-bench-") as name:
        folder = Path(name)
        process = subprocess.Popen(  # noqa: S603  this very module
            [sys.executable, "-m", "engines.bench.process", name, *command],
            env=environment,
            start_new_session=True,
        )
        try:
            process.wait()
        except BaseException:
            _end(process)
            raise
        usage = json.loads((folder / USAGE).read_text(encoding="utf-8"))
        out, err = (
            (folder / stream).read_text(encoding="utf-8", errors="replace")
            for stream in (OUT, ERR)
        )
    return Ended(usage["status"], usage["seconds"], usage["peak_bytes"], out, err)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a process and its children, which only write into temporary folders."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _launch(folder: Path, command: Sequence[str]) -> None:
    """Run ``command`` and leave its output and usage in ``folder``."""
    with (folder / OUT).open("wb") as out, (folder / ERR).open("wb") as err:
        started = time.monotonic()
        child = subprocess.Popen(command, stdout=out, stderr=err)  # noqa: S603  as given
        peak: int | None = None
        if hasattr(os, "wait4"):
            _, state, usage = os.wait4(child.pid, 0)
            status = os.waitstatus_to_exitcode(state)
            peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        else:
            status = child.wait()
        seconds = time.monotonic() - started
    record = {"status": status, "seconds": seconds, "peak_bytes": peak}
    (folder / USAGE).write_text(json.dumps(record), encoding="utf-8")


if __name__ == "__main__":
    _launch(Path(sys.argv[1]), sys.argv[2:])
