"""The figures of captures: for how long writes are held, what little change costs, how fast a database stays."""

from collections import Counter
from types import ModuleType

from . import held, image, latency, memory_group, tracking
from .setting import Setting

PARTS: dict[str, ModuleType] = {"held": held, "tracking": tracking, "latency": latency}
MOST_NOTES = 12
TOOLS = ("bgbackup", "restic", "borg")
TITLES = {"held": "Writes held", "tracking": "Cost of a small change", "latency": "The database beside a first backup"}


def chosen(parts: list[str]) -> list[str]:
    """Which parts `--capture` with these words asks for."""
    return [name for name in PARTS if not parts or name in parts]


def needs_volume(parts: list[str]) -> bool:
    return chosen(parts) != ["held"]


def measure(parts: list[str], setting: Setting) -> dict:
    image.sweep(setting.scratch.parent)
    memory_group.sweep()
    return {name: PARTS[name].measure(setting) for name in chosen(parts)}


def header(result: dict) -> str:
    machine = result["machine"]
    return "\n".join([
        f"- Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory'] / 2**30:.0f} GiB memory, "
        f"{machine['system']}, Linux {machine['kernel']}; images, volume and repositories on one disk "
        f"({machine['filesystem']})",
        "- Versions: " + "; ".join(f"{name} {tool['version']}" for name, tool in result["tools"].items()),
        f"- {result['date']}, {result['rounds']} round{'s' if result['rounds'] > 1 else ''}, "
        f"{'cold' if result['cold'] else 'warm'} page cache"])


def markdown(result: dict) -> str:
    sections = [header(result)]
    for name, figures in result["capture"].items():
        sections += [f"### {TITLES[name]}", PARTS[name].markdown(figures)]
        if notes := Counter(PARTS[name].notes(figures)).most_common():
            lines = [f"- {times} × {text}" for text, times in notes[:MOST_NOTES]]
            if len(notes) > MOST_NOTES:
                lines.append(f"- and {len(notes) - MOST_NOTES} more of such, in the raw numbers")
            sections.append("\n".join(lines))
    return "\n\n".join(sections) + "\n"
