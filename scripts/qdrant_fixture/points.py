"""Points as a pure function of (seed, collection, ordinal, revision), and their digests."""

import hashlib
import json
import random
import struct
import uuid
import zlib

from qdrant_edge import Point, SparseVector

WORDS = ("vector search node volume snapshot restore payload segment index graph point query score filter "
         "cluster shard replica consensus storage memory latency recall quantized distance cosine token "
         "document image embedding model batch stream commit flush merge optimize vacuum lease key block").split()
CITIES = ["Berlin", "Lisbon", "Kyoto", "Lagos", "Quito", "Oslo", "Tbilisi", "Perth"]
VOCABULARY = 5000  # dimensions of the sparse vector


def point_id(ordinal: int):
    """Mostly small integers, with UUIDs and integers beyond 2^63 among them, as users have them."""
    if ordinal % 8 == 3:
        return str(uuid.UUID(int=random.Random(ordinal).getrandbits(128), version=4))
    return ordinal + 2**63 if ordinal % 512 == 500 else ordinal


def shard_of(ordinal: int, shards: int) -> int:
    return zlib.crc32(str(point_id(ordinal)).encode()) % shards


def make(seed: int, collection: str, params: dict, ordinal: int, revision: int) -> Point:
    rng = random.Random(f"{seed}/{collection}/{ordinal}/{revision}")
    return Point(point_id(ordinal), vectors(rng, params), payload(rng, collection, ordinal, revision))


def vectors(rng: random.Random, params: dict) -> dict:
    """One value for every vector that the collection's parameters name."""
    named = named_vectors(params)
    values = {name: dense(rng, spec) for name, spec in named.items()}
    values |= {name: sparse(rng) for name in params.get("sparse_vectors") or {}}
    return values


def named_vectors(params: dict) -> dict[str, dict]:
    """The dense vectors by name; a collection with one unnamed vector lists its parameters directly."""
    specs = params.get("vectors") or {}
    return {"": specs} if isinstance(specs.get("size"), int) else specs


def dense(rng: random.Random, spec: dict) -> list:
    if spec.get("multivector_config"):
        return [_normal(rng, spec["size"]) for _ in range(rng.randint(1, 4))]
    return _normal(rng, spec["size"])


def _normal(rng: random.Random, size: int) -> list[float]:
    gauss = rng.gauss
    return [gauss(0.0, 1.0) for _ in range(size)]


def sparse(rng: random.Random) -> SparseVector:
    indices = sorted(rng.sample(range(VOCABULARY), 12))
    return SparseVector(indices, [rng.uniform(0.1, 3.0) for _ in indices])


def payload(rng: random.Random, collection: str, ordinal: int, revision: int) -> dict:
    common = {"ordinal": ordinal, "revision": revision}
    if collection != "documents":
        owner = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        return common | {"owner": owner, "url": f"https://images.example/{ordinal:08d}.jpg"}
    return common | {
        "title": sentence(rng, 6),
        "body": sentence(rng, 40),
        "city": rng.choice(CITIES),
        "tags": rng.sample(WORDS, 3),
        "price": round(rng.uniform(1, 999), 2),
        "active": rng.random() < 0.7,
        "created": f"2024-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}T{rng.randint(0, 23):02d}:00:00Z",
        "location": {"lon": rng.uniform(-180, 180), "lat": rng.uniform(-85, 85)},
        "source": {"url": f"https://docs.example/{ordinal:08d}", "lines": [rng.randint(1, 900), revision]},
    }


def sentence(rng: random.Random, length: int) -> str:
    return " ".join(rng.choices(WORDS, k=length))


def payload_digest(record) -> bytes:
    text = json.dumps(record.payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).digest()


def vector_digest(record) -> bytes:
    """Over the float32 bits, vector by vector in the order of their names."""
    found = record.vector
    named = found if isinstance(found, dict) else {"": found}
    digest = hashlib.sha256()
    for name in sorted(named):
        digest.update(name.encode() + b"\0")
        _update(digest, named[name])
    return digest.digest()


def _update(digest, value) -> None:
    if isinstance(value, SparseVector):
        pairs = sorted(zip(value.indices, value.values))
        digest.update(b"s" + struct.pack("<I", len(pairs)))
        digest.update(b"".join(struct.pack("<If", *pair) for pair in pairs))
    elif value and isinstance(value[0], list):
        digest.update(b"m" + struct.pack("<I", len(value)))
        for row in value:
            _update(digest, row)
    else:
        digest.update(b"d" + struct.pack(f"<I{len(value)}f", len(value), *value))
