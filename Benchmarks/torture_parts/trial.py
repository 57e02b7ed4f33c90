"""One method on trial: a volume under load, and run after run of backup, restore and comparison."""

import json
import random
import shutil
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.environment import BenchError

from .capture import Method, ProgramCapture, StoppedCopy, Taken
from .check import Broken, observe
from .database import Ballast, Database, LoadShape, create_volume
from .filesystem import ImageFileSystem
from .model import Model, Version
from .verdict import Verdict, judge

LONGEST_DELAY = 0.5    # before a backup, so that it meets the load anywhere
DEAD = "the load did not go on after the backup: "


@dataclass
class Settings:
    """What all trials of an invocation share."""

    binary: Path
    scratch: Path
    images: Path
    runs: int
    points: int
    dim: int
    size: int
    seed: int
    shape: LoadShape
    filesystem: str | None = None
    keep_failed: Path | None = None


@dataclass
class Run:
    number: int
    verdict: Verdict
    consistency: str | None = None
    capture: str | None = None
    capture_seconds: float | None = None
    backup_seconds: float = 0.0
    restore_seconds: float | None = None
    check_seconds: float = 0.0
    silence_seconds: float = 0.0
    silence_ended_by: str = ""
    batch_silence_seconds: float = 0.0     # the longest that a batch ended: neither flush nor optimizer explains it
    usual_silence_seconds: float = 0.0     # the longest since the run before
    moment_seconds: float | None = None    # from the start to the acknowledgement of the last batch that is in it
    batches_meanwhile: int = 0             # acknowledged while the backup ran
    bytes_read: int | None = None
    filesystem_used: int = 0
    summary: dict | None = field(default=None)

    def must_be_one_moment(self) -> bool:
        return self.consistency == "atomic"


class Trial:
    """Holds everything that a method's runs need; `run` leaves nothing behind, however it ends."""

    def __init__(self, method: Method, settings: Settings, say):
        self.method, self.settings, self.say = method, settings, say
        self.filesystem = settings.filesystem or method.filesystem
        self.runs: list[Run] = []
        self.problems: list[str] = []
        self._random = random.Random(f"{settings.seed}/{method.name}")

    def run(self) -> None:
        home = self.settings.scratch / self.method.name
        home.mkdir()
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, home, ignore_errors=True)
            image = self.settings.images / f"{self.settings.scratch.name}-{self.method.name}.img"
            self.image = stack.enter_context(ImageFileSystem(self.filesystem, self.settings.size, home, image))
            self.home, volume = home, self.image.directory()
            create_volume(volume, self.settings.points, self.settings.dim, self.settings.seed)
            self.ballast = Ballast(volume, self.settings.shape.ballast, self.settings.seed)
            self.model = Model(self._inventory(volume))
            self.database = stack.enter_context(Database(volume, self.settings.seed, self.settings.shape))
            self._go_on("the load did not start: ")
            capture = self._capture(volume)
            for number in range(1, self.settings.runs + 1):
                self.runs.append(self._run_once(number, capture))
                self._report(self.runs[-1])
                if self.runs[-1].verdict.reason.startswith(DEAD) and self.database.wait_for_progress():
                    self.problems.append("the load is dead; the remaining runs were left out")
                    return

    def _inventory(self, volume: Path) -> dict:
        """What the new volume holds, found by the very check that looks at restored ones."""
        try:
            observed = observe(volume, self.home / "opened", self.settings.seed)["collections"]
        except Broken as error:
            raise BenchError(f"the engine cannot read a volume that nobody has touched: {error}") from None
        if faults := [fault for found in observed.values() for fault in found["faults"]]:
            raise BenchError(f"the check finds faults in a volume that nobody has touched: {faults[:3]}")
        return {name: {ordinal: Version(revision, note) for ordinal, revision, note in found["points"]}
                for name, found in observed.items()}

    def _capture(self, volume: Path):
        if self.method.name == "stopped":
            return StoppedCopy(self.database, volume)
        (self.home / "tool").mkdir()
        return ProgramCapture(self.method, self.settings.binary, self.home / "tool", volume)

    def _go_on(self, reason: str) -> None:
        if trouble := self.database.wait_for_progress():
            raise BenchError(reason + trouble)

    # --- one run ----------------------------------------------------------------------------------------

    def _run_once(self, number: int, capture) -> Run:
        since = self.database.lines[0].time
        time.sleep(self._random.uniform(0, LONGEST_DELAY))
        restored = self.home / "restored"
        self.ballast.change()
        taken = capture.take(restored)
        trouble = self.database.wait_for_progress()
        run = self._measured(number, taken, since)
        self.model.feed(self.database.take())
        before = time.monotonic()
        run.verdict = self._verdict(taken, restored, trouble, run.must_be_one_moment())
        run.check_seconds = time.monotonic() - before
        run.moment_seconds = self._moment(run.verdict, taken.start)
        if run.verdict.outcome != "ok" and self.settings.keep_failed:
            self._keep(run, taken, restored)
        shutil.rmtree(restored, ignore_errors=True)
        self.model.forget_before(taken.start)
        return run

    def _measured(self, number: int, taken: Taken, since: float) -> Run:
        summary = taken.summary or {}
        silence = self.database.silence(taken.start, taken.end)
        return Run(
            number, Verdict("failed"), summary.get("consistency"), summary.get("capture"),
            summary.get("capture_seconds"), taken.end - taken.start, taken.restore_seconds,
            silence_seconds=silence.seconds, silence_ended_by=silence.ended_by,
            batch_silence_seconds=self.database.silence(taken.start, taken.end, only_batches=True).seconds,
            usual_silence_seconds=self.database.silence(since, taken.start).seconds,
            batches_meanwhile=sum(taken.start <= line.time <= taken.end and "collection" in line.said
                                  for line in self.database.lines),
            bytes_read=summary.get("bytes_read"), filesystem_used=self.image.used(), summary=taken.summary)

    def _verdict(self, taken: Taken, restored: Path, trouble: str | None, must_be_one_moment: bool) -> Verdict:
        if trouble:
            self.database.let_go()
            return Verdict("failed", DEAD + trouble)
        if taken.failure:
            return Verdict("failed", taken.failure)
        try:
            observed = observe(restored, self.home / "opened", self.settings.seed)
        except Broken as error:
            return Verdict("broken", str(error))
        return judge(self.model, taken.start, observed, must_be_one_moment)

    def _moment(self, verdict: Verdict, start: float) -> float | None:
        times = [prefix.time for prefix in verdict.prefixes.values() if prefix.time is not None]
        return max(times) - start if verdict.one_moment and times else None

    def _keep(self, run: Run, taken: Taken, restored: Path) -> None:
        place = self.settings.keep_failed / f"{self.method.name}-{run.number}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        if restored.exists():
            shutil.move(restored, place / "volume")
        (place / "run.json").write_text(json.dumps({"start": taken.start, "run": asdict(run)}, indent=1) + "\n")
        (place / "model.json").write_text(json.dumps(self.model.as_json()))

    def _report(self, run: Run) -> None:
        verdict, labelled = run.verdict, run.consistency or "no snapshot"
        capture = "–" if run.capture_seconds is None else f"{run.capture_seconds:.2f} s"
        self.say(f"{self.method.name} {run.number}/{self.settings.runs}: {verdict.outcome}, {labelled}, "
                 f"capture {capture}, silence {run.silence_seconds:.2f} s ({run.silence_ended_by}), "
                 f"backup {run.backup_seconds:.2f} s, {run.batches_meanwhile} batches meanwhile"
                 + (f": {verdict.short()}" if verdict.outcome != "ok" else ""))
        if self.method.label and run.consistency and run.consistency != self.method.label:
            self.problems.append(f"run {run.number} is labelled {run.consistency}, not {self.method.label}")
