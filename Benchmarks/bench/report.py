"""Turns the raw numbers into Markdown tables and a list of targets."""

from statistics import median

MB, MIB = 10**6, 2**20
TARGET_SIZE = 3.5e9              # from this size on, the targets stated in MB and seconds hold


def values(result: dict, tool: str, step: str, key: str) -> list[float]:
    samples = result["tools"].get(tool, {}).get("samples", {}).get(step, [])
    return [s["user"] + s["system"] if key == "cpu" else s[key] for s in samples if key == "cpu" or key in s]


def mid(result: dict, tool: str, step: str, key: str) -> float | None:
    found = values(result, tool, step, key)
    return median(found) if found else None


def number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(result: dict, tool: str, step: str, key: str) -> str:
    found = values(result, tool, step, key)
    if not found:
        return "–"
    text = number(median(found))
    return f"{text} ({number(min(found))}–{number(max(found))})" if len(found) > 1 else text


def ratio(result: dict, tool: str, step: str) -> str:
    own, base = mid(result, tool, step, "wall"), mid(result, "cp", "first", "wall")
    return f"{own / base:.2f}" if own and base else "–"


def scaled(result: dict, tool: str, step: str, key: str, unit: int) -> str:
    value = mid(result, tool, step, key)
    return "–" if value is None else number(value / unit)


def peak(result: dict, tool: str) -> float:
    return max(s["rss"] for samples in result["tools"][tool]["samples"].values() for s in samples)


def memory(result: dict, tool: str) -> str:
    """Linux counts the launching Python into the peak, so small figures are only a bound."""
    value, floor = peak(result, tool), result["memory_floor"]
    return f"< {floor / MIB:.0f}" if value <= floor * 1.05 else f"{value / MIB:.0f}"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def header(result: dict) -> str:
    machine, volume = result["machine"], result["volume"]
    others = [s["others"] for tool in result["tools"].values() for ss in tool["samples"].values()
              for s in ss if s["wall"] >= 1]
    lines = [
        f"- Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory'] / 2**30:.0f} GiB memory, "
        f"{machine['system']}, Linux {machine['kernel']}, {machine['filesystem']} (volume and repositories on the same disk)",
        f"- Versions: " + "; ".join(f"{name} {tool['version']}" for name, tool in result["tools"].items()),
        f"- Volume: {volume['allocated'] / MB:.0f} MB allocated ({volume['apparent'] / MB:.0f} MB apparent), "
        f"{volume['files']} files, generator {volume['generator']}, seed {volume['seed']}; scattered change: "
        f"{volume['changed_pages']} pages of 4 KiB ({volume['changed_pages'] * 4096 / MB:.1f} MB)",
        f"- {result['date']}, {result['rounds']} round{'s' if result['rounds'] > 1 else ''}, interleaved, "
        f"{'cold' if result['cold'] else 'warm'} page cache; median (min–max)",
    ]
    if others:
        lines.append(f"- Everything else on the machine (kernel threads included) used {median(others):.2f} cores meanwhile, "
                     f"{max(others):.2f} at most")
    return "\n".join(lines)


def markdown(result: dict) -> str:
    names = list(result["tools"])
    labels = {name: tool["label"] for name, tool in result["tools"].items()}
    times = [[labels[t], spread(result, t, "first", "wall"), ratio(result, t, "first"),
              spread(result, t, "restore", "wall"), ratio(result, t, "restore"),
              spread(result, t, "unchanged", "wall"), spread(result, t, "changed", "wall")] for t in names]
    for t in names:
        if values(result, t, "unchanged_writer", "wall"):
            times.append([f"{labels[t]} with a writer key", "", "", "", "",
                          spread(result, t, "unchanged_writer", "wall"), ""])
    costs = [[labels[t], scaled(result, t, "first", "stored", MB), scaled(result, t, "changed", "stored", MB),
              scaled(result, t, "first", "read", MB), scaled(result, t, "changed", "read", MB),
              scaled(result, t, "first", "cpu", 1), scaled(result, t, "restore", "cpu", 1),
              memory(result, t), scaled(result, t, "first", "sync", 1),
              scaled(result, t, "restore", "sync", 1)] for t in names]
    parts = [
        header(result),
        table(["", "first backup, s", "× cp -a", "restore, s", "× cp -a", "unchanged, s", "scattered change, s"], times),
        table(["", "stored, MB", "scattered: stored, MB", "read, MB", "scattered: read, MB", "CPU, s",
               "restore: CPU, s", "peak memory, MiB", "sync after backup, s", "sync after restore, s"], costs),
    ]
    if goals := targets(result):
        parts.append(table(["target", "goal", "measured", ""], goals))
    return "\n\n".join(parts) + "\n"


def targets(result: dict) -> list[list[str]]:
    if "bgbackup" not in result["tools"]:
        return []
    full = result["volume"]["allocated"] >= TARGET_SIZE
    base = mid(result, "cp", "first", "wall")

    def of_copy(step: str) -> float | None:
        own = mid(result, "bgbackup", step, "wall")
        return own / base if own and base else None

    def megabytes(step: str) -> float | None:
        value = mid(result, "bgbackup", step, "stored")
        return None if value is None else value / MB

    rows = [
        ("first backup", of_copy("first"), 0.6, "× cp -a", True),
        ("first backup, stored", megabytes("first"), 2950, "MB", full),
        ("restore, verified", of_copy("restore"), 0.5, "× cp -a", True),
        ("unchanged backup", mid(result, "bgbackup", "unchanged", "wall"), 0.2, "s", True),
        ("unchanged backup, writer key", mid(result, "bgbackup", "unchanged_writer", "wall"), 0.1, "s", True),
        ("scattered change", mid(result, "bgbackup", "changed", "wall"), 1, "s", full),
        ("scattered change, stored", megabytes("changed"), 25, "MB", full),
        ("peak resident memory", peak(result, "bgbackup") / MIB, 300, "MiB", True),
    ]
    return [[name, f"≤ {goal} {unit}", "–" if value is None else f"{number(value)} {unit}",
             "not measured" if value is None else "other size" if not applies else "✓" if value <= goal else "✗"]
            for name, value, goal, unit, applies in rows]
