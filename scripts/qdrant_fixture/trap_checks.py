"""Springs every trap on a copy and looks at what has changed: just that, and that for sure."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

from . import layout, raft_log, traps
from .manifest import _data_segments

# What differs afterwards in a JSON file that a trap edits, as paths of keys; {} stands for any key.
EDITS = {
    "replica-dead": {"peers.{}"}, "replica-partial": {"peers.{}"}, "replica-listener": {"peers.{}"},
    "remote-replica-dead": {"peers.{}"}, "uuid-differs": {"uuid"}, "config-differs": {"hnsw_config.m"},
    "aliases-differ": {"docs-next"}, "commit-beyond-log": {"state.hard_state.commit"},
    "joint-consensus": {"state.conf_state." + name for name in ("voters", "voters_outgoing", "auto_leave")},
    "pending-entries": {"apply_progress_queue"}, "learner": {"state.conf_state.voters", "state.conf_state.learners"},
    "stale-first-voter": {"first_voter"}, "versions-differ": {"peer_metadata_by_id.{}.version"},
    "changed-uri": {"peer_address_by_id.{}"}, "term-ahead": {"state.hard_state.term", "state.hard_state.vote"},
    "commit-behind": {"state.hard_state.commit", "apply_progress_queue"},
}
# What of a damaged volume the engine cannot open.
REFUSED = ("first-index-empty", "segment-json-bad", "segment-json-missing", "collection-config-bad", "raft-bad")


# Two traps are sprung as a test does it, one with the engine and one without; a process for each would take too long.
COMMANDS = ("skewed", "wal-torn")


def tree(root: Path) -> dict[str, str]:
    """A digest of every path: its kind, size and data, wherever its holes are."""
    found = {}
    for directory, folders, files in os.walk(root):
        for name in folders:
            found[os.path.relpath(os.path.join(directory, name), root)] = "directory"
        for name in files:
            path = os.path.join(directory, name)
            found[os.path.relpath(path, root)] = _digest(path)
    return found


def _digest(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        for start, end in list(_data_segments(file.fileno(), size)):
            data = os.pread(file.fileno(), end - start, start)
            for offset in range(0, len(data), 4096):
                page = data[offset:offset + 4096]
                if page.count(0) < len(page):
                    digest.update(f"{start + offset}:".encode() + page)
    return f"{size} {digest.hexdigest()}"


def run(checks) -> None:
    source = checks.node("three", 1)
    before = tree(source)
    for trap in traps.TRAPS.values():
        checks.check(f"trap {trap.name}", _spring, checks, trap, source, before)
    for name in REFUSED:
        checks.check(f"boot-edge refuses {name}", _refused, checks, source, name)
    checks.check("trap --list names them all", _listed, checks)


def _spring(checks, trap: traps.Trap, source: Path, before: dict) -> str:
    from .checks import expect, same
    copy = checks.copy(source, trap.name)
    try:
        if trap.name in COMMANDS:
            checks.script("trap", trap.name, copy)
        else:
            traps.spring(trap.name, copy)
        after = tree(copy)
        changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
        expect(changed, "nothing has changed")
        same([path for path in changed if not trap.covers(path)], [], "changed besides")
        if trap.name in EDITS:
            same(len(changed), 1, "files")
            same(_edits(source / changed[0], copy / changed[0]), EDITS[trap.name], "keys")
        if trap.name in MEANINGS:
            MEANINGS[trap.name](source, copy)
        return f"{len(changed)} paths"
    finally:
        subprocess.run(["rm", "-rf", str(copy)], check=True)


def _edits(before: Path, after: Path) -> set[str]:
    one, two = layout.read_json(before), layout.read_json(after)
    return {".".join("{}" if part.isdecimal() else part for part in path) for path in _differences(one, two, ())}


def _differences(one, two, path: tuple):
    if isinstance(one, dict) and isinstance(two, dict):
        for name in one.keys() | two.keys():
            yield from _differences(one.get(name), two.get(name), (*path, name))
    elif one != two:
        yield path


def _refused(checks, source: Path, name: str) -> None:
    from .checks import Failed, boot, expect
    copy = checks.copy(source, name)
    traps.spring(name, copy)
    try:
        with boot(checks, copy):
            pass
    except Failed as failure:
        expect(str(failure).startswith("boot-edge: ") and str(failure).count("\n") == 1, f"it said {failure}")
        return
    finally:
        subprocess.run(["rm", "-rf", str(copy)], check=True)
    raise Failed("it has booted")


def _listed(checks) -> str:
    from .checks import same
    lines = checks.script("trap", "--list").splitlines()
    same([line.split()[0] for line in lines], list(traps.TRAPS), "names")
    return f"{len(lines)} traps"


# --- what traps mean ------------------------------------------------------------------------------------

SHARD = Path("collections/documents/0")


def _last_operation(root: Path) -> int:
    return len(raft_log.read(root / SHARD / "wal/open-1")[1]) - 1


def _log_is_older(source: Path, copy: Path) -> None:
    from .checks import expect
    newest = max(layout.read_json(path)["version"] or 0 for path in (copy / SHARD).glob("segments/*/segment.json"))
    expect(_last_operation(copy) < newest, f"the log ends with {_last_operation(copy)}, segments with {newest}")
    ack = json.loads((copy / SHARD / "wal/first-index").read_text())["ack_index"]
    expect(0 <= ack <= max(_last_operation(copy), 0), f"acknowledged up to {ack}")


def _log_is_torn(source: Path, copy: Path) -> None:
    """The log ends early, and the records behind the break are still there."""
    from .checks import expect, same
    log, whole = copy / SHARD / "wal/open-1", raft_log.read(source / SHARD / "wal/open-1")[1]
    intact = len(raft_log.read(log)[1])
    expect(0 < intact < len(whole) - 1, f"{intact} of {len(whole)} records are intact")
    start = raft_log.position(source / SHARD / "wal/open-1", len(whole) - 1)
    same(log.read_bytes()[start:start + len(whole[-1])], whole[-1], "the last record")


def _points(root: Path) -> int:
    from . import engine
    collection = engine.Collection.load("documents", root / "collections/documents", seed=0)
    try:
        return collection.count()
    finally:
        collection.close()


def _is_skewed(source: Path, copy: Path) -> None:
    from .checks import POINTS, same
    same((copy / SHARD / "newest_clocks.json").read_text(), (source / SHARD / "newest_clocks.json").read_text(), "clocks")
    same(_points(copy), POINTS - 10, "points")  # opening it writes the clocks anew, so this comes last


def _is_ahead(source: Path, copy: Path) -> None:
    from .checks import POINTS, expect, same
    ticks = [layout.read_json(root / SHARD / "newest_clocks.json")["clocks"][0]["current_tick"] for root in (source, copy)]
    expect(ticks[0] < ticks[1], f"ticks {ticks}")
    same(_points(copy), POINTS + 10, "points")


def _has_rocksdb(source: Path, copy: Path) -> None:
    from .checks import same
    same(sorted(path.name for path in copy.rglob("*.sst")) + sorted(path.name for path in copy.rglob("CURRENT")),
         ["000010.sst", "CURRENT"], "files")


def _loses_a_segment(source: Path, copy: Path) -> None:
    from .checks import POINTS, expect
    left = _points(copy)
    expect(0 < left < POINTS, f"{left} points are left")


MEANINGS = {"wal-older": _log_is_older, "wal-reset": _log_is_older, "wal-torn": _log_is_torn, "skewed": _is_skewed,
            "ahead": _is_ahead, "rocksdb": _has_rocksdb, "no-version-info": _loses_a_segment}
