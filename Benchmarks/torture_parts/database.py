"""The database under load: one process of the engine, and what it acknowledges, as it arrives."""

import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from bench.environment import BenchError

from . import processes

VOLUME_SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "qdrant_volume.py"
START_SECONDS = 120
PROGRESS_SECONDS = 120   # after which a load that says nothing counts as stopped: optimizers take their time
STOPPED_SECONDS = 10     # after which a process in state T was forgotten there
PROGRESS_LINES = 3


@dataclass(frozen=True)
class LoadShape:
    """How hostile the load is.

    A third of the time goes into batches, a tenth into flushes, the rest into the optimizers. Flushes are
    three a second, so that one falls into most backups; more would leave nothing unflushed when the reading
    begins, and then even a live copy passes.
    """

    batch: int = 20
    flush_every: int = 60
    optimize_every: int = 300
    max_points: int = 0
    ballast: int = 0         # bytes


@dataclass(frozen=True)
class Line:
    """One line of the load, with the moment at which it was read: the engine had returned before."""

    time: float
    said: dict


@dataclass(frozen=True)
class Silence:
    seconds: float
    ended_by: str    # what the load had been at: an optimizer's run is silent by itself


def create_volume(path: Path, points: int, dim: int, seed: int) -> None:
    done = processes.run([sys.executable, VOLUME_SCRIPT, "create", path, "--points", points, "--dim", dim,
                          "--seed", seed, "--no-scratch"], timeout=600)
    if done.status != 0:
        raise BenchError(f"no volume could be made: {done.reason()}")


class Ballast:
    """A file that stands for the rest of a large volume: it has changed before each backup, so copying takes time."""

    def __init__(self, volume: Path, size: int, seed: int):
        self.path, self.size, self._random = volume / "rest-of-the-volume.dat", size, random.Random(f"{seed}/ballast")
        with open(self.path, "wb") as file:
            for start in range(0, size, 1 << 20):
                file.write(self._random.randbytes(min(1 << 20, size - start)))

    def change(self) -> None:
        if self.size:
            with open(self.path, "r+b") as file:
                file.seek(self._random.randrange(self.size))
                file.write(self._random.randbytes(1))


class Database:
    """`with Database(…) as database:` starts the load; the end stops it, also one that was left stopped."""

    def __init__(self, volume: Path, seed: int, shape: LoadShape):
        self.argv = [sys.executable, str(VOLUME_SCRIPT), "load", str(volume), "--seed", str(seed),
                     "--batch", str(shape.batch), "--flush-every", str(shape.flush_every),
                     "--optimize-every", str(shape.optimize_every), "--max-points", str(shape.max_points)]
        self.lines: list[Line] = []
        self._news = threading.Condition()

    def __enter__(self) -> "Database":
        self._errors = tempfile.TemporaryFile("w+", errors="replace")
        self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=self._errors, text=True, start_new_session=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_) -> None:
        with processes.undisturbed():
            processes.end(self.process)
            self._reader.join(5)
            self._errors.close()

    @property
    def pid(self) -> int:
        return self.process.pid

    def _read(self) -> None:
        for text in self.process.stdout:
            now = time.monotonic()
            with self._news:
                self.lines.append(Line(now, json.loads(text)))
                self._news.notify_all()

    def wait_for_progress(self, timeout: float = PROGRESS_SECONDS) -> str | None:
        """Waits for some more lines; returns why none came."""
        start = running = time.monotonic()
        goal = len(self.lines) + PROGRESS_LINES
        while not self._has_ended():
            with self._news:
                if self._news.wait_for(lambda: len(self.lines) >= goal, 0.5):
                    return None
            now = time.monotonic()
            running = running if self.is_stopped() else now
            if now - start > timeout or now - running > STOPPED_SECONDS:
                return f"no progress for {now - start:.0f} s, its process is in state {self.state()}"
        self._errors.seek(0)
        return f"it has ended with status {self.process.returncode}: {self._errors.read()[-800:].strip()}"

    def _has_ended(self) -> bool:
        return self.process.poll() is not None

    def let_go(self) -> None:
        """Lets a process that was left stopped run on, so that the next run can be made."""
        if not self._has_ended():
            self.process.send_signal(signal.SIGCONT)

    def state(self) -> str:
        """As in ps: R, S, D; T is stopped."""
        return _state(Path(f"/proc/{self.pid}/stat"))

    def is_stopped(self) -> bool:
        """Whether none of the threads can run any more."""
        threads = [_state(path) for path in Path(f"/proc/{self.pid}/task").glob("*/stat")]
        return set(threads) == {"T"}

    def silence(self, start: float, end: float, only_batches: bool = False) -> Silence:
        """The longest time without a line that touches this interval; of batches, it is some ms by itself."""
        lines = self.lines[:]
        gaps = [Silence(later.time - earlier.time, later.said["operation"])
                for earlier, later in zip(lines, lines[1:])
                if later.time >= start and earlier.time <= end and ("collection" in later.said or not only_batches)]
        return max(gaps, key=lambda gap: gap.seconds, default=Silence(0.0, "nothing"))

    def take(self) -> list[Line]:
        """Hands over all lines but the last, which still bounds the next silence."""
        with self._news:
            taken, self.lines = self.lines[:-1], self.lines[-1:]
        return taken


def _state(stat: Path) -> str:
    try:
        return stat.read_text().rpartition(")")[2].split()[0]
    except OSError:    # it has ended meanwhile
        return "X"
