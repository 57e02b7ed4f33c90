"""Repositories of a size that nobody waits for: made by Benchmarks/scale, measured one command at a time."""

import json
import os
import subprocess
import time
from pathlib import Path

from .environment import BenchError

ROOT = Path(__file__).resolve().parents[2]


def add_arguments(parser) -> None:
    parser.add_argument("--bgbackup", type=Path, default=ROOT / ".build/release/bgbackup")
    parser.add_argument("--generator", type=Path, help="a built ScaleRepository (default: built now)")
    parser.add_argument("--dir", type=Path, required=True, help="scratch space; what is there is used again")


def generator(given: Path | None) -> Path:
    if given:
        return given
    scratch = ROOT / ".build-scale"
    subprocess.run(["swift", "build", "-c", "release", "--package-path", str(ROOT / "Benchmarks/scale"), "--scratch-path",
                    str(scratch), "-Xswiftc", "-enable-testing"], check=True)
    return scratch / "release/ScaleRepository"


class Home:
    """A directory with a repository, a password, state and cache."""

    def __init__(self, directory: Path, program: Path):
        if not os.access(program, os.X_OK):
            raise BenchError(f"no executable {program}; build it with `make build` or give --bgbackup")
        self.directory, self.program = directory, str(program.absolute())
        self.cpu = 0.0
        directory.mkdir(parents=True, exist_ok=True)
        self.repository, self.password = directory / "repository", directory / "password"
        if not self.password.exists():
            self.password.write_text("scale\n")
            self.password.chmod(0o600)
        self.environment = {**os.environ, "BGBACKUP_REPOSITORY": str(self.repository),
                            "BGBACKUP_PASSWORD_FILE": str(self.password), "BGBACKUP_STATE_DIR": str(directory / "state"),
                            "BGBACKUP_CACHE_DIR": str(directory / "cache")}

    def fill(self, program: Path | None, *arguments: object) -> None:
        """Makes the repository, unless it is there, whole."""
        done = self.directory / "filled"
        if done.exists() and done.read_text() == repr(arguments):
            return
        if self.repository.exists():
            raise BenchError(f"{self.repository} holds something else: remove {self.directory}")
        self.run("init", "-q")
        start = time.monotonic()
        subprocess.run([generator(program), self.repository, self.password, *map(str, arguments)], check=True)
        done.write_text(repr(arguments))
        print(f"filled in {time.monotonic() - start:.0f} s")

    def run(self, *arguments: str, environment: dict[str, str] | None = None,
            ends: tuple[int, ...] = (0,)) -> tuple[str, float, float]:
        """Standard output, seconds, and MiB that were resident at the most; `cpu` has the seconds of processor time."""
        start = time.monotonic()
        process = subprocess.Popen([self.program, *arguments], env=self.environment | (environment or {}),
                                   stdout=subprocess.PIPE, text=True)
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.cpu = usage.ru_utime + usage.ru_stime
        if process.returncode not in ends:
            raise BenchError(f"bgbackup {' '.join(arguments)} ended with {process.returncode}")
        return output, time.monotonic() - start, usage.ru_maxrss / 1024


def verdict(what: str, value: float, limit: float, unit: str) -> str:
    return f"{what}: {value:.2f} {unit} (goal {limit:g} {unit}: {'met' if value <= limit else 'MISSED'})"


def document(output: str) -> dict:
    return json.loads(output.splitlines()[-1])
