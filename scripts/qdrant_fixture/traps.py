"""Breaks a volume in exactly one way each, so that inspection and the plan of a seed have something to find.

What stays is valid: logs keep their checksums, JSON its form. `TRAPS` lists them all.
"""

import shutil
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Callable

from . import FixtureError, layout, raft_log

DAMAGED = "documents"  # the collection that is damaged; `images` goes missing, as no alias needs it


@dataclass(frozen=True)
class Trap:
    """One way to break a volume. `touches` are patterns of the paths that change, `*` crossing slashes."""

    name: str
    purpose: str
    touches: tuple[str, ...]
    spring: Callable[[Path], None]
    needs_engine: bool = False

    def covers(self, path: str) -> bool:
        return any(fnmatch(path, pattern) for pattern in self.touches)


TRAPS: dict[str, Trap] = {}


def trap(name: str, purpose: str, *touches: str, needs_engine: bool = False):
    def register(spring):
        TRAPS[name] = Trap(name, purpose, touches, spring, needs_engine)
        return spring
    return register


def spring(name: str, root: Path) -> None:
    """Breaks the volume at `root`; throws FixtureError where it has nothing to break in that way."""
    layout.collection_directories(root)  # fails where it is no storage directory
    TRAPS[name].spring(root)


# --- where things are ---------------------------------------------------------------------------------

def _shard(root: Path) -> Path:
    """The first local shard of the collection that is damaged."""
    if paths := layout.local_shards(root / "collections" / DAMAGED):
        return paths[min(paths)]
    raise FixtureError(f"{root} has no local shard of {DAMAGED}")


def _log(root: Path) -> Path:
    return _shard(root) / "wal" / "open-1"


def _segment(root: Path) -> Path:
    """A segment that the optimizer wrote, else the one that grows."""
    segments = [path for path in (_shard(root) / "segments").iterdir() if (path / "segment.json").exists()]
    if not segments:
        raise FixtureError(f"{_shard(root)} has no segment")
    return max(segments, key=lambda path: ((path / "vector_index-text/graph.bin").exists(), path.name))


def _vectors(root: Path) -> Path:
    """A file with the vectors of a segment: written once by the optimizer, or growing."""
    storage = _segment(root) / "vector_storage-text"
    for path in (storage / "matrix.dat", storage / "vectors/chunk_0.mmap"):
        if path.exists():
            return path
    raise FixtureError(f"{storage} has no file of vectors that is known here")


def _edit(path: Path, change: Callable[[dict], None]) -> None:
    value = layout.read_json(path)
    change(value)
    layout.save_json(path, value)


def _edit_raft(root: Path, change: Callable[[dict], None]) -> None:
    if not (root / "raft_state.json").exists():
        raise FixtureError(f"{root} has no raft_state.json")
    _edit(root / "raft_state.json", change)


def _other_peer(root: Path) -> int:
    state = layout.read_json(root / "raft_state.json")
    others = [int(id) for id in state["peer_address_by_id"] if int(id) != state["this_peer_id"]]
    return others[0] if others else state["this_peer_id"] + 1


# --- the log of a shard -----------------------------------------------------------------------------

WAL = f"collections/{DAMAGED}/*/wal"


@trap("wal-older", "the shard's log ends before the operations that its segments have seen",
      WAL + "/open-1", WAL + "/first-index")
def wal_older(root: Path) -> None:
    _, entries = raft_log.read(_log(root))
    kept = entries[:max(len(entries) // 2, 1)]
    raft_log.rewrite(_log(root), kept)
    layout.save_json(_log(root).with_name("first-index"), {"ack_index": len(kept) - 1})


@trap("wal-reset", "the shard's log is empty and starts again at 0, as after deleting it", WAL + "/*")
def wal_reset(root: Path) -> None:
    raft_log.rewrite(_log(root), [])
    layout.save_json(_log(root).with_name("first-index"), {"ack_index": 0})


@trap("wal-missing", "the shard has no wal directory", WAL, WAL + "/*")
def wal_missing(root: Path) -> None:
    shutil.rmtree(_log(root).parent)


@trap("wal-torn", "a checksum fails in the middle of the shard's log, records follow", WAL + "/open-1")
def wal_torn(root: Path) -> None:
    _, entries = raft_log.read(_log(root))
    if len(entries) < 3:
        raise FixtureError(f"{_log(root)} has {len(entries)} records: none lies in the middle")
    _flip(_log(root), raft_log.position(_log(root), len(entries) // 2))


@trap("first-index-empty", "the shard's wal/first-index has no bytes", WAL + "/first-index")
def first_index_empty(root: Path) -> None:
    _cut(_log(root).with_name("first-index"), 0)


def _flip(path: Path, position: int) -> None:
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)
        file.seek(position)
        file.write(bytes([byte[0] ^ 0xFF]))


def _cut(path: Path, size: int) -> None:
    with open(path, "r+b") as file:
        file.truncate(size)


def _tear(path: Path) -> None:
    """Cuts a file in the middle of its data; most of a preallocated one is a hole."""
    _cut(path, len(path.read_bytes().rstrip(b"\0")) // 2)


# --- segments ---------------------------------------------------------------------------------------

SEGMENT = f"collections/{DAMAGED}/*/segments/*"


@trap("no-version-info", "a segment has no version.info: a server deletes it at start", SEGMENT + "/version.info")
def no_version_info(root: Path) -> None:
    (_segment(root) / "version.info").unlink()


@trap("missing-segment-file", "the file with a segment's vectors is not there", SEGMENT + "/vector_storage-text/*")
def missing_segment_file(root: Path) -> None:
    _vectors(root).unlink()


@trap("torn-segment-file", "the file with a segment's vectors ends in the middle of them", SEGMENT + "/vector_storage-text/*")
def torn_segment_file(root: Path) -> None:
    _tear(_vectors(root))


@trap("torn-payload-page", "a page of a segment's payload ends in the middle of its data", SEGMENT + "/payload_storage/page_0.dat")
def torn_payload_page(root: Path) -> None:
    _tear(_segment(root) / "payload_storage/page_0.dat")


@trap("segment-json-bad", "a segment.json is cut in the middle", SEGMENT + "/segment.json")
def segment_json_bad(root: Path) -> None:
    file = _segment(root) / "segment.json"
    _cut(file, file.stat().st_size // 2)


@trap("segment-json-missing", "a segment has no segment.json", SEGMENT + "/segment.json")
def segment_json_missing(root: Path) -> None:
    (_segment(root) / "segment.json").unlink()


@trap("rocksdb", "a segment has files of RocksDB, which 1.18 and later cannot read", SEGMENT)
def rocksdb(root: Path) -> None:
    for name, content in (("CURRENT", "MANIFEST-000005\n"), ("MANIFEST-000005", ""), ("000010.sst", "")):
        (_segment(root) / name).write_text(content)


# --- replicas and collections -------------------------------------------------------------------------

COLLECTION = f"collections/{DAMAGED}"


@trap("initializing", "a shard has the marker of a creation that did not end", COLLECTION, COLLECTION + "/*")
def initializing(root: Path) -> None:
    # lib/collection/src/shards/mod.rs, `shard_initializing_flag_path`
    shard = _shard(root)
    shard.with_name(f"shard_{shard.name}.initializing").touch()


def _set_replica(root: Path, peer: int, state: str) -> None:
    _edit(_shard(root) / "replica_state.json", lambda value: value["peers"].update({str(peer): state}))


def _own_replica(state: str):
    def set_own(root: Path) -> None:
        _set_replica(root, layout.read_json(_shard(root) / "replica_state.json")["this_peer_id"], state)
    return set_own


REPLICA_STATE = COLLECTION + "/*/replica_state.json"
trap("replica-dead", "the node's own replica of a shard is Dead", REPLICA_STATE)(_own_replica("Dead"))
trap("replica-partial", "the node's own replica of a shard is Partial", REPLICA_STATE)(_own_replica("Partial"))
trap("replica-listener", "the node's own replica of a shard is a Listener", REPLICA_STATE)(_own_replica("Listener"))


@trap("remote-replica-dead", "a replica on another node is Dead", REPLICA_STATE)
def remote_replica_dead(root: Path) -> None:
    state = layout.read_json(_shard(root) / "replica_state.json")
    others = [int(id) for id in state["peers"] if int(id) != state["this_peer_id"]]
    if not others:
        raise FixtureError(f"{_shard(root)} has no replica on another node")
    _set_replica(root, others[0], "Dead")


@trap("open-transfer", "a shard is being transferred", COLLECTION, COLLECTION + "/shard_transfers")
def open_transfer(root: Path) -> None:
    # lib/collection/src/shards/transfer/mod.rs, `ShardTransfer`, a set of them
    state = layout.read_json(root / "raft_state.json")
    layout.save_json(root / COLLECTION / "shard_transfers", [
        {"shard_id": int(_shard(root).name), "from": state["this_peer_id"], "to": _other_peer(root),
         "sync": True, "method": "stream_records"}])


@trap("resharding", "the collection is being resharded", COLLECTION, COLLECTION + "/resharding_state.json")
def resharding(root: Path) -> None:
    # lib/collection/src/shards/resharding/mod.rs, `ReshardState`
    shards = layout.read_json(root / COLLECTION / "config.json")["params"]["shard_number"]
    layout.save_json(root / COLLECTION / "resharding_state.json", {
        "uuid": "5a4f6f0e-8c1d-4a56-9d0b-3f2f6f1f7c11", "peer_id": _other_peer(root), "shard_id": shards,
        "shard_key": None, "direction": "up", "stage": "migrating_points"})


@trap("uuid-differs", "the collection has another UUID than on the other nodes", COLLECTION + "/config.json")
def uuid_differs(root: Path) -> None:
    _edit(root / COLLECTION / "config.json",
          lambda config: config.update(uuid="00000000-0000-4000-8000-000000000001"))


@trap("config-differs", "the collection has another configuration", COLLECTION + "/config.json")
def config_differs(root: Path) -> None:
    _edit(root / COLLECTION / "config.json", lambda config: config["hnsw_config"].update(m=32))


@trap("collection-config-bad", "the collection's config.json is cut in the middle", COLLECTION + "/config.json")
def collection_config_bad(root: Path) -> None:
    file = root / COLLECTION / "config.json"
    _cut(file, file.stat().st_size // 2)


@trap("collection-missing", "a collection is not on this node", "collections", "collections/images*")
def collection_missing(root: Path) -> None:
    shutil.rmtree(root / "collections/images")


@trap("shard-missing", "the directory of a shard is not there", COLLECTION, COLLECTION + "/*")
def shard_missing(root: Path) -> None:
    shutil.rmtree(_shard(root))


@trap("aliases-differ", "the node knows another alias than the other nodes", "aliases/data.json")
def aliases_differ(root: Path) -> None:
    _edit(root / "aliases/data.json", lambda aliases: aliases.update({"docs-next": DAMAGED}))


@trap("skewed", "the replica lacks points that others have, and its write clocks do not tell",
      COLLECTION + "/*", needs_engine=True)
def skewed(root: Path) -> None:
    _through_engine(root, lambda collection: collection.delete(
        sorted(collection.shard_inventory(int(_shard(root).name)))[:10]), keep_clocks=True)


@trap("ahead", "the replica has points and write clocks that others do not have yet",
      COLLECTION + "/*", needs_engine=True)
def ahead(root: Path) -> None:
    def add(collection) -> None:
        count = 10 * collection.params["shard_number"]
        collection.upsert([(ordinal, 1) for ordinal in collection.unused(count)])
    _through_engine(root, add, keep_clocks=False)


def _through_engine(root: Path, change: Callable, keep_clocks: bool) -> None:
    from . import engine
    clocks = {path: path.read_bytes() for path in (root / COLLECTION).glob("*/newest_clocks.json")}
    collection = engine.Collection.load(DAMAGED, root / COLLECTION, seed=1)
    try:
        change(collection)
    finally:
        collection.close()
    for path, content in clocks.items():
        if keep_clocks:
            path.write_bytes(content)
    if layout.has_scratch(root):  # the engine clears temp_segments/ when it opens a shard
        layout.write_scratch(root)


# --- raft ---------------------------------------------------------------------------------------------

RAFT = "raft_state.json"


@trap("commit-beyond-log", "raft has committed more than its log holds: the start panics", RAFT)
def commit_beyond_log(root: Path) -> None:
    def raise_commit(state: dict) -> None:
        state["state"]["hard_state"]["commit"] += 5
    _edit_raft(root, raise_commit)


@trap("raft-missing", "there is no raft_state.json", RAFT)
def raft_missing(root: Path) -> None:
    (root / RAFT).unlink()


@trap("raft-bad", "raft_state.json is cut in the middle", RAFT)
def raft_bad(root: Path) -> None:
    _cut(root / RAFT, (root / RAFT).stat().st_size // 2)


@trap("meta-wal-missing", "there is no raft log", "collections_meta_wal*")
def meta_wal_missing(root: Path) -> None:
    shutil.rmtree(root / "collections_meta_wal")


@trap("meta-wal-torn", "a checksum fails in the middle of the raft log", "collections_meta_wal/open-1")
def meta_wal_torn(root: Path) -> None:
    log = root / "collections_meta_wal/open-1"
    _flip(log, raft_log.position(log, len(raft_log.read(log)[1]) // 2))


@trap("joint-consensus", "a change of membership is half done", RAFT)
def joint_consensus(root: Path) -> None:
    def halve(state: dict) -> None:
        membership = state["state"]["conf_state"]
        membership.update(voters_outgoing=membership["voters"], voters=[*membership["voters"], _other_peer(root) + 1],
                          auto_leave=True)
    _edit_raft(root, halve)


@trap("pending-entries", "committed raft entries are not applied yet", RAFT)
def pending_entries(root: Path) -> None:
    def leave_two(state: dict) -> None:
        commit = state["state"]["hard_state"]["commit"]
        state["apply_progress_queue"] = [commit - 1, commit]
    _edit_raft(root, leave_two)


@trap("learner", "the node is a learner and no voter", RAFT)
def learner(root: Path) -> None:
    def demote(state: dict) -> None:
        membership, own = state["state"]["conf_state"], state["this_peer_id"]
        membership.update(voters=[id for id in membership["voters"] if id != own], learners=[own])
    _edit_raft(root, demote)


@trap("stale-first-voter", "the first voter is a peer that left the cluster", RAFT)
def stale_first_voter(root: Path) -> None:
    _edit_raft(root, lambda state: state.update(first_voter=4503599627370497))


@trap("versions-differ", "the node ran another version than the others", RAFT)
def versions_differ(root: Path) -> None:
    _edit_raft(root, lambda state: state["peer_metadata_by_id"].update(
        {str(state["this_peer_id"]): {"version": "1.18.3"}}))


@trap("changed-uri", "the node is stored with another address than the others know", RAFT)
def changed_uri(root: Path) -> None:
    _edit_raft(root, lambda state: state["peer_address_by_id"].update(
        {str(state["this_peer_id"]): "http://renamed.qdrant-headless:6335/"}))


@trap("term-ahead", "the node has stood for election in a term that the others do not know", RAFT)
def term_ahead(root: Path) -> None:
    def stand(state: dict) -> None:
        hard_state = state["state"]["hard_state"]
        hard_state.update(term=hard_state["term"] + 1, vote=state["this_peer_id"])
    _edit_raft(root, stand)


@trap("commit-behind", "the node has not committed yet what the others have", RAFT)
def commit_behind(root: Path) -> None:
    def lower(state: dict) -> None:
        hard_state = state["state"]["hard_state"]
        hard_state["commit"] -= 2
        state["apply_progress_queue"] = [hard_state["commit"] + 1, hard_state["commit"]]
    _edit_raft(root, lower)
