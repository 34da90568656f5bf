"""A process of its own: its time, its memory, its end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engines.bench import process

MIB = 2**20


def test_output_and_status_come_back() -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"

    ended = process.timed([sys.executable, "-c", code])

    assert (ended.status, ended.stdout, ended.stderr) == (7, "out\n", "err\n")


def test_time_is_that_of_the_command() -> None:
    seconds = process.timed([sys.executable, "-c", "import time; time.sleep(0.5)"])

    assert 0.5 <= seconds.seconds < 5


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="the system tells no peak")
def test_peak_is_that_of_the_command_and_not_of_its_parent() -> None:
    held = bytearray(os.urandom(1) * (300 * MIB))

    small = process.timed([sys.executable, "-c", ""]).peak_bytes
    large = process.timed([sys.executable, "-c", "b'x' * 2**28"]).peak_bytes

    assert small is not None
    assert large is not None
    assert small < 100 * MIB < len(held)
    assert 256 * MIB <= large < 356 * MIB


def test_a_signal_is_a_status_below_zero() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"

    assert process.timed([sys.executable, "-c", code]).status == -signal.SIGTERM


def test_the_command_runs_the_package_that_runs_here() -> None:
    code = "import engines; print(engines.__file__)"

    told = process.timed([sys.executable, "-c", code]).stdout.strip()

    assert Path(told).samefile(process.engines.__file__)


@pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")
def test_an_interruption_ends_the_command_too(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    inner = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); "
    outer = (
        # a test run in the background passes on that SIGINT is ignored
        "import signal, sys; from engines.bench import process; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"process.timed([sys.executable, '-c', {inner + 'time.sleep(60)'!r}])"
    )
    root = Path(process.engines.__file__).parents[1]
    with subprocess.Popen(
        [sys.executable, "-c", outer],
        env={**os.environ, "PYTHONPATH": str(root)},
        stderr=subprocess.DEVNULL,
    ) as running:
        wait_until(lambda: pid.exists() and bool(pid.read_text()))
        running.send_signal(signal.SIGINT)
        running.wait(10)

    wait_until(lambda: not is_running(int(pid.read_text())))


def wait_until(holds: Callable[[], bool], seconds: float = 20) -> None:
    limit = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] != "Z"
