"""Everything in a Qdrant storage directory that is not shard data: what a server writes around it.

The tree is one peer of a running cluster, because that is what a backup meets: foreign peer
addresses in the raft state, replicas elsewhere, a raft log that the state refers to.
"""

import json
import os
import random
import uuid
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from . import FixtureError, raft_log

SERVER_VERSION = "1.19.0"
PEER_URI = "http://blue-{}.qdrant-headless:6335/"
TERM = 3

# What a server creates for itself and a backup leaves out. Relative to the storage directory.
SCRATCH_FILES = [
    "tmp/upload-8d2f/part-0",
    ".deleted/old_collection.1/0/segments/left.dat",
    "snapshots_temp/documents-1.snapshot",
]
SHARD_SCRATCH_FILE = "temp_segments/6f1c2a0e-building/vector_storage/matrix.dat"
SCRATCH_AT_ROOT = {b"tmp", b".deleted", b"snapshots_temp", b"snapshots_recovery_tmp", b".qdrant_fs_check"}


@dataclass(frozen=True)
class Cluster:
    """Which peers there are and which of them hold which shard; clusters of one seed have the same peers."""

    seed: int
    nodes: int = 3
    sharded: bool = False

    @property
    def peers(self) -> list[int]:
        return peer_ids(self.seed, self.nodes)

    @property
    def shards(self) -> int:
        """How many shards each collection has: one that is everywhere, or as many as there are nodes."""
        return self.nodes if self.sharded else 1

    @property
    def replicas(self) -> int:
        return min(2, self.nodes) if self.sharded else self.nodes

    def holders(self, shard: int) -> list[int]:
        """The peers with a replica of a shard."""
        return [self.peers[(shard + offset) % self.nodes] for offset in range(self.replicas)]


def is_scratch(path: bytes) -> bool:
    """Whether a path, relative to the storage directory, is one that a backup leaves out."""
    parts = path.split(b"/")
    in_shard = len(parts) >= 4 and parts[0] == b"collections" and parts[3] == b"temp_segments"
    return parts[0] in SCRATCH_AT_ROOT or in_shard or any(p.startswith(b".atomicwrite") for p in parts)


def collection_configs(dim: int, cluster: Cluster, indexing_kb: tuple[int, int] = (100, 10)) -> dict[str, dict]:
    """The two collections, as their `config.json`: between them every kind of vector storage.

    `indexing_kb` is above which size of a segment's vectors, in KB, each collection gets graphs.
    """
    seed = cluster.seed
    documents = {
        "text": {"size": dim, "distance": "Cosine", "quantization_config": {
            "scalar": {"type": "int8", "quantile": 0.99, "always_ram": True}}},
        "title": {"size": max(dim // 2, 2), "distance": "Dot", "on_disk": True,
                  "quantization_config": {"binary": {"always_ram": False}}},
    }
    images = {
        "": {"size": max(dim // 2, 2), "distance": "Euclid", "datatype": "float16",
             "quantization_config": {"product": {"compression": "x4"}}},
        "patches": {"size": 16, "distance": "Dot", "multivector_config": {"comparator": "max_sim"}},
    }
    return {
        "documents": _config(documents, {"words": {"index": {"on_disk": True}}}, cluster, indexing_kb[0],
                             _uuid(seed, "documents")),
        "images": _config(images, None, cluster, indexing_kb[1], _uuid(seed, "images")),
    }


def _config(vectors: dict, sparse: dict | None, cluster: Cluster, indexing_kb: int, identity: str) -> dict:
    params = {"vectors": vectors, "shard_number": cluster.shards, "replication_factor": cluster.replicas,
              "write_consistency_factor": 1, "on_disk_payload": True}
    if sparse:
        params["sparse_vectors"] = sparse
    return {
        "params": params,
        # A graph of the server's default density; half its build effort, as nobody looks at recall here.
        "hnsw_config": {"m": 16, "ef_construct": 48, "full_scan_threshold": 10000,
                        "max_indexing_threads": 0, "on_disk": False},
        # Thresholds far below the server's, so that a small fixture has graphs and quantization too.
        "optimizer_config": {"deleted_threshold": 0.2, "vacuum_min_vector_number": 100,
                             "default_segment_number": 2, "max_segment_size": None, "memmap_threshold": None,
                             "indexing_threshold": indexing_kb, "flush_interval_sec": 5,
                             "max_optimization_threads": None, "prevent_unoptimized": None},
        "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0, "wal_retain_closed": 1},
        "quantization_config": None,
        "strict_mode_config": {"enabled": False},
        "uuid": identity,
    }


PAYLOAD_SCHEMA = {
    "documents": {"city": "keyword", "tags": "keyword", "ordinal": "integer", "price": "float",
                  "location": "geo", "body": {"type": "text", "tokenizer": "word", "on_disk": True},
                  "active": "bool", "created": "datetime"},
    "images": {"ordinal": "integer", "owner": "uuid"},
}


def write_node(root: Path, cluster: Cluster, peer: int) -> None:
    """Writes the files of the node itself: raft state, raft log, aliases."""
    peers = cluster.peers
    entries = _raft_entries(peers)
    save_json(root / "raft_state.json", {
        "state": {
            "hard_state": {"term": TERM, "vote": peers[0], "commit": len(entries)},
            "conf_state": {"voters": peers, "learners": [], "voters_outgoing": [], "learners_next": [],
                           "auto_leave": False}},
        "latest_snapshot_meta": {"term": 0, "index": 0},
        "apply_progress_queue": [len(entries) + 1, len(entries)],  # next > last: nothing pending
        "first_voter": peers[0],
        "peer_address_by_id": {str(id): PEER_URI.format(n) for n, id in enumerate(peers)},
        "peer_metadata_by_id": {str(id): {"version": SERVER_VERSION} for id in peers},
        "this_peer_id": peers[peer],
    })
    seed = _random(cluster.seed, "raft", peer).getrandbits(32)
    raft_log.write(root / "collections_meta_wal", entries, seed)
    _write_aliases(root)


def write_standalone(root: Path, cluster: Cluster) -> None:
    """Writes the same for a server with clustering disabled: a raft state that was never used, and no raft log.

    From lib/storage/src/content_manager/consensus/persistent.rs, `init`.
    """
    (peer,) = cluster.peers
    save_json(root / "raft_state.json", {
        "state": {
            "hard_state": {"term": 0, "vote": 0, "commit": 0},
            "conf_state": {"voters": [peer], "learners": [], "voters_outgoing": [], "learners_next": [],
                           "auto_leave": False}},
        "latest_snapshot_meta": {"term": 0, "index": 0},
        "apply_progress_queue": None,
        "first_voter": peer,
        "peer_address_by_id": {},
        "peer_metadata_by_id": {},
        "this_peer_id": peer,
    })
    _write_aliases(root)


def _write_aliases(root: Path) -> None:
    (root / "aliases").mkdir()
    save_json(root / "aliases" / "data.json", {"docs-live": "documents"})


def write_collection(directory: Path, name: str, config: dict, cluster: Cluster, peer: int) -> None:
    """Writes the files of a collection and of its shards; the engine adds `segments` and `wal` to local ones."""
    for shard in range(cluster.shards):
        (directory / str(shard)).mkdir(parents=True)
        _write_replica_set(directory / str(shard), cluster.peers[peer], cluster.holders(shard))
    save_json(directory / "config.json", config)
    (directory / "version.info").write_text("0.4.2")
    # Automatic sharding has no keys. Servers write the old form {} or the new one [], and read both.
    save_json(directory / "shard_key_mapping.json", {} if name == "documents" else [])
    save_json(directory / "payload_index.json", {"schema": PAYLOAD_SCHEMA[name]})


def _write_replica_set(shard: Path, peer: int, holders: list[int]) -> None:
    """Every node has the directory of every shard (lib/collection/src/shards/replica_set/mod.rs, `build`)."""
    save_json(shard / "shard_config.json", {"type": "ReplicaSet"})
    save_json(shard / "replica_state.json", {
        "is_local": peer in holders, "this_peer_id": peer, "peers": {str(id): "Active" for id in holders}})
    if peer in holders:
        write_progress(shard)


def write_progress(shard: Path) -> None:
    """Brings the files that a server rewrites at each flush in line with the shard's data."""
    operation = _last_operation(shard)
    # All writes went through the first holder, so that its clock is the same on every replica.
    peer = int(next(iter(read_json(shard / "replica_state.json")["peers"])))
    clock = {"peer_id": peer, "clock_id": 0, "current_tick": operation + 1,
             "token": _random(peer, "clock").getrandbits(64)}
    save_json(shard / "newest_clocks.json", {"clocks": [clock]})
    save_json(shard / "oldest_clocks.json", {"clocks": []})
    save_json(shard / "applied_seq.json", {"op_num": operation})


def _last_operation(shard: Path) -> int:
    """The number of the last flushed operation: a segment's version is the last one it has seen."""
    versions = [read_json(path).get("version") or 0 for path in shard.glob("segments/*/segment.json")]
    return max(versions, default=0)


def write_scratch(root: Path) -> None:
    """Leaves junk wherever a server keeps what is not worth a backup."""
    files = [root / name for name in SCRATCH_FILES]
    files += [shard / SHARD_SCRATCH_FILE for directory in collection_directories(root).values()
              for shard in local_shards(directory).values()]
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("scratch: must not be in a backup\n")


def has_scratch(root: Path) -> bool:
    return (root / SCRATCH_FILES[0]).exists()


def peer_ids(seed: int, count: int) -> list[int]:
    rng = _random(seed, "peers")
    return [rng.getrandbits(53) for _ in range(count)]  # below 2^53, as new servers draw them


def _raft_entries(peers: list[int]) -> list[bytes]:
    """A cluster's first log: the founder's election, then the other peers join, then versions are told."""
    steps = [(raft_log.CONF_CHANGE_V2, 1, raft_log.conf_change(raft_log.ADD_NODE, peers[0]), PEER_URI.format(0)),
             (raft_log.NORMAL, 1, b"", "")]
    for number, peer in enumerate(peers[1:], start=1):
        for change in (raft_log.ADD_LEARNER, raft_log.ADD_NODE):
            context = PEER_URI.format(number) if change == raft_log.ADD_LEARNER else ""
            steps.append((raft_log.CONF_CHANGE_V2, 1, raft_log.conf_change(change, peer), context))
    steps.append((raft_log.NORMAL, TERM, b"", ""))
    steps += [(raft_log.NORMAL, TERM, raft_log.peer_metadata(peer, SERVER_VERSION), "") for peer in peers]
    return [raft_log.entry(kind, term, index, data, context.encode())
            for index, (kind, term, data, context) in enumerate(steps, start=1)]


def collection_directories(root: Path) -> dict[str, Path]:
    if not (root / "collections").is_dir():
        raise FixtureError(f"{root} is not a Qdrant storage directory: it has no collections/")
    return {path.parent.name: path.parent for path in sorted(root.glob("collections/*/config.json"))}


def local_shards(collection: Path) -> dict[int, Path]:
    """The shards of which this node has the data; of others it has a directory without segments."""
    paths = [path for path in collection.iterdir() if path.name.isdigit() and (path / "segments").is_dir()]
    return {int(path.name): path for path in sorted(paths, key=lambda path: int(path.name))}


def read_json(path: Path):
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise FixtureError(f"{path} is no JSON: {error}") from None


def save_json(path: Path, value) -> None:
    """Saves as the server does, atomically and compactly, so that a live copy sees old or new."""
    temporary = path.with_name(f".atomicwrite-{path.name}")
    temporary.write_text(json.dumps(value, separators=(",", ":")))
    os.replace(temporary, path)


def now() -> str:
    return datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")


def _random(*key) -> random.Random:
    return random.Random("/".join(map(str, key)))


def _uuid(seed: int, name: str) -> str:
    return str(uuid.UUID(int=_random(seed, "collection", name).getrandbits(128), version=4))
