"""What the volume must hold: every collection after each of its acknowledged batches."""

from dataclasses import dataclass
from typing import NamedTuple


class Version(NamedTuple):
    """What a point is; its vectors and the rest of its payload follow from ordinal and revision."""

    revision: int
    note: str | None


@dataclass(frozen=True)
class Batch:
    """One acknowledged operation: one record of the write-ahead log."""

    time: float          # when the acknowledgement was read
    number: int          # over all collections, in the order in which they were issued
    after: dict[int, Version | None]    # what it makes of each point it touches; None: gone


class Collection:
    """A state, and the batches that have been applied to it since."""

    def __init__(self, base: dict[int, Version]):
        self.base, self.batches, self.dropped = dict(base), [], 0

    def add(self, time: float, said: dict) -> None:
        operation, note = said["operation"], said.get("note")
        if operation == "delete":
            after = {ordinal: None for ordinal, _ in said["items"]}
        else:    # an upsert replaces the whole payload, so the note goes
            after = {ordinal: Version(revision, note) for ordinal, revision in said["items"]}
        self.batches.append(Batch(time, said["batch"], after))

    def acknowledged(self, moment: float) -> int:
        """How many batches were known to be acknowledged before a moment."""
        return sum(batch.time < moment for batch in self.batches)

    def state(self, count: int) -> dict[int, Version]:
        state = dict(self.base)
        for batch in self.batches[:count]:
            apply(state, batch)
        return state

    def forget(self, count: int) -> None:
        """Makes the state after so many batches the new base, so that a long run does not grow."""
        self.base = self.state(count)
        self.batches, self.dropped = self.batches[count:], self.dropped + count


def apply(state: dict[int, Version], batch: Batch) -> None:
    for ordinal, version in batch.after.items():
        if version is None:
            state.pop(ordinal, None)
        else:
            state[ordinal] = version


class Model:
    """All collections, fed with the lines that the load has said."""

    def __init__(self, bases: dict[str, dict[int, Version]]):
        self.collections = {name: Collection(base) for name, base in bases.items()}

    def feed(self, lines) -> None:
        for line in lines:
            if "collection" in line.said:
                self.collections[line.said["collection"]].add(line.time, line.said)

    def forget_before(self, moment: float) -> None:
        for collection in self.collections.values():
            collection.forget(collection.acknowledged(moment))

    def as_json(self) -> dict:
        """Enough to judge a kept volume again."""
        return {name: {"base": collection.base, "dropped": collection.dropped,
                       "batches": [[batch.time, batch.number, batch.after] for batch in collection.batches]}
                for name, collection in self.collections.items()}
