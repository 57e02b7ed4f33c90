"""Draws the comparison: `plot.py RESULT.json FILE.svg|FILE.png`, in the virtual environment."""

import json
import sys
from pathlib import Path
from statistics import median

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

# Okabe and Ito's blue against grey: apart in lightness too.
OWN, OTHER = "#0072B2", "#9A9A9A"
PANELS = [("first", "wall", "First backup, s", 1), ("restore", "wall", "Restore, s", 1),
          ("first", "stored", "Stored, MB", 10**6), ("unchanged", "wall", "Unchanged backup, s", 1),
          ("changed", "wall", "Scattered change, s", 1), ("changed", "stored", "Scattered change, stored MB", 10**6)]


def label(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def draw(result: dict, path: Path) -> None:
    plt.rcParams.update({"font.family": "sans-serif", "font.size": 10, "svg.fonttype": "none", "svg.hashsalt": "bgbackup"})
    names = list(result["tools"])
    figure, axes = plt.subplots(2, 3, figsize=(10, 1.6 + 0.62 * len(names)), sharey=True, layout="constrained")
    for axis, (step, key, title, unit) in zip(axes.flat, PANELS):
        samples = [[s[key] / unit for s in result["tools"][n]["samples"].get(step, [])] for n in names]
        middles = [median(s) if s else 0 for s in samples]
        top = max(middles) or 1
        for row, (name, found, middle) in enumerate(zip(names, samples, middles)):
            color = OWN if name == "bgbackup" else OTHER
            axis.barh(row, middle, height=0.66, color=color)
            if len(found) > 1 and max(found) - min(found) > 0.01 * top:
                axis.hlines(row, min(found), max(found), color="black", linewidth=1)
            text = label(middle) if found else "not incremental"
            axis.text(max(found, default=0) + 0.02 * top, row, text, va="center",
                      color="black" if found else "#606060", fontweight="bold" if name == "bgbackup" else "normal")
        axis.set_title(title, loc="left", fontsize=10.5, fontweight="bold")
        axis.set_xlim(0, max(top, *(max(s, default=0) for s in samples)) * 1.22)
        axis.set_yticks(range(len(names)), [result["tools"][n]["label"].replace("\\", "").replace("*", "") for n in names])
        axis.tick_params(axis="y", length=0)
        axis.xaxis.set_visible(False)
        axis.spines[["top", "right", "bottom"]].set_visible(False)
    axes[0, 0].invert_yaxis()
    machine, volume = result["machine"], result["volume"]
    figure.supxlabel(
        f"Shorter is better. {volume['allocated'] / 1e9:.1f} GB volume, {machine['cores']} cores, {machine['filesystem']}; "
        f"{'median of ' if result['rounds'] > 1 else ''}{result['rounds']} round{'s, line: range' if result['rounds'] > 1 else ''}",
        fontsize=9)
    metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
    figure.savefig(path, dpi=160, facecolor="white", metadata=metadata)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
