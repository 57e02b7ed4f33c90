"""What the scripts need around them: Debian packages and a virtual environment."""

import os
import shutil
import subprocess
import sys
from pathlib import Path


# At this size `tar | zstd -3` stores 3.04 GB and restic 0.14 3.32 GB, as issue 2 states them.
DEFAULT_SIZE = "3.94G"


class BenchError(Exception):
    """A failure whose message is all the reader needs."""


def cpu_count() -> int:
    return len(os.sched_getaffinity(0))


def need_packages(commands: dict[str, str]) -> None:
    """Makes every command (key) available, by its Debian package (value)."""
    missing = sorted({package for command, package in commands.items() if shutil.which(command) is None})
    if not missing:
        return
    install = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise BenchError(f"missing packages; install them first: sudo {' '.join(install)}")
    print(f"installing {' '.join(missing)}", file=sys.stderr)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    if subprocess.run(install, env=environment, stdout=sys.stderr).returncode != 0:
        subprocess.run(["apt-get", "update"], env=environment, stdout=sys.stderr, check=True)
        subprocess.run(install, env=environment, stdout=sys.stderr, check=True)


def venv_directory() -> Path:
    if chosen := os.environ.get("BGBACKUP_BENCH_VENV"):
        return Path(chosen)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "bgbackup" / "bench-venv"


def venv_python(*modules: str) -> str:
    """The virtual environment's interpreter, with `modules` importable."""
    directory = venv_directory()
    python = directory / "bin" / "python3"
    if not python.exists():
        if subprocess.run([sys.executable, "-c", "import ensurepip"], capture_output=True).returncode != 0:
            need_packages({"no-such-command-ensurepip": "python3-venv"})
        print("making the benchmark's virtual environment", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
    probe = [str(python), "-c", "import " + ", ".join(modules)]
    if subprocess.run(probe, capture_output=True).returncode != 0:
        print(f"installing {' '.join(modules)} with pip", file=sys.stderr)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *modules]
        subprocess.run(install, stdout=sys.stderr, check=True)
    return str(python)


def parse_size(text: str) -> int:
    """`3.9G`, `400M`, `2GiB`: decimal units unless they end in iB."""
    units = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
             "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
    upper = text.strip().upper().removesuffix("B")
    number = upper.rstrip("KMGTI")
    try:
        return int(float(number) * units[upper[len(number):]])
    except (ValueError, KeyError):
        raise BenchError(f"not a size: {text}") from None
