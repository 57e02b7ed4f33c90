"""Writes and reads shards through Qdrant's own engine (`qdrant_edge`)."""

import hashlib
import itertools
import json
import random
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import qdrant_edge as edge

from . import FixtureError, layout, points

BATCH = 500
QUERIES = 3
TOP = 10


# --- configuration ------------------------------------------------------------------------------

def edge_config(config: dict) -> edge.EdgeConfig:
    """The engine's configuration from a collection's `config.json`, so that both always agree."""
    params, hnsw, tuning = config["params"], config["hnsw_config"], config["optimizer_config"]
    sparse = params.get("sparse_vectors") or {}
    return edge.EdgeConfig(
        vectors={name: _vector_params(spec) for name, spec in points.named_vectors(params).items()} or None,
        sparse_vectors={name: _sparse_params(spec) for name, spec in sparse.items()} or None,
        payload_memory=edge.Memory.Cold if params.get("on_disk_payload") else edge.Memory.Cached,
        hnsw_config=edge.HnswIndexConfig(hnsw["m"], hnsw["ef_construct"], hnsw["full_scan_threshold"],
                                         hnsw.get("max_indexing_threads") or 0),
        quantization_config=_quantization(config.get("quantization_config")),
        optimizers=edge.EdgeOptimizersConfig(
            deleted_threshold=tuning["deleted_threshold"],
            vacuum_min_vector_number=tuning["vacuum_min_vector_number"],
            default_segment_number=tuning["default_segment_number"],
            indexing_threshold=tuning["indexing_threshold"]))


def _vector_params(spec: dict) -> edge.EdgeVectorParams:
    datatypes = {"float32": edge.VectorStorageDatatype.Float32, "float16": edge.VectorStorageDatatype.Float16,
                 "uint8": edge.VectorStorageDatatype.Uint8}
    multi = edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim) if spec.get("multivector_config") else None
    return edge.EdgeVectorParams(
        spec["size"], getattr(edge.Distance, spec["distance"]),
        memory=edge.Memory.Cold if spec.get("on_disk") else edge.Memory.Cached,
        multivector_config=multi,
        datatype=datatypes.get(spec.get("datatype")),
        quantization_config=_quantization(spec.get("quantization_config")))


def _sparse_params(spec: dict) -> edge.EdgeSparseVectorParams:
    on_disk = (spec.get("index") or {}).get("on_disk")
    return edge.EdgeSparseVectorParams(memory=edge.Memory.Cold if on_disk else edge.Memory.Pinned)


def _quantization(config: dict | None):
    if not config:
        return None
    ((kind, options),) = config.items()
    if kind == "scalar":
        return edge.ScalarQuantizationConfig(edge.ScalarType.Int8, options.get("quantile"), options.get("always_ram"))
    if kind == "product":
        ratio = getattr(edge.CompressionRatio, options["compression"].upper())
        return edge.ProductQuantizationConfig(ratio, options.get("always_ram"))
    if kind == "binary":
        return edge.BinaryQuantizationConfig(options.get("always_ram"))
    raise FixtureError(f"config.json names the quantization {kind!r}, which this script does not know")


def _schema(schema):
    """A field's index type; the engine takes its parameter classes where the file has an object."""
    if isinstance(schema, str):
        return getattr(edge.PayloadSchemaType, schema.capitalize())
    if schema["type"] == "text":
        return edge.TextIndexParams(tokenizer=edge.TokenizerType.Word, on_disk=schema.get("on_disk"))
    return getattr(edge.PayloadSchemaType, schema["type"].capitalize())


# --- a collection as this script changes it -------------------------------------------------------

class Collection:
    """One collection of a volume, its local shards open in the engine.

    Points are spread over shards by a checksum of their id. A server asks a hash ring instead
    (lib/collection/src/hash_ring.rs); which point lies in which shard matters to nothing that is tested.
    """

    def __init__(self, name: str, directory: Path, seed: int, shards: dict[int, edge.EdgeShard]):
        self.name, self.seed, self.directory = name, seed, directory
        self.params = layout.read_json(directory / "config.json")["params"]
        self.shards = shards
        self._remove_edge_config()

    @classmethod
    def create(cls, name: str, directory: Path, seed: int) -> "Collection":
        config = layout.read_json(directory / "config.json")
        local = [path for path in sorted(directory.glob("[0-9]*"))
                 if layout.read_json(path / "replica_state.json")["is_local"]]
        made = cls(name, directory, seed,
                   {int(path.name): edge.EdgeShard.create(str(path), edge_config(config)) for path in local})
        for field, schema in layout.read_json(directory / "payload_index.json")["schema"].items():
            for shard in made.shards.values():
                shard.update(edge.UpdateOperation.create_field_index(field, _schema(schema)))
        return made

    @classmethod
    def load(cls, name: str, directory: Path, seed: int) -> "Collection":
        config = layout.read_json(directory / "config.json")
        paths = layout.local_shards(directory)
        return cls(name, directory, seed,
                   {id: edge.EdgeShard.load(str(path), edge_config(config)) for id, path in paths.items()})

    def count(self) -> int:
        return sum(shard.count(edge.CountRequest(exact=True)) for shard in self.shards.values())

    def inventory(self) -> dict[int, int]:
        """The revision of every point by ordinal."""
        found = {}
        for id in self.shards:
            found |= self.shard_inventory(id)
        return found

    def shard_inventory(self, id: int) -> dict[int, int]:
        records = scroll(self.shards[id], with_payload=["ordinal", "revision"])
        return {record.payload["ordinal"]: record.payload["revision"] for record in records}

    def unused(self, count: int) -> list[int]:
        """Ordinals for new points; replicas of a shard get the same ones, whatever other shards are beside them."""
        shards, found = self.params["shard_number"], []
        for id in self.shards:
            following = itertools.count(max(self.shard_inventory(id), default=0) + 1)
            own = (ordinal for ordinal in following if points.shard_of(ordinal, shards) == id)
            found += itertools.islice(own, count // shards)
        return found

    def upsert(self, items: list[tuple[int, int]]) -> None:
        """Writes points given as (ordinal, revision)."""
        for shard, batch in self._batches(items, lambda item: item[0]):
            made = [points.make(self.seed, self.name, self.params, *item) for item in batch]
            shard.update(edge.UpdateOperation.upsert_points(made))

    def replace_vectors(self, items: list[tuple[int, int]]) -> None:
        """Gives points the vectors of a revision and leaves their payload alone."""
        for shard, batch in self._batches(items, lambda item: item[0]):
            made = [points.make(self.seed, self.name, self.params, *item) for item in batch]
            replaced = [edge.PointVectors(point.id, point.vector) for point in made]
            shard.update(edge.UpdateOperation.update_vectors(replaced))

    def set_payload(self, ordinals: list[int], fields: dict) -> None:
        for shard, batch in self._batches(ordinals):
            ids = [points.point_id(ordinal) for ordinal in batch]
            shard.update(edge.UpdateOperation.set_payload(ids, fields))

    def delete(self, ordinals: list[int]) -> None:
        for shard, batch in self._batches(ordinals):
            ids = [points.point_id(ordinal) for ordinal in batch]
            shard.update(edge.UpdateOperation.delete_points(ids))

    def _batches(self, items: list, ordinal=lambda item: item):
        """(shard, items of it), batch by batch; what belongs to shards of other nodes is left to them."""
        count = self.params["shard_number"]
        for start in range(0, len(items), BATCH):
            batch = items[start:start + BATCH]
            for id, shard in self.shards.items():
                own = [item for item in batch if points.shard_of(ordinal(item), count) == id]
                if own:
                    yield shard, own

    def optimize(self) -> bool:
        return any([shard.optimize() for shard in self.shards.values()])

    def flush(self) -> None:
        for id, shard in self.shards.items():
            shard.flush()
            layout.write_progress(self.directory / str(id))

    def close(self) -> None:
        for id, shard in self.shards.items():
            shard.close()
            layout.write_progress(self.directory / str(id))
        self._remove_edge_config()

    def _remove_edge_config(self) -> None:
        """The engine alone keeps its configuration beside a shard's data. A server's shard has no such file,
        and without it the tree holds exactly what a server writes; the next open gets the same from config.json.
        """
        for id in self.shards:
            (self.directory / str(id) / "edge_config.json").unlink(missing_ok=True)


@contextmanager
def open_collections(root: Path, seed: int):
    """Opens all collections of a volume for change and leaves the tree as a stopped server does."""
    collections = []
    try:
        for name, directory in layout.collection_directories(root).items():
            collections.append(Collection.load(name, directory, seed))
        yield collections
    finally:
        for collection in collections:
            collection.close()
        if layout.has_scratch(root):  # the engine clears temp_segments/ when it opens a shard
            layout.write_scratch(root)


def summary(collections: list[Collection]) -> dict:
    return {"points": {collection.name: collection.count() for collection in collections}}


def shares(total: int, collections: list[Collection]):
    """Splits a number of points: the first collection is the large one, the others get a tenth."""
    small = total // 10
    large = total - small * (len(collections) - 1)
    return [(collection, small if number else large) for number, collection in enumerate(collections)]


# --- verbs ------------------------------------------------------------------------------------------

def create(root: Path, count: int, configs: dict[str, dict], cluster: layout.Cluster, peer: int) -> dict:
    """Fills the collections that `configs` describes, as one node of the cluster has them."""
    collections = []
    for name, config in configs.items():
        directory = root / "collections" / name
        layout.write_collection(directory, name, config, cluster, peer)
        collections.append(Collection.create(name, directory, cluster.seed))
    for collection, share in zip(collections, (count, max(count // 10, 50))):
        _fill(collection, share)
    result = summary(collections)
    for collection in collections:
        collection.close()
    return result


def _fill(collection: Collection, count: int) -> None:
    """Leaves `count` points: most in an optimized segment, some in the growing one, some deleted."""
    deleted = count // 50
    bulk = count + deleted - count // 20
    collection.upsert([(ordinal, 1) for ordinal in range(1, bulk + 1)])
    collection.flush()
    collection.optimize()
    collection.upsert([(ordinal, 1) for ordinal in range(bulk + 1, count + deleted + 1)])
    collection.delete(random.Random(collection.seed).sample(range(1, bulk + 1), deleted))
    collection.flush()


def grow(root: Path, count: int, seed: int) -> dict:
    with open_collections(root, seed) as collections:
        for collection, share in shares(count, collections):
            collection.upsert([(ordinal, 1) for ordinal in collection.unused(share)])
        return summary(collections)


def overwrite(root: Path, count: int, seed: int) -> dict:
    """Changes existing points: half wholly, a quarter their vectors only, a quarter their payload only."""
    with open_collections(root, seed) as collections:
        for collection, share in shares(count, collections):
            items = [(ordinal, own + 1) for ordinal, own in choose(collection, share, "overwrite")]
            half, quarter = len(items) // 2, len(items) // 4
            collection.upsert(items[:half])
            collection.replace_vectors(items[half:half + quarter])
            for revision in sorted({revision for _, revision in items}):
                raised = [ordinal for ordinal, own in items[half:] if own == revision]
                note = points.sentence(random.Random(f"{seed}/{revision}"), 12)
                collection.set_payload(raised, {"revision": revision, "note": note})
        return summary(collections)


def delete(root: Path, count: int, seed: int) -> dict:
    with open_collections(root, seed) as collections:
        for collection, share in shares(count, collections):
            collection.delete([ordinal for ordinal, _ in choose(collection, share, "delete")])
        return summary(collections)


def optimize(root: Path) -> dict:
    with open_collections(root, seed=0) as collections:
        changed = {collection.name: collection.optimize() for collection in collections}
        return summary(collections) | {"optimized": changed}


def choose(collection: Collection, count: int, purpose: str) -> list[tuple[int, int]]:
    """Picks (ordinal, revision) the same way for the same seed and content of a shard, so that the same verb
    changes all replicas alike, whatever order the engine lists points in and whatever other shards are here.
    """
    chosen = []
    for id in collection.shards:
        inventory = collection.shard_inventory(id)
        rng = random.Random(f"{collection.seed}/{purpose}/{collection.name}/{sum(inventory.values())}")
        share = min(count // collection.params["shard_number"], len(inventory))
        chosen += rng.sample(sorted(inventory.items()), share)
    return chosen


# --- fingerprint --------------------------------------------------------------------------------------

def fingerprint(root: Path, scratch: Path | None) -> dict:
    """What the engine finds in the volume: independent of segments, files and the order of points."""
    layout.collection_directories(root)  # fails before anything is copied
    with tempfile.TemporaryDirectory(prefix="bgbackup-fingerprint-", dir=scratch) as temporary:
        # An open writes (WAL replay, optimizer clean-up), so the engine only ever sees this copy.
        subprocess.run(["cp", "-a", "--sparse=always", "--reflink=auto", str(root / "collections"), temporary],
                       check=True)
        directories = layout.collection_directories(Path(temporary))
        found = {name: _collection_fingerprint(name, path) for name, path in directories.items()}
    return {"fingerprint": _digest_json(found), "collections": found}


def _collection_fingerprint(name: str, directory: Path) -> dict:
    config = layout.read_json(directory / "config.json")
    paths = layout.local_shards(directory).values()
    shards = [edge.EdgeShard.load(str(path), edge_config(config)) for path in paths]
    try:
        records = sorted((str(record.id), points.payload_digest(record), points.vector_digest(record))
                         for shard in shards for record in scroll(shard, with_payload=True, with_vector=True))
        return {
            "points": sum(shard.count(edge.CountRequest(exact=True)) for shard in shards),
            "payload_sha256": _digest_pairs((id, payload) for id, payload, _ in records),
            "vectors_sha256": _digest_pairs((id, vector) for id, _, vector in records),
            "payload_indexes": sorted(set().union(*(shard.info().payload_schema for shard in shards))),
            "queries": _run_queries(name, config["params"], shards),
        }
    finally:
        for shard in shards:
            shard.close()


def _run_queries(name: str, params: dict, shards: list) -> list[dict]:
    """The exact nearest points of fixed vectors, for every vector name and shard of the collection."""
    results = []
    for number in range(QUERIES):
        vectors = points.vectors(random.Random(f"query/{name}/{number}"), params)
        for vector_name in sorted(vectors):
            for shard_number, shard in enumerate(shards):
                top = _nearest(shard, vectors[vector_name], vector_name)
                results.append({"vector": vector_name, "shard": shard_number, "top": top})
    return results


def _nearest(shard, vector, vector_name: str) -> list[list]:
    """(id, rounded score), best first; equal scores in the order of ids, which no segment decides."""
    exact = edge.SearchParams(exact=True, quantization=edge.QuantizationSearchParams(ignore=True))
    request = edge.QueryRequest(limit=TOP, query=edge.Query.Nearest(vector, vector_name), params=exact)
    hits = [[str(hit.id), round(hit.score, 4)] for hit in shard.query(request)]
    sign = -1 if hits and hits[0][1] > hits[-1][1] else 1  # similarities fall, distances rise
    return sorted(hits, key=lambda hit: (sign * hit[1], hit[0]))


def scroll(shard, with_payload, with_vector=False):
    """All records of a shard, page by page, so that a large one does not have to fit in memory."""
    offset = None
    while True:
        request = edge.ScrollRequest(offset=offset, limit=BATCH, with_payload=with_payload, with_vector=with_vector)
        records, offset = shard.scroll(request)
        yield from records
        if offset is None:
            return


def _digest_pairs(pairs) -> str:
    digest = hashlib.sha256()
    for id, value in pairs:
        digest.update(id.encode() + b"\0" + value)
    return digest.hexdigest()


def _digest_json(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
