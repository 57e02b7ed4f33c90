"""The ways to get a copy of the volume: the program's methods, and a control that needs no program."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from bench.environment import BenchError
from bench.tools import Bgbackup

from . import processes
from .database import Database

TOOL_SECONDS = 300    # a backup or restore that takes longer hangs
STOP_SECONDS = 10


@dataclass(frozen=True)
class Method:
    name: str
    filesystem: str
    label: str | None    # the consistency its snapshots must have; None: whichever the program says


METHODS = {method.name: method for method in (
    Method("btrfs", "btrfs", "atomic"),
    Method("reflink", "xfs", "atomic"),
    Method("pause", "ext4", "atomic"),
    Method("none", "ext4", "fuzzy"),
    Method("auto", "ext4", None),
    Method("stopped", "ext4", "atomic"),
)}


@dataclass
class Taken:
    """One backup, restored to `target` unless `failure` says why not."""

    start: float
    end: float
    failure: str | None = None
    summary: dict | None = None
    restore_seconds: float | None = None


class ProgramCapture:
    """Backs up and restores with bgbackup, all of a method's runs into one repository."""

    def __init__(self, method: Method, binary: Path, home: Path, volume: Path):
        self.method, self.tool = method, Bgbackup(binary)
        self.tool.start(home, volume)
        done = self._run("init")
        if done.status != 0:
            raise BenchError(f"bgbackup init: {done.reason()}")

    def take(self, target: Path) -> Taken:
        taken = Taken(time.monotonic(), 0.0)
        done = self._run("backup", self.tool.volume, "--node", "torture", "--capture", self.method.name, "--json",
                         "--no-progress")
        taken.end, taken.summary = time.monotonic(), self.tool.summary(done.output)
        taken.failure = self._backup_failure(done, taken.summary)
        if taken.failure is None:
            before = time.monotonic()
            taken.failure = self._restore(taken.summary["snapshot_id"], target, done.status)
            taken.restore_seconds = time.monotonic() - before
        return taken

    def _backup_failure(self, done: processes.Done, summary: dict | None) -> str | None:
        if done.status not in (0, 3) or done.timed_out:
            return f"backup: {done.reason()}"
        if summary is None or not summary.get("snapshot_id"):
            return f"backup: no snapshot is named in its output: {done.output[-300:]}"
        if done.status == 3 and summary["consistency"] == "atomic":
            return f"backup: labelled atomic, yet some file changed or could not be read: {done.reason()}"
        return None

    def _restore(self, snapshot: str, target: Path, backup_status: int) -> str | None:
        done = self._run("restore", snapshot, "--target", target, "--no-progress")
        allowed = (0, 3) if backup_status == 3 else (0,)
        return None if done.status in allowed and not done.timed_out else f"restore: {done.reason()}"

    def _run(self, *arguments) -> processes.Done:
        return processes.run([self.tool.binary, *arguments], TOOL_SECONDS, self.tool.env)


class StoppedCopy:
    """The control: the whole process stopped around `cp -a`. A failure here is the checker's own, or the engine's."""

    def __init__(self, database: Database, volume: Path):
        self.database, self.volume = database, volume

    def take(self, target: Path) -> Taken:
        taken = Taken(time.monotonic(), 0.0)
        os.kill(self.database.pid, signal.SIGSTOP)
        try:
            self._wait_until_stopped()
            stopped = time.monotonic()
            done = processes.run(["cp", "-a", "--sparse=always", self.volume, target], TOOL_SECONDS)
        finally:
            os.kill(self.database.pid, signal.SIGCONT)
        taken.end = time.monotonic()
        taken.failure = None if done.status == 0 else f"cp: {done.reason()}"
        taken.summary = {"capture": "stopped", "consistency": "atomic", "capture_seconds": taken.end - stopped}
        return taken

    def _wait_until_stopped(self) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        while not self.database.is_stopped():
            if time.monotonic() > deadline:
                raise BenchError("the load did not stop")
            time.sleep(0.001)
