"""Judges what the engine found in a restored volume against the model."""

from collections import Counter
from dataclasses import dataclass, field

from .model import Batch, Collection, Model, Version, apply

EXAMPLES = 8


@dataclass
class Prefix:
    """Whether a collection is in the state after its first so many batches, and after which."""

    found: bool
    lost: int = 0             # batches acknowledged before the backup that are not in it
    first: int | None = None  # the number of the last batch in it, and of the next one: the moment lies between
    next: int | None = None
    time: float | None = None
    torn: int | None = None   # the number of a batch of which a part is in it, where that explains all
    nearest: int = 0          # how many points differ from the state that fits best


@dataclass
class Verdict:
    outcome: str                                             # ok, wrong, broken or failed
    reason: str = ""
    counts: dict[str, int] = field(default_factory=dict)     # kind of fault → points
    examples: list[str] = field(default_factory=list)
    prefixes: dict[str, Prefix] = field(default_factory=dict)
    one_moment: bool | None = None                           # a prefix over all collections; None: not looked at

    def short(self) -> str:
        if self.reason:
            return " ".join(self.reason.split())[:500]
        faults = ", ".join(f"{count} {kind}" for kind, count in self.counts.items())
        return f"{faults}; {self.examples[0]}" if self.examples else faults


def judge(model: Model, start: float, observed: dict, must_be_one_moment: bool) -> Verdict:
    """`observed` is what `observe` printed; `start` is when the backup was started."""
    faults: list[tuple[str, str]] = []
    prefixes = {}
    for name, collection in model.collections.items():
        found = observed["collections"][name]
        points = {ordinal: Version(revision, note) for ordinal, revision, note in found["points"]}
        faults += [(kind, f"{name}: {text}") for kind, text in found["faults"]]
        faults += [(kind, f"{name}: {text}") for kind, text in _point_faults(collection, start, points)]
        prefixes[name] = find_prefix(collection, start, points)
    one_moment = _is_one_moment(prefixes.values())
    if must_be_one_moment and not one_moment:
        faults += _moment_faults(prefixes)
    counts = Counter(kind for kind, _ in faults)
    examples = [f"{kind}: {text}" for kind, text in faults]
    return Verdict("wrong" if faults else "ok", "", dict(counts), _spread(examples, counts), prefixes, one_moment)


def _spread(examples: list[str], counts: Counter) -> list[str]:
    """The first examples of every kind."""
    share = max(1, EXAMPLES // max(1, len(counts)))
    return [text for kind in counts for text in [e for e in examples if e.startswith(f"{kind}: ")][:share]]


# --- point by point ---------------------------------------------------------------------------------

def _point_faults(collection: Collection, start: float, points: dict[int, Version]):
    """A point is as it was when the backup started, or as any later batch made it."""
    before = collection.acknowledged(start)
    state = collection.state(before)
    earlier, later = _versions(collection.batches[:before]), _versions(collection.batches[before:])
    for ordinal in sorted(state.keys() | points.keys()):
        expected, found = state.get(ordinal), points.get(ordinal)
        if found != expected and found not in later.get(ordinal, ()):
            since = ", touched since" if ordinal in later else ""
            text = f"point {ordinal} should be {_show(expected)}{since}, is {_show(found)}"
            known = found == collection.base.get(ordinal) or found in earlier.get(ordinal, ())
            yield _name_fault(expected, found, known), text


def _versions(batches: list[Batch]) -> dict[int, set[Version | None]]:
    """All that batches make of each point."""
    versions: dict[int, set] = {}
    for batch in batches:
        for ordinal, version in batch.after.items():
            versions.setdefault(ordinal, set()).add(version)
    return versions


def _name_fault(expected: Version | None, found: Version | None, known: bool) -> str:
    if found is None:
        return "missing"
    if expected is None:
        return "returned"
    return "outdated" if known or found.revision < expected.revision else "mixed"    # mixed: it never was like that


def _show(version: Version | None) -> str:
    if version is None:
        return "absent"
    return f"revision {version.revision}" + (f" with note {version.note}" if version.note else "")


# --- as a whole -------------------------------------------------------------------------------------

def find_prefix(collection: Collection, start: float, points: dict[int, Version]) -> Prefix:
    """Looks for a number k so that the points are those after the first k batches.

    Looks from the base on, which is before the previous backup, so that a state that is too old is told
    from one that never was. The number of batches read since the backup ended bounds it above.
    """
    before = collection.acknowledged(start)
    state = dict(collection.base)
    wrong = {ordinal for ordinal in state.keys() | points.keys() if state.get(ordinal) != points.get(ordinal)}
    nearest, torn, old = len(wrong), None, None
    for count in range(len(collection.batches) + 1):
        if not wrong:
            found = _prefix_at(collection, count, before)
            if count >= before:
                return found
            old = found
        if count == len(collection.batches):
            break
        batch = collection.batches[count]
        if count >= before and _is_torn(wrong, batch, points):
            torn = batch.number
        apply(state, batch)
        for ordinal in batch.after:
            (wrong.discard if state.get(ordinal) == points.get(ordinal) else wrong.add)(ordinal)
        nearest = min(nearest, len(wrong))
    return old or Prefix(False, torn=torn, nearest=nearest)


def _prefix_at(collection: Collection, count: int, before: int) -> Prefix:
    last = collection.batches[count - 1] if count else None
    after = collection.batches[count] if count < len(collection.batches) else None
    return Prefix(count >= before, max(0, before - count), last.number if last else None,
                  after.number if after else None, last.time if last else None)


def _is_torn(wrong: set[int], batch: Batch, points: dict[int, Version]) -> bool:
    """Whether all that differs from the state before a batch is what that batch makes of some of its points."""
    return bool(wrong) and all(o in batch.after and batch.after[o] == points.get(o) for o in wrong)


def _is_one_moment(prefixes) -> bool:
    """Batches are issued one after the other, so the moments of all collections must share some number."""
    if not all(prefix.found for prefix in prefixes):
        return False
    latest = max(prefix.first or 0 for prefix in prefixes)
    return all(prefix.next is None or latest < prefix.next for prefix in prefixes)


def _moment_faults(prefixes: dict[str, Prefix]):
    for name, prefix in prefixes.items():
        if prefix.lost:
            yield "not one moment", f"{name} lacks the last {prefix.lost} batches acknowledged before the backup"
        elif prefix.torn is not None:
            yield "not one moment", f"{name} holds a part of batch {prefix.torn}"
        elif not prefix.found:
            yield "not one moment", f"{name} is in no state it ever was in: {prefix.nearest} points off the nearest one"
    if all(prefix.found for prefix in prefixes.values()):
        spans = "; ".join(f"{name} after batch {p.first} and before {p.next}" for name, p in prefixes.items())
        yield "not one moment", f"the collections are of different moments: {spans}"
