#!/usr/bin/env python3
"""Opens a volume with the engine, which writes to it, and prints what is in it as JSON: give it a copy.

For every collection: each point as [ordinal, revision, note], and as faults whatever does not belong
together: vectors or payload of another version, a point listed twice, an index that knows other points
than the segments, new writes that are accepted and lost. Fails where the engine does.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from qdrant_fixture import environment, layout  # noqa: E402

TOLERANCE = 2e-3         # float16 keeps 11 bits
NEIGHBOURS = 3           # revisions searched for the one that a wrong vector belongs to
PROBED = 20              # points overwritten to see that the volume still takes writes
PROBE_REVISION = 10**6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, metavar="PATH", help="a throw-away copy of a storage directory")
    parser.add_argument("--seed", type=int, default=1, help="of the volume (default %(default)s)")
    arguments = parser.parse_args()
    environment.enter()
    try:
        found = {name: look(name, path, arguments.seed)
                 for name, path in layout.collection_directories(arguments.path).items()}
    except BaseException as error:    # a panic of the engine is no Exception
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"collections": found}, separators=(",", ":")))
    return 0


def look(name: str, directory: Path, seed: int) -> dict:
    from qdrant_fixture import engine
    config = layout.read_json(directory / "config.json")
    schema = layout.read_json(directory / "payload_index.json")["schema"]
    shard = engine.edge.EdgeShard.load(str(directory / "0"), engine.edge_config(config))
    try:
        records = list(engine.scroll(shard, with_payload=True, with_vector=True))
        observed, faults = Points(name, config["params"], seed), []
        for record in records:
            faults += observed.add(record)
        faults += index_faults(shard, schema, records)
        faults += search_faults(shard, name, config["params"], records)
        faults += write_faults(shard, observed)
        return {"points": observed.found, "faults": faults}
    finally:
        shard.close()


class Points:
    """Checks each record against what its own ordinal and revision say it should be."""

    def __init__(self, name: str, params: dict, seed: int):
        from qdrant_fixture import points
        self.make = lambda ordinal, revision: points.make(seed, name, params, ordinal, revision)
        self.id_of = points.point_id
        specs = points.named_vectors(params)
        self.cosine = {name for name, spec in specs.items() if spec["distance"] == "Cosine"}
        self.found: list[list] = []
        self._seen: set[int] = set()

    def add(self, record) -> list[tuple[str, str]]:
        payload = dict(record.payload or {})
        ordinal, revision, note = payload.get("ordinal"), payload.get("revision"), payload.pop("note", None)
        if not isinstance(ordinal, int) or not isinstance(revision, int):
            return [("mixed", f"point with id {record.id} has the payload {str(payload)[:80]}")]
        if str(self.id_of(ordinal)) != str(record.id):
            return [("mixed", f"point with id {record.id} has the payload of point {ordinal}")]
        if ordinal in self._seen:
            return [("twice", f"point {ordinal} is listed again, with revision {revision}")]
        self._seen.add(ordinal)
        self.found.append([ordinal, revision, note])
        return list(self._content_faults(ordinal, revision, payload, record.vector))

    def _content_faults(self, ordinal: int, revision: int, payload: dict, vectors):
        made = self.make(ordinal, revision)
        keys = made.payload.keys() | payload.keys()
        if fields := sorted(key for key in keys if not _same(made.payload.get(key), payload.get(key))):
            yield "mixed", f"point {ordinal} of revision {revision} has other values of {', '.join(fields)}"
        if wrong := self._differing(made.vector, vectors):
            yield "mixed", (f"point {ordinal} of revision {revision} has other vectors: {', '.join(wrong)}"
                            f"{self._origin(ordinal, revision, wrong[0], vectors)}")

    def _differing(self, expected, found) -> list[str]:
        expected, found = _named(expected), _named(found)
        return [name or "unnamed" for name in sorted(expected.keys() | found.keys())
                if not _equal(expected.get(name), found.get(name), name in self.cosine)]

    def _origin(self, ordinal: int, revision: int, wrong: str, found) -> str:
        for other in range(max(1, revision - NEIGHBOURS), revision + NEIGHBOURS + 1):
            if wrong not in self._differing(self.make(ordinal, other).vector, found):
                return f" (of revision {other})"
        return ""


def _same(expected, found) -> bool:
    """Equality of payload values: the engine's JSON reader may miss the last bit of a number."""
    if isinstance(expected, float) and isinstance(found, float):
        return abs(expected - found) <= 1e-12 * max(1.0, abs(expected))
    if isinstance(expected, dict) and isinstance(found, dict):
        return expected.keys() == found.keys() and all(_same(expected[key], found[key]) for key in expected)
    return expected == found


def _named(vector) -> dict:
    return vector if isinstance(vector, dict) else {"": vector} if vector is not None else {}


def _equal(expected, found, cosine: bool) -> bool:
    """Whether what is stored is what was given, as the engine stores it: cosine vectors have length 1."""
    if expected is None or found is None:
        return False
    if hasattr(expected, "indices"):
        return hasattr(found, "indices") and \
            sorted(expected.indices) == sorted(found.indices) and \
            _close([v for _, v in sorted(zip(expected.indices, expected.values))],
                   [v for _, v in sorted(zip(found.indices, found.values))])
    if expected and isinstance(expected[0], list):
        return len(expected) == len(found) and all(map(_close, expected, found))
    if cosine:
        length = sum(value * value for value in expected) ** 0.5
        expected = [value / length for value in expected]
    return _close(expected, found)


def _close(expected: list[float], found: list[float]) -> bool:
    return len(expected) == len(found) and all(
        abs(one - two) <= TOLERANCE * max(1.0, abs(one)) for one, two in zip(expected, found))


def index_faults(shard, schema: dict, records: list):
    """Counts through the payload indexes and compares with the points themselves."""
    import qdrant_edge as edge

    def count(condition) -> int:
        return shard.count(edge.CountRequest(exact=True, filter=condition and edge.Filter(must=[condition])))

    def compare(text: str, expected: int, condition=None):
        if (found := count(condition)) != expected:
            yield "index", f"{text}: {found} counted, {expected} listed"

    yield from compare("all points", len(records))
    everything = edge.FieldCondition("ordinal", range=edge.RangeFloat(gte=0))
    yield from compare("ordinal ≥ 0", len(records), everything)
    for field in (field for field, kind in schema.items() if kind == "keyword"):
        values = Counter(value for record in records for value in _values(record.payload, field))
        for value, expected in sorted(values.items()):
            condition = edge.FieldCondition(field, match=edge.MatchValue(value))
            yield from compare(f"{field} = {value}", expected, condition)


def _values(payload: dict | None, field: str) -> list[str]:
    value = (payload or {}).get(field, [])
    return value if isinstance(value, list) else [value]


def search_faults(shard, name: str, params: dict, records: list):
    """Searches through the graphs and quantized vectors, and sees that only points of the volume come back."""
    import random
    import qdrant_edge as edge
    from qdrant_fixture import points
    known = {str(record.id) for record in records}
    queries = points.vectors(random.Random(f"search/{name}"), params)
    for vector_name, vector in sorted(queries.items()):
        hits = shard.query(edge.QueryRequest(limit=10, query=edge.Query.Nearest(vector, vector_name)))
        if unknown := {str(hit.id) for hit in hits} - known:
            yield "index", f"a search in {vector_name or 'the unnamed vector'} finds {len(unknown)} unknown points"


def write_faults(shard, observed: Points):
    """A log older than its segments makes the engine accept writes and drop them (qdrant.md, section 2)."""
    import qdrant_edge as edge
    chosen = sorted(ordinal for ordinal, _, _ in observed.found)
    chosen = chosen[::max(1, len(chosen) // PROBED)]
    shard.update(edge.UpdateOperation.upsert_points([observed.make(o, PROBE_REVISION) for o in chosen]))
    kept = shard.retrieve([observed.id_of(ordinal) for ordinal in chosen], with_payload=True, with_vector=False)
    lost = len(chosen) - sum((record.payload or {}).get("revision") == PROBE_REVISION for record in kept)
    if lost:
        yield "deaf", f"{lost} of {len(chosen)} new overwrites were accepted and dropped"


if __name__ == "__main__":
    sys.exit(main())
