"""Two weeks of made-up runs of two policies, as the metrics that the program writes of them.

Names and labels are those of docs/observability.md, which a test holds to what the program writes.
"""
import bisect
import math
import pathlib
import random
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
HOUR, DAY = 3600, 86400
# Seconds between two samples.
STEP = 600


def families():
    """The metrics and their labels beside policy and repository, from the table of the document."""
    text = (ROOT / "docs/observability.md").read_text()
    rows = re.findall(r"^\| `(bgbackup_\w+)` \| (.*?) \|", text, re.M)
    return {name: re.findall(r"`(\w+)`", labels) for name, labels in rows}


class Policy:
    """Runs of a policy: each job has [(start, seconds, exit status, figures)], oldest first."""

    def __init__(self, name, repository, size, jobs, seed):
        self.labels = {"policy": name, "repository": repository, "instance": f"{name}-1:9100", "job": "node"}
        self.jobs, self.size, self.random, self.runs = jobs, size, random.Random(seed), {}

    def make(self, begin, end, ill):
        """`ill(job, start)`: the exit status of a run."""
        for job, (interval, seconds) in self.jobs.items():
            starts = range(int(begin // interval + 1) * interval, int(end), interval)
            self.runs[job] = [self.run(job, start, seconds, ill(job, start), (start - begin) / DAY) for start in starts]

    def run(self, job, start, seconds, status, age):
        """A volume that grows by a hundredth a day; what is new of it is more by day."""
        volume = self.size * (1 + age / 100)
        share = (0.02 + 0.015 * math.sin(start / DAY * 2 * math.pi)) * self.random.uniform(0.7, 1.3)
        figures = {
            "volume": volume, "read": volume * share * 1.6, "new": volume * share, "stored": volume * share * 0.45,
            "freeze": self.random.uniform(0.2, 0.9), "snapshots": int(40 + age * 3), "live": volume * (0.6 + age / 60),
            "drill": volume / 9e7 * self.random.uniform(0.9, 1.3),
        }
        return start, seconds * self.random.uniform(0.8, 1.4), status, figures

    def last(self, job, moment, done=False, failed=False):
        """The newest run of a job that had ended."""
        runs = self.runs[job]
        for index in range(bisect.bisect(runs, (moment,)) - 1, -1, -1):
            start, seconds, status, _ = runs[index]
            if start + seconds <= moment and (not done or status in (0, 3)) and (not failed or status not in (0, 3)):
                return runs[index]
        return None

    def samples(self, moment):
        """(metric without its prefix, labels, value) as the file of the text collector has them at a moment."""
        for job, (interval, _) in self.jobs.items():
            kind, _, schedule = job.partition(" ")
            labels = {"job_name": kind} | ({"schedule": schedule} if schedule else {})
            yield "schedule_interval_seconds", labels, interval
            yield "next_run_timestamp_seconds", labels, (moment // interval + 1) * interval
            yield "timer_active", labels, 0 if kind == "copy" and moment > self.stopped else 1
            if last := self.last(job, moment):
                yield "last_run_timestamp_seconds", labels, last[0]
                yield "last_run_status", labels, {0: 2, 3: 1}.get(last[2], 0)
                yield "last_run_exit_code", labels, last[2]
            if done := self.last(job, moment, done=True):
                yield "last_success_timestamp_seconds", labels, done[0]
                yield "duration_seconds", labels, done[1]
                if kind == "copy":
                    yield "copy_bytes", {"schedule": schedule} if schedule else {}, done[3]["stored"]
            if failed := self.last(job, moment, failed=True):
                yield "last_failure_timestamp_seconds", labels, failed[0]
            if last and last[2] != 0:
                code = {1: "store-unreachable", 3: "incomplete", 16: "drill-failed", 17: "damaged"}[last[2]]
                yield "problem", labels | {"code": code}, 1
            if kind == "copy" and moment > self.stopped:
                yield "problem", labels | {"code": "timer-missing"}, 1
        yield from self.figures(moment)

    stopped = math.inf

    def figures(self, moment):
        yield "build_info", {"version": "0"}, 1
        yield "paused", {}, 0
        yield "anomaly_hold", {}, 0
        backups = [run for job in self.jobs if job.startswith("backup") and (run := self.last(job, moment, done=True))]
        yield "objective_seconds", {}, min(i for job, (i, _) in self.jobs.items() if job.startswith("backup")) * 1.5 + 600
        if backups:
            start, _, _, last = max(backups, key=lambda run: run[0])
            yield "newest_snapshot_timestamp_seconds", {}, start
            for name, key in [("freeze_seconds", "freeze"), ("source_bytes", "volume"), ("read_bytes", "read"),
                              ("changed_bytes", "new"), ("uploaded_bytes", "stored")]:
                yield name, {}, last[key]
            yield "dedup_ratio", {}, 1 - last["new"] / last["read"]
            for state, count in [("new", 12), ("changed", 40), ("unmodified", 900)]:
                yield "files", {"state": state}, count
            yield "points", {}, int(last["volume"] / 6000)
        if prune := self.last("prune", moment, done=True):
            yield "snapshots", {}, prune[3]["snapshots"]
            for name, share in [("live", 1), ("unused", 0.12), ("locked", 0.05)]:
                yield "repository_bytes", {"class": name}, prune[3]["live"] * share
            yield "freed_bytes", {}, prune[3]["stored"] * 3
            yield "lock_horizon_timestamp_seconds", {}, prune[0] + 30 * DAY
        if check := self.last("check", moment):
            yield "check_data_coverage_ratio", {}, 0.1
            yield "check_errors", {}, 3 if check[2] == 17 else 0
            if done := self.last("check", moment, done=True):
                yield "check_last_success_timestamp_seconds", {}, done[0]
        if "drill" in self.jobs and (drill := self.last("drill", moment)):
            if done := self.last("drill", moment, done=True):
                yield "drill_last_success_timestamp_seconds", {}, done[0]
            for name, value in [("rto", drill[3]["drill"]), ("rpo", 1900), ("rto_objective", 900), ("rpo_objective", 5400)]:
                yield f"drill_{name}_seconds", {}, value


def policies(begin, end):
    """One that has a bad night, and one that is ill at the end."""
    well = Policy("qdrant-prod", "s3://backups/prod", 60e9, {
        "backup hourly": (HOUR, 240), "backup nightly": (DAY, 900), "prune": (DAY, 120), "check": (DAY, 700),
        "drill": (2 * DAY, 800), "copy offsite": (DAY, 600)}, 1)
    ill = Policy("qdrant-staging", "/srv/backup", 9e9, {
        "backup daily": (6 * HOUR, 90), "prune": (DAY, 30), "check": (DAY, 100), "drill": (3 * DAY, 120), "copy": (DAY, 80)}, 2)
    well.make(begin, end, lambda job, t: 1 if 9.2 < (end - t) / DAY < 9.6 else 3 if job == "check" and t % (5 * DAY) < DAY else 0)
    ill.make(begin, end, lambda job, t: 1 if job.startswith("backup") and end - t < 0.8 * DAY else
             17 if job == "check" and 3 < (end - t) / DAY < 5 else 16 if job == "drill" and 6 < (end - t) / DAY < 9 else 0)
    ill.stopped = end - 2 * DAY
    return [well, ill]


def open_metrics(begin, end):
    """All samples as promtool reads them: by family, each series in the order of time."""
    known, series = families(), {}
    for policy in policies(begin - 4 * DAY, end):
        for moment in range(begin, end + 1, STEP):
            for name, labels, value in policy.samples(moment):
                if sorted(labels) != sorted(label for label in known[f"bgbackup_{name}"] if label in labels):
                    sys.exit(f"bgbackup_{name} has other labels in docs/observability.md: {labels}")
                key = ",".join(f'{label}="{text}"' for label, text in (policy.labels | labels).items())
                series.setdefault(f"bgbackup_{name}", {}).setdefault(key, []).append(f"{value:.10g} {moment}")
    if missing := set(known) - set(series):
        sys.exit(f"this script makes no samples of {', '.join(sorted(missing))}")
    for name, samples in series.items():
        yield f"# TYPE {name} gauge"
        for labels, values in samples.items():
            yield from (f"{name}{{{labels}}} {value}" for value in values)
    yield "# EOF\n"
