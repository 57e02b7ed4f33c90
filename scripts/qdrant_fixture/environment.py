"""Finds or makes the virtual environment that holds the engine, and moves this process into it."""

import fcntl
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

REQUIREMENTS = ["qdrant-edge-py>=0.9.0"]  # older engines do not replay the WAL at load
UNAVAILABLE = 77  # the exit status that test harnesses read as "skipped"
STAMP_NAME = ".bgbackup-stamp"
ENTERED = "BGBACKUP_FIXTURE_PYTHON"


class Unavailable(Exception):
    """The environment cannot be made here; the text says why in one line."""


def location() -> Path:
    """Where the environment lives: one per user, shared by all check-outs."""
    if chosen := os.environ.get("BGBACKUP_VENV"):
        return Path(chosen).absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache).absolute() / "bgbackup" / "venv"


def enter() -> None:
    """Continues this very command inside the environment, making it first where it is missing."""
    venv = location()
    python = str(venv / "bin" / "python")
    # A marker and not `sys.prefix` decides, so that a broken environment cannot loop for ever.
    if os.environ.pop(ENTERED, None) == python:
        return
    try:
        if not _is_ready(venv):
            _make_once(venv)
        os.environ[ENTERED] = python
        os.execv(python, [python, *sys.argv])
    except Unavailable as reason:
        _give_up(venv, str(reason))
    except OSError as error:
        _give_up(venv, str(error))


def _give_up(venv: Path, reason: str) -> None:
    print(f"qdrant_volume: the engine cannot be installed in {venv}: {reason}", file=sys.stderr)
    sys.exit(UNAVAILABLE)


def _stamp_text() -> str:
    return "\n".join(REQUIREMENTS) + "\n"


def _is_ready(venv: Path) -> bool:
    """True when the last build here ended well and its interpreter was not upgraded away."""
    try:
        stamp = (venv / STAMP_NAME).read_text()
    except OSError:
        return False
    return stamp == _stamp_text() and (venv / "bin" / "python").exists()


def _make_once(venv: Path) -> None:
    with _locked(venv.with_name(venv.name + ".lock")):
        if not _is_ready(venv):  # another caller may have made it while this one waited
            _make(venv)


@contextmanager
def _locked(path: Path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released by the kernel, even after kill -9
        yield


def _make(venv: Path) -> None:
    if venv.exists() and any(venv.iterdir()) and not (venv / "pyvenv.cfg").exists():
        raise Unavailable("the directory exists and is not a virtual environment")
    if sys.stderr.isatty():
        print(f"qdrant_volume: installing {', '.join(REQUIREMENTS)} in {venv} (once)", file=sys.stderr)
    # Only an environment that this script finished before may be cleared; anything else is repaired.
    clear = ["--clear"] if (venv / STAMP_NAME).exists() else []
    _run([sys.executable, "-m", "venv", *clear, str(venv)], hint="is the package python3-venv installed?")
    python = str(venv / "bin" / "python")
    _run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input",
          "--retries", "2", *REQUIREMENTS])
    _run([python, "-c", "import qdrant_edge"])
    (venv / STAMP_NAME).write_text(_stamp_text())  # last: its presence means that all went well


def _run(command: list[str], hint: str = "") -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode == 0:
        return
    # pip and venv end with the sentence that matters; ensurepip's failure ends in a path list.
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    reason = next((line for line in lines if line.startswith("ERROR:")), lines[-1] if lines else "")
    reason = reason or f"{command[0]} ended with status {done.returncode}"
    raise Unavailable(f"{reason} ({hint})" if hint else reason)
