"""What a backup costs after a small change: by the share that changed, and by the size of the volume.

By share: the volume of make-volume is copied into a file system, and payload pages of it are changed in
place at random; bgbackup, restic and borg back up the same change in turn, each from a cold page cache.
By size: a volume of mostly holes grows from 1 to 64 GB; 4 MB of it change, each 4 KiB in a block of its own,
in as many files as that hits at random, and in the files that the smallest volume has.
Bytes read are bgbackup's own figure; what was read from the device is counted beside it, for every tool."""

import shutil
import subprocess
import time
from statistics import median

from . import sparse_volume
from .image import Image
from .measure import SETTLE_SECONDS, tree_size
from .report import number, table
from .scatter import PAGE, Scatter
from .setting import GOALS, Setting, goal, other_case, remarks
from .tools import Tool

SYSTEMS = [("btrfs", "btrfs"), ("xfs", "reflink")]       # the file system and the method of capture
IMAGE_SIZE = 8 << 30
SHARES = [0.0001, 0.001, 0.01]
SIZES = [1e9, 4e9, 16e9, 64e9]
CHANGE = 4_096_000                                       # bytes, whatever the size
TARGET_SHARE, READ_LIMIT, WALL_LIMIT = 0.001, 4.0, 0.5
WHERE = ["all files", "the same files"]                  # that a change hits, by the size of the volume
FLAT = 1.5                                               # times the smallest volume's, and it still counts as flat


class Volume:
    """A volume in an image, which tools back up by turns."""

    def __init__(self, setting: Setting, image: Image):
        self.setting, self.image, self.root = setting, image, image.directory()

    def settle(self) -> None:
        self.image.sync()
        time.sleep(SETTLE_SECONDS)

    def change(self, scatter: Scatter, pages: int, seed: int, apart: bool = False) -> int:
        changed = scatter.write(pages, seed, apart)
        self.settle()
        return changed

    def backup(self, tool: Tool) -> dict:
        argv, directory = tool.backup()
        before, stored = self.image.bytes_read(), tree_size(tool.repository)[0]
        figures, text = self.setting.runner.measure(tool, argv, tool.env, directory)
        figures["device_read"] = self.image.bytes_read() - before
        figures["stored"] = tree_size(tool.repository)[0] - stored
        figures["summary"] = tool.summary(text)
        return figures


# MARK: by share


def by_share(setting: Setting, kind: str, method: str) -> dict:
    with Image(kind, IMAGE_SIZE, setting.scratch) as image:
        volume = Volume(setting, image)
        setting.say(f"tracking: copying the volume to {kind}")
        subprocess.run(["cp", "-a", f"{setting.volume}/.", str(volume.root)], check=True)
        volume.settle()
        tools, homes = setting.contestants(method), []
        try:
            samples: list[dict] = []
            for name, tool in tools.items():
                homes.append(setting.begin(tool, name, volume.root))
                add(setting, samples, volume.backup(tool), tool=name, kind=kind, share=1.0, changed=setting.size)
            change_shares(setting, volume, tools, samples, kind)
            return {"method": setting.method or method, "samples": samples}
        finally:
            for home in homes:
                shutil.rmtree(home, ignore_errors=True)


def change_shares(setting: Setting, volume: Volume, tools: dict[str, Tool], samples: list[dict], kind: str) -> None:
    scatter, size, order = Scatter(volume.root), tree_size(volume.root)[0], list(tools)
    for turn in range(setting.rounds):
        for position, share in enumerate(SHARES):
            changed = volume.change(scatter, max(round(size * share / PAGE), 1), turn * len(SHARES) + position)
            for name in order:
                add(setting, samples, volume.backup(tools[name]), tool=name, kind=kind, share=share, changed=changed)
            order = order[1:] + order[:1]


# MARK: by size


def by_size(setting: Setting, kind: str, method: str) -> dict:
    pages = setting.scaled(CHANGE) // PAGE
    tool = setting.bgbackup(method)
    with Image(kind, IMAGE_SIZE, setting.scratch) as image:
        volume, home, samples, least = Volume(setting, image), None, [], 0
        try:
            for position, size in enumerate(SIZES):
                files = sparse_volume.grow(volume.root, setting.scaled(size), 1)
                volume.settle()
                if home is None:
                    home = setting.begin(tool, "bgbackup", volume.root)
                volume.backup(tool)
                least = files if position == 0 else least
                scatters = {"all files": Scatter(volume.root), "the same files": Scatter(volume.root, first=least)}
                for turn in range(setting.rounds):
                    for number_of, (where, scatter) in enumerate(scatters.items()):
                        seed = (position * setting.rounds + turn) * len(scatters) + number_of
                        changed = volume.change(scatter, pages, seed, apart=True)
                        add(setting, samples, volume.backup(tool), tool="bgbackup", kind=kind, where=where,
                            size=setting.scaled(size), files=files, changed=changed)
        finally:
            if home is not None:
                shutil.rmtree(home, ignore_errors=True)
        return {"method": setting.method or method, "samples": samples}


def add(setting: Setting, samples: list[dict], figures: dict, **about) -> None:
    samples.append(figures | about)
    what = f"{about['size'] / 1e9:.2f} GB" if "size" in about else f"{about['share'] * 100:g} % changed"
    read = (figures["summary"] or {}).get("bytes_read")
    setting.say(f"  {about['tool']:9} {about['kind']:5} {what:15} {number(figures['wall']):>5} s, "
                + (f"{read / 1e6:.1f} MB read, " if read is not None else "")
                + f"{figures['device_read'] / 1e6:.1f} MB from the device")


def measure(setting: Setting) -> dict:
    result: dict = {"size": setting.size, "by_share": {}, "by_size": {}}
    for kind, method in SYSTEMS:
        result["by_share"][kind] = by_share(setting, kind, method)
        if "bgbackup" in setting.tools:
            result["by_size"][kind] = by_size(setting, kind, method)
    return result


# MARK: tables


def pick(samples: list[dict], **about) -> list[dict]:
    return [s for s in samples if all(s[key] == value for key, value in about.items())]


def middle(samples: list[dict], key: str) -> float | None:
    """The median of a figure of the command, or of bgbackup's summary."""
    values = [s[key] if key in s else (s["summary"] or {}).get(key) for s in samples]
    values = [value for value in values if value is not None]
    return median(values) if values else None


def megabytes(samples: list[dict], key: str) -> str:
    value = middle(samples, key)
    return "–" if value is None else number(value / 1e6)


def walls(samples: list[dict]) -> str:
    values = [s["wall"] for s in samples]
    return f"{number(median(values))} ({number(min(values))}–{number(max(values))})" if values else "–"


def ratio(value: float) -> str:
    return f"{value:.2f}"


def per_change(samples: list[dict]) -> float | None:
    """Bytes read, by bgbackup's own account, for each byte that changed."""
    ratios = [s["summary"]["bytes_read"] / s["changed"] for s in samples if s["summary"]]
    return median(ratios) if ratios else None


COSTS = ["changed, MB", "wall, s", "read, MB", "× changed", "audited, MB", "from the device, MB", "stored, MB"]


def costs(samples: list[dict]) -> list[str]:
    times = per_change(samples)
    return [megabytes(samples, "changed"), walls(samples), megabytes(samples, "bytes_read"),
            "–" if times is None else ratio(times), megabytes(samples, "bytes_audited"),
            megabytes(samples, "device_read"), megabytes(samples, "stored")]


def share_rows(result: dict) -> list[list[str]]:
    rows = []
    for kind, case in result.items():
        for share in (1.0, *SHARES):
            for tool in ("bgbackup", "restic", "borg"):
                if samples := pick(case["samples"], tool=tool, share=share):
                    label = f"**bgbackup**, {case['method']}" if tool == "bgbackup" else tool
                    what = "first backup" if share == 1.0 else f"{share * 100:g} %"
                    rows.append([f"{label} on {kind}, {what}", *costs(samples)])
    return rows


def size_rows(result: dict) -> list[list[str]]:
    rows = []
    for kind, case in result.items():
        for size in sorted({s["size"] for s in case["samples"]}):
            for where in WHERE:
                samples = pick(case["samples"], size=size, where=where)
                what = (f"{case['method']} on {kind}, {number(size / 1e9)} GB, {samples[0]['files']} files, changed in {where}: "
                        f"{middle(samples, 'files_changed'):.0f}")
                rows.append([what, *costs(samples)])
    return rows


def targets(result: dict) -> list[list[str]]:
    rows, meant = [], dict(SYSTEMS)
    for kind, case in result["by_share"].items():
        if samples := pick(case["samples"], tool="bgbackup", share=TARGET_SHARE):
            what = f"{case['method']} on {kind}, {TARGET_SHARE * 100:g} % changed"
            verdict = other_case(result["size"], case["method"], meant[kind])
            rows.append(goal(f"{what}: bytes read", READ_LIMIT, "× changed", per_change(samples), ratio, verdict))
            rows.append(goal(f"{what}: wall", WALL_LIMIT, "s", middle(samples, "wall"), number, verdict))
    for kind, case in result["by_size"].items():
        sizes = sorted({s["size"] for s in case["samples"]})
        for where in WHERE:
            least, most = (pick(case["samples"], size=size, where=where) for size in (sizes[0], sizes[-1]))
            # What is audited is none of bytes_read, but the device feels it.
            for key, label in (("wall", "wall"), ("bytes_read", "bytes read"), ("device_read", "from the device")):
                one, other = middle(least, key), middle(most, key)
                rows.append(goal(f"{case['method']} on {kind}: {label}, 64 × the size, changed in {where}", FLAT, "× (flat)",
                                 other / one if one and other is not None else None, ratio,
                                 other_case(result["size"], case["method"], meant[kind])))
    return rows


def notes(result: dict) -> list[str]:
    return [f"{kind}: {text}" for part in ("by_share", "by_size") for kind, case in result[part].items()
            for sample in case["samples"] if sample["summary"] for text in remarks(sample["summary"], case["method"])]


def markdown(result: dict) -> str:
    parts = ["By the share that changed, in scattered 4 KiB; cold page cache, median (min–max)",
             table(["", *COSTS], share_rows(result["by_share"]))]
    if result["by_size"]:
        parts += ["By the size of the volume, with the same change",
                  table(["", *COSTS], size_rows(result["by_size"])), table(GOALS, targets(result))]
    return "\n\n".join(parts)
