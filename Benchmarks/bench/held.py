"""For how long a backup holds up writes: by what bgbackup says, and by what a writer feels.

A process writes 20 MB/s to a volume of 10 000 files (writer.c, busy_volume.py) while it is backed up again
and again. Its longest gap between two stores is taken during each backup, and for context in the quiet
seconds before it, when nothing holds writes but the file system itself."""

import shutil
import subprocess
import time
from statistics import median

from .busy_volume import BusyVolume
from .companion import Companion
from .image import Image
from .report import table
from .setting import GOALS, Setting, goal, other_case, remarks

# The file system, the method of capture, and for how many seconds it may hold writes.
CASES = [("btrfs", "btrfs", 0.05), ("xfs", "reflink", 0.2), ("ext4", "pause", 1.0)]
IMAGE_SIZE = 8 << 30
VOLUME_SIZE = 3e9
RATE = 20_000_000
BACKUPS = 5                      # at the least, beside the first
QUIET_SECONDS = 4
BACKUP_SECONDS = 600
INCOMPLETE = 3                   # status where files vanish while they are read


class Case:
    def __init__(self, setting: Setting, kind: str, method: str):
        self.setting, self.kind, self.method = setting, kind, setting.method or method
        self.tool = setting.bgbackup(method)

    def run(self) -> dict:
        setting = self.setting
        with Image(self.kind, IMAGE_SIZE, setting.scratch) as image:
            setting.say(f"held: {self.method} on {self.kind}, making a volume")
            volume = BusyVolume(image.directory(), setting.scaled(VOLUME_SIZE), 1)
            image.sync()
            home = setting.begin(self.tool, "held", image.mount / "volume")
            try:
                with Companion("writer", home, [volume.collection, RATE, 1]) as writer:
                    time.sleep(QUIET_SECONDS)
                    first = self.backup(writer)
                    later = [self.backup(writer) for _ in range(max(setting.rounds, BACKUPS))]
            finally:
                shutil.rmtree(home, ignore_errors=True)
            return {"method": self.method, "files": volume.files, "payload": volume.payload, "first": first,
                    "later": later}

    def backup(self, writer: Companion) -> dict:
        writer.ask()
        time.sleep(QUIET_SECONDS)
        quiet = writer.ask()
        argv, directory = self.tool.backup()
        start = time.perf_counter()
        done = subprocess.run(argv, env=self.tool.env, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, errors="replace", timeout=BACKUP_SECONDS)
        wall = time.perf_counter() - start
        sample = {"wall": wall, "status": done.returncode, "quiet": quiet, "writer": writer.ask(),
                  "summary": self.tool.summary(done.stdout) or {}, "errors": done.stderr[-1000:]}
        held = sample["summary"].get("capture_seconds")
        self.setting.say(f"  {self.method} on {self.kind}: {wall:.2f} s, status {done.returncode}, writes held "
                         f"{milliseconds(held)} ms, longest gap {milliseconds(sample['writer']['longest_gap'])} ms, "
                         f"before {milliseconds(quiet['longest_gap'])} ms")
        return sample


def measure(setting: Setting) -> dict:
    return {"size": setting.size, "cases": {kind: Case(setting, kind, method).run() for kind, method, _ in CASES}}


# MARK: tables


def milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds * 1000:.0f}" if seconds >= 0.01 else f"{seconds * 1000:.1f}"


def is_complete(sample: dict, method: str) -> bool:
    """Whether the backup is what was asked for; a copy of a live volume cannot have every file whole."""
    is_done = sample["status"] == 0 or sample["status"] == INCOMPLETE and method == "none"
    return is_done and sample["summary"].get("capture") == method


def held(samples: list[dict]) -> list[float]:
    return [s["summary"]["capture_seconds"] for s in samples if "capture_seconds" in s["summary"]]


def gaps(samples: list[dict], when: str = "writer") -> list[float]:
    return [s[when]["longest_gap"] for s in samples]


def middle_and_most(values: list[float]) -> str:
    return f"{milliseconds(median(values))} ({milliseconds(max(values))})" if values else "–"


def row(kind: str, case: dict) -> list[str]:
    samples = [s for s in case["later"] if is_complete(s, case["method"])]
    if not samples:
        return [f"{case['method']} on {kind}", "every backup failed", *["–"] * 6]
    rate = sum(s["writer"]["stores"] for s in samples) * 4096 / sum(s["writer"]["seconds"] for s in samples)
    first = held([case["first"]])
    return [f"{case['method']} on {kind}", middle_and_most(held(samples)), middle_and_most(gaps(samples)),
            middle_and_most(gaps(samples, "quiet")), milliseconds(first[0]) if first else "–",
            f"{median(s['wall'] for s in samples):.2f}", f"{rate / 1e6:.1f}", f"{len(samples)} of {len(case['later'])}"]


def targets(result: dict) -> list[list[str]]:
    rows = []
    for kind, method, limit in CASES:
        samples, used = result["cases"][kind]["later"], result["cases"][kind]["method"]
        failed = not all(is_complete(s, used) for s in samples)
        verdict = "✗ a backup failed" if failed else other_case(result["size"], used, method)
        for name, values in (("writes held", held(samples)), ("writer's longest gap", gaps(samples))):
            rows.append(goal(f"{name}, {used} on {kind}, median", limit, "ms", median(values) if values else None,
                             milliseconds, verdict))
    return rows


def notes(result: dict) -> list[str]:
    found = []
    for kind, case in result["cases"].items():
        for sample in (case["first"], *case["later"]):
            found += [f"{kind}: {text}" for text in remarks(sample["summary"], case["method"])]
            if not is_complete(sample, case["method"]):
                last = sample["errors"].strip().splitlines()[-1:] or [""]
                found.append(f"{kind}: status {sample['status']}: {last[0]}")
    return found


def markdown(result: dict) -> str:
    case = next(iter(result["cases"].values()))
    head = ["ms", "writes held (max)", "writer's longest gap (max)", "without a backup (max)", "first backup: held",
            "backup, s", "written, MB/s", "backups"]
    return "\n\n".join([
        f"Writes held, {case['files']} files, {case['payload'] / 1e6:.0f} MB of payload pages, "
        f"{RATE / 1e6:.0f} MB/s of change; median (max) of the backups after the first",
        table(head, [row(kind, case) for kind, case in result["cases"].items()]),
        table(GOALS, targets(result))])
