"""What the benchmarks of captures have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .environment import DEFAULT_SIZE, parse_size
from .measure import Runner
from .report import TARGET_SIZE
from .tools import Bgbackup, Tool, all_tools


class CapturingBgbackup(Bgbackup):
    """With a method of capture instead of the one that it would choose itself."""

    def __init__(self, binary: Path, method: str):
        super().__init__(binary)
        self.method = method

    def backup(self):
        argv, directory = super().backup()
        return [*argv, "--capture", self.method], directory


@dataclass(frozen=True)
class Setting:
    binary: Path
    runner: Runner
    scratch: Path                # a directory on the disk
    rounds: int
    size: int                    # of a volume, which others are scaled by
    volume: Path | None          # by make-volume
    tools: list[str]             # which of restic, borg and bgbackup take part
    method: str | None           # of capture, instead of the best
    say: Callable[[str], None]

    @property
    def scale(self) -> float:
        return self.size / parse_size(DEFAULT_SIZE)

    def scaled(self, size: float) -> int:
        """For a volume of the default size it is this."""
        return int(size * self.scale)

    def bgbackup(self, method: str) -> Bgbackup:
        return CapturingBgbackup(self.binary, self.method or method)

    def contestants(self, method: str) -> dict[str, Tool]:
        tools = all_tools(self.binary) | {"bgbackup": self.bgbackup(method)}
        return {name: tools[name] for name in ("bgbackup", "restic", "borg") if name in self.tools}

    def begin(self, tool: Tool, name: str, volume: Path) -> Path:
        """Makes an empty repository; returns the directory it is in."""
        home = self.scratch / name
        home.mkdir()
        tool.start(home, volume)
        for argv in tool.prepare():
            self.runner.command(argv, tool.env, home)
        return home


def remarks(summary: dict, method: str) -> list[str]:
    """What a summary says that would make its figures mean something else."""
    problems = summary.get("problems", [])
    if method == "none":         # of a live volume that is to be expected
        problems = [text for text in problems if not text.endswith("changed while it was read")]
    found = [*problems, *summary.get("warnings", [])]
    if method != "auto" and (used := summary.get("capture")) != method:
        found.append(f"asked for capture {method}, got {used} ({summary.get('capture_reason', '')})")
    return found


GOALS = ["target", "goal", "measured", ""]


def goal(name: str, limit: float, unit: str, value: float | None, text: Callable[[float], str],
         verdict: str | None = None) -> list[str]:
    """A row of a table of targets. `verdict` stands there instead, where the figure is none of the target's."""
    if value is None:
        return [name, f"≤ {text(limit)} {unit}", "–", verdict or "not measured"]
    return [name, f"≤ {text(limit)} {unit}", f"{text(value)} {unit}", verdict or ("✓" if value <= limit else "✗")]


def other_case(size: int, used: str, meant: str) -> str | None:
    """The verdict where the target is about another method of capture, or a volume of another size."""
    if used != meant:
        return f"by {used}, not {meant}"
    return None if size >= TARGET_SIZE else "other size"
