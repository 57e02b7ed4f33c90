"""The table at the end, the raw numbers, and whether the result is as it has to be."""

import datetime
import platform
from collections import Counter
from dataclasses import asdict
from statistics import median

from bench.report import number, table

from .trial import Trial

HEAD = ["method", "file system", "runs", "ok", "wrong", "broken", "failed", "one moment", "atomic / fuzzy",
        "capture, s", "silence, s", "batch silence, s", "silence else, s", "backup, s"]
FAULTY = ("wrong", "broken", "failed")
SHOWN = ("wrong", "broken")    # of a fuzzy copy, by the engine; a backup that fails shows nothing


def counts(trial: Trial) -> Counter:
    return Counter(run.verdict.outcome for run in trial.runs)


def middle_and_most(values: list[float]) -> str:
    return f"{number(median(values))} (max {number(max(values))})" if values else "–"


def markdown(trials: list[Trial]) -> str:
    return table(HEAD, [_row(trial) for trial in trials]) + "\n"


def _row(trial: Trial) -> list[str]:
    found, runs = counts(trial), trial.runs
    labels = Counter(run.consistency for run in runs)
    looked = [run.verdict.one_moment for run in runs if run.verdict.one_moment is not None]
    return [trial.method.name, trial.filesystem, str(len(runs)), str(found["ok"]), str(found["wrong"]),
            str(found["broken"]), str(found["failed"]), f"{sum(looked)} of {len(looked)}",
            f"{labels['atomic']} / {labels['fuzzy']}",
            middle_and_most([run.capture_seconds for run in runs if run.capture_seconds is not None]),
            middle_and_most([run.silence_seconds for run in runs]),
            middle_and_most([run.batch_silence_seconds for run in runs]),
            middle_and_most([run.usual_silence_seconds for run in runs]),
            number(median(run.backup_seconds for run in runs)) if runs else "–"]


def as_json(trials: list[Trial], options: dict) -> dict:
    methods = [{"method": trial.method.name, "filesystem": trial.filesystem, "outcomes": dict(counts(trial)),
                "problems": trial.problems, "runs": [asdict(run) for run in trial.runs]} for trial in trials]
    return {"schema": 1, "date": datetime.date.today().isoformat(), "kernel": platform.release(), "options": options,
            "complaints": complaints(trials, options["expect_failures"]), "methods": methods}


def complaints(trials: list[Trial], expect_failures: bool) -> list[str]:
    """Why the exit status is 1. What `none` gets wrong is no reason, as long as it says fuzzy."""
    found = []
    for trial in trials:
        name = trial.method.name
        found += [f"{name}: {problem}" for problem in trial.problems]
        bad = [run for run in trial.runs if run.verdict.outcome in FAULTY and _must_hold(trial, run)]
        if bad:
            found.append(f"{name}: {len(bad)} of {len(trial.runs)} runs are not ok")
        if name == "none" and expect_failures and not any(run.verdict.outcome in SHOWN for run in trial.runs):
            found.append("none: no run was wrong or broken, so this load does not show what a capture is for")
    return found


def _must_hold(trial: Trial, run) -> bool:
    """A run has to be ok unless its snapshot says fuzzy and may."""
    if run.consistency == "fuzzy" and trial.method.label != "atomic":
        return run.verdict.outcome == "failed"
    return True
