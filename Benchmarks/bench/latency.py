"""How fast a database stays beside a first backup, when both share memory and cores.

A process reads random pages of a hot quarter of the volume through a mapping (reader.c), in a memory cgroup
of 1.6 GB and on two cores; a tool makes its first backup to a local repository in the same cgroup, on the
same cores. Every tool has a cgroup, a reader and a cold page cache of its own to begin with, and idle
seconds before it that its figures are compared with."""

import os
import shutil
import subprocess
import time
from pathlib import Path
from statistics import median

from .companion import Companion
from .environment import BenchError, need_packages
from .measure import sync
from .memory_group import MemoryGroup
from .report import number, table
from .setting import GOALS, Setting, goal, other_case, remarks
from .tools import Tool

METHOD = "auto"                  # of capture: nobody writes
HOT = 1e9                        # bytes that are read again and again
OTHER_MEMORY = 600_000_000       # of the cgroup: whatever else the reader and the tool need
CORES = 2
SETTLE_SECONDS, IDLE_SECONDS, AFTER_SECONDS = 5, 20, 10
PERCENTILES = ["p50", "p99", "p99.9"]
LIMITS = {"p99": 1.25, "p99.9": 2.0}
CACHE_LIMIT = 0.01


def files(volume: Path) -> list[Path]:
    """All files, those first that a search reads most: vectors, then payload."""
    def rank(path: Path) -> tuple:
        text = str(path)
        return ("vector_storage" not in text, "payload_storage" not in text, text)
    return sorted((path for path in volume.rglob("*") if path.is_file()), key=rank)


def cached(paths: list[Path]) -> int:
    """Bytes of the files that are in the page cache."""
    answer = subprocess.run(["fincore", "--bytes", "--raw", "--noheadings", "--output", "RES", *map(str, paths)],
                            capture_output=True, text=True, check=True).stdout
    return sum(map(int, answer.split()))


def drop_caches() -> None:
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except OSError as error:
        raise BenchError(f"the page cache cannot be dropped: {error}") from None


def contest(setting: Setting, tool: Tool) -> dict:
    """One tool's first backup beside a reader."""
    paths, hot = files(setting.volume), setting.scaled(HOT)
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:CORES]))
    home = setting.begin(tool, tool.name, setting.volume)
    try:
        sync(setting.scratch)
        drop_caches()
        with MemoryGroup(hot + OTHER_MEMORY) as group:
            def confined(argv: list[str]) -> list[str]:
                return group.wrap(["taskset", "-c", cores, *argv])
            with Companion("reader", home, [hot, *paths], confined) as reader:
                return {"hot": reader.ready["hot"], "limit": hot + OTHER_MEMORY} | phases(
                    setting, tool, reader, paths, confined)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def phases(setting: Setting, tool: Tool, reader: Companion, paths: list[Path], confined) -> dict:
    for probe in tool.load:                  # the program itself is in memory
        subprocess.run(probe, env=tool.env, capture_output=True)
    time.sleep(SETTLE_SECONDS)
    reader.ask()
    time.sleep(IDLE_SECONDS)
    before = {"idle": reader.ask(), "cached_before": cached(paths)}
    argv, directory = tool.backup()
    reader.ask()
    figures, text = setting.runner.command(confined(argv), tool.env, directory)
    sample = figures | before | {"beside": reader.ask(), "cached_after": cached(paths), "summary": tool.summary(text)}
    time.sleep(AFTER_SECONDS)
    sample["after"] = reader.ask()
    setting.say(f"  {tool.name:9} {figures['wall']:6.1f} s, p99 {microseconds(sample['idle']['p99'])} µs idle, "
                f"{microseconds(sample['beside']['p99'])} beside, cached {sample['cached_before'] / 1e6:.0f} MB, "
                f"then {sample['cached_after'] / 1e6:.0f}")
    return sample


def measure(setting: Setting) -> dict:
    need_packages({"fincore": "util-linux", "taskset": "util-linux"})
    samples: dict[str, list[dict]] = {name: [] for name in setting.tools if name in ("bgbackup", "restic", "borg")}
    order = [name for name in ("bgbackup", "restic", "borg") if name in samples]
    for turn in range(setting.rounds):
        setting.say(f"latency: round {turn + 1} of {setting.rounds}")
        for name in order:
            samples[name].append(contest(setting, setting.contestants(METHOD)[name]))
        order = order[1:] + order[:1]
    return {"size": setting.size, "method": setting.method or METHOD,
            "samples": {name: samples[name] for name in sorted(samples)}}


# MARK: tables


def microseconds(seconds: float) -> str:
    return number(seconds * 1e6)


def middle(samples: list[dict], phase: str, key: str) -> float:
    return median(s[phase][key] for s in samples)


def slowdown(samples: list[dict], key: str) -> float:
    """Median of the rounds' ratios to the idle seconds just before."""
    return median(s["beside"][key] / s["idle"][key] for s in samples)


def cache_change(samples: list[dict]) -> float:
    return median(abs(s["cached_after"] - s["cached_before"]) / s["cached_before"] for s in samples)


def row(name: str, samples: list[dict]) -> list[str]:
    times = [f"{microseconds(middle(samples, 'idle', key))} / {microseconds(middle(samples, 'beside', key))} / "
             f"{microseconds(middle(samples, 'after', key))} ({slowdown(samples, key):.2f})" for key in PERCENTILES]
    was, then = (median(s[when] for s in samples) / 1e6 for when in ("cached_before", "cached_after"))
    return [f"**{name}**" if name == "bgbackup" else name, *times, number(median(s["wall"] for s in samples)),
            f"{was:.0f} / {then:.0f}", f"{cache_change(samples):.2%}",
            f"{middle(samples, 'beside', 'major_faults'):.0f}"]


def targets(result: dict) -> list[list[str]]:
    samples = result["samples"]
    own = samples.get("bgbackup")
    if not own:
        return []
    figures = [(f"{key} beside bgbackup", limit, "× idle", slowdown(own, key)) for key, limit in LIMITS.items()]
    if "restic" in samples:
        ratio = median(s["wall"] for s in own) / median(s["wall"] for s in samples["restic"])
        figures.append(("first backup meanwhile", 1.0, "× restic's", ratio))
    figures.append(("cached pages of the volume, change", CACHE_LIMIT * 100, "%", cache_change(own) * 100))
    verdict = other_case(result["size"], METHOD, METHOD)     # nobody writes: no method is better than another
    return [goal(*figure, lambda value: f"{value:.2f}", verdict) for figure in figures]


def notes(result: dict) -> list[str]:
    return [text for sample in result["samples"].get("bgbackup", []) if sample["summary"]
            for text in remarks(sample["summary"], result["method"])]


def markdown(result: dict) -> str:
    samples = result["samples"]
    one = next(iter(samples.values()))[0]
    head = ["µs: idle / beside / after (× idle)", *PERCENTILES, "first backup, s", "volume cached before / after, MB",
            "change", "major faults beside"]
    parts = [f"64 random reads of 4 KiB in {one['hot'] / 1e6:.0f} MB of hot pages, reader and backup in one cgroup of "
             f"{one['limit'] / 1e6:.0f} MB; medians of {len(next(iter(samples.values())))} rounds",
             table(head, [row(name, found) for name, found in samples.items() if found])]
    if goals := targets(result):
        parts.append(table(GOALS, goals))
    return "\n\n".join(parts)
