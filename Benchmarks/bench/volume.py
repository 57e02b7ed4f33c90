"""Generates a Qdrant-like storage tree: the same bytes for the same size and seed.

The layout, names and shares follow a real volume; the content is made up, so
Qdrant would not open it. See `docs/benchmarks.md`.
"""

import hashlib
import json
import multiprocessing
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .environment import cpu_count
from .payload import BLOCK, PayloadWriter

GENERATOR = 1                    # raise whenever the bytes change
MIB = 2**20
CHUNK = 32 * MIB
PAGE = 4096
DIMENSION = 256
VECTOR = DIMENSION * 4
ID_TRACKER = 13 + 8              # bytes per point: mapping record and version
CHANGED_SHARE = 8.3 / 3940       # of the volume's size, in scattered pages


@dataclass(frozen=True)
class Segment:
    number: int
    points: int
    large: bool                  # chunked vectors and a graph; else one matrix.dat


class VolumeMaker:
    def __init__(self, root: Path, size: int, seed: int):
        self.root, self.size, self.seed = root, size, seed
        bulk = size / (1 + 0.7 * ID_TRACKER / VECTOR)
        self.points = max(int(0.7 * bulk / VECTOR), 64)
        self.graph_per_point = 0.1 / 0.7 * VECTOR
        self.payload_per_point = 0.2 / 0.7 * VECTOR
        self.segments = self.plan_segments()
        self.payload: PayloadWriter | None = None

    def plan_segments(self) -> list[Segment]:
        per_chunk = CHUNK // VECTOR
        small = min(4, self.points // per_chunk // 16)
        large = 2 if self.points // per_chunk >= 16 else 1
        rest = self.points - small * (per_chunk - 1)
        points = [rest // large + (rest % large if i == 0 else 0) for i in range(large)]
        return ([Segment(i, n, True) for i, n in enumerate(points)]
                + [Segment(large + i, per_chunk - 1, False) for i in range(small)])

    # Deterministic identity and randomness, independent of the order of generation.

    def uuid(self, label: str) -> str:
        digest = hashlib.sha256(f"{self.seed}/{label}".encode()).digest()
        return str(uuid.UUID(bytes=digest[:16], version=4))

    def rng(self, label: str) -> np.random.Generator:
        digest = hashlib.sha256(f"{self.seed}/{label}".encode()).digest()
        return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))

    def directory(self, segment: Segment) -> str:
        return f"collections/bench/0/segments/{self.uuid(f'segment {segment.number}')}"

    def open(self, path: str):
        full = self.root / path
        full.parent.mkdir(parents=True, exist_ok=True)
        return open(full, "wb")

    def write(self, path: str, *parts: bytes, allocate: int = 0) -> None:
        """Writes the parts; `allocate` extends the file by a hole to that size."""
        with self.open(path) as file:
            for part in parts:
                file.write(part)
            if allocate:
                file.truncate(max(allocate, file.tell()))

    def write_json(self, path: str, value) -> None:
        self.write(path, json.dumps(value, separators=(",", ":")).encode())

    # The parts of the volume. Each task writes one file or one group of small files.

    def tasks(self) -> list[tuple]:
        tasks: list[tuple] = [("small_files",)]
        for segment in self.segments:
            tasks += [("payload_page", segment, i) for i in range(self.page_count(segment))]
            if segment.large:
                tasks.append(("graph", segment))
                chunks = -(-segment.points * VECTOR // CHUNK)
                tasks += [("vector_chunk", segment, i) for i in range(chunks)]
            else:
                tasks.append(("matrix", segment))
            tasks.append(("segment_files", segment))
        return tasks

    def vector_chunk(self, segment: Segment, index: int) -> None:
        first = index * (CHUNK // VECTOR)
        count = min(CHUNK // VECTOR, segment.points - first)
        path = f"{self.directory(segment)}/vector_storage/vectors/chunk_{index}.mmap"
        values = self.rng(path).standard_normal(count * DIMENSION, dtype=np.float32)
        self.write(path, values.data, allocate=CHUNK)

    def matrix(self, segment: Segment) -> None:
        path = f"{self.directory(segment)}/vector_storage/matrix.dat"
        values = self.rng(path).standard_normal(segment.points * DIMENSION, dtype=np.float32)
        self.write(path, b"data", values.data)

    def graph(self, segment: Segment) -> None:
        """Level-0 links (32 of them, the nearer half sorted), upper levels, offsets, order of points."""
        base = f"{self.directory(segment)}/vector_index"
        share = self.points / sum(s.points for s in self.segments if s.large)
        total = int(segment.points * self.graph_per_point * share)
        rng, points, links = self.rng(base), segment.points, 32
        upper = max(0, (total - points * (4 + 8 + 4 * links)) // 4)
        header = np.array([points, 6, upper, points * links, 0, 0, 0, 0], dtype="<u8")
        with self.open(f"{base}/links.bin") as file:
            file.write(header.data)
            file.write(rng.permutation(points).astype("<u4").data)
            for first in range(0, points, 1 << 17):
                count = min(1 << 17, points - first)
                part = rng.integers(0, points, (count, links), dtype=np.uint32)
                part[:, :links // 2].sort(axis=1)
                file.write(part.data)
            for first in range(0, upper, 1 << 22):
                file.write(rng.integers(0, points, min(1 << 22, upper - first), dtype=np.uint32).data)
            file.write(np.cumsum(rng.integers(28, links + 1, points, dtype=np.uint64), dtype="<u8").data)
        entry = np.stack([rng.integers(0, points, 10), np.arange(10)]).astype("<u4")
        self.write(f"{base}/graph.bin", entry.tobytes())
        self.write_json(f"{base}/hnsw_config.json", {
            "m": 16, "m0": links, "ef_construct": 100, "ef": 100, "max_indexing_threads": 0,
            "payload_m": None, "payload_m0": None, "indexed_vector_count": points})

    def payload_bytes(self, segment: Segment) -> int:
        return int(segment.points * self.payload_per_point) // BLOCK * BLOCK

    def page_count(self, segment: Segment) -> int:
        return -(-self.payload_bytes(segment) // CHUNK)

    def page_path(self, segment: Segment, index: int) -> str:
        return f"{self.directory(segment)}/payload_storage/page_{index}.dat"

    def writer(self) -> PayloadWriter:
        self.payload = self.payload or PayloadWriter(self.seed)
        return self.payload

    def payload_page(self, segment: Segment, index: int) -> None:
        path = self.page_path(segment, index)
        size = min(CHUNK, self.payload_bytes(segment) - index * CHUNK)
        self.write(path, self.writer().page(self.rng(path), size), allocate=CHUNK)

    def segment_files(self, segment: Segment) -> None:
        base, points, rng = self.directory(segment), segment.points, self.rng(f"ids {segment.number}")
        tracker = "mutable_id_tracker" if segment.large else "id_tracker"
        record = np.dtype([("kind", "u1"), ("external", "<u8"), ("internal", "<u4")])
        mapping = np.zeros(points, dtype=record)
        mapping["kind"], mapping["internal"] = 1, np.arange(points)
        mapping["external"] = rng.permutation(points) + segment.number * 10_000_000
        self.write(f"{base}/{tracker}.mappings", mapping.tobytes())
        versions = np.sort(rng.integers(1, max(points // 500, 2), points, dtype=np.uint64))
        self.write(f"{base}/{tracker}.versions", versions.tobytes())
        blocks = self.payload_bytes(segment) // BLOCK
        self.write(f"{base}/payload_storage/bitmask.dat", b"\xff" * (blocks // 8), allocate=MIB)
        self.write(f"{base}/payload_storage/gaps.dat", bytes(16 * self.page_count(segment)), allocate=PAGE)
        self.write_json(f"{base}/payload_storage/config.json", {
            "page_size_bytes": CHUNK, "block_size_bytes": BLOCK, "region_size_blocks": 8192, "compression": "None"})
        self.write(f"{base}/vector_storage/deleted/flags_a.dat", bytes(points // 8 + 1), allocate=MIB)
        self.write(f"{base}/vector_storage/deleted/status.dat", np.array([points, 0], dtype="<u8").tobytes())
        if segment.large:
            self.write(f"{base}/vector_storage/vectors/status.dat", np.array([points], dtype="<u8").tobytes())
            self.write_json(f"{base}/vector_storage/vectors/config.json", {
                "chunk_size_bytes": CHUNK, "chunk_size_vectors": CHUNK // VECTOR, "dim": DIMENSION})
        self.write_json(f"{base}/payload_index/config.json", {"indexed_fields": {}})
        self.write_json(f"{base}/segment.json", {"version": 64, "initial_version": 1, "config": {
            "vector_data": {"": {"size": DIMENSION, "distance": "Cosine", "storage_type": "ChunkedMmap",
                                 "index": {"type": "hnsw" if segment.large else "plain"}}},
            "payload_storage_type": {"type": "mmap"}}})
        self.write(f"{base}/version.info", b"0.6.0")

    def small_files(self) -> None:
        collection, shard, peer = "collections/bench", "collections/bench/0", 4281473295813
        self.write_json("raft_state.json", {
            "state": {"hard_state": {"term": 4, "vote": peer, "commit": 12},
                      "conf_state": {"voters": [peer], "learners": [], "voters_outgoing": [],
                                     "learners_next": [], "auto_leave": False}},
            "latest_snapshot_meta": {"term": 0, "index": 0}, "apply_progress_queue": None, "first_voter": peer,
            "peer_address_by_id": {str(peer): "http://node-0.example:6335/"},
            "peer_metadata_by_id": {str(peer): {"version": "1.19.0"}}, "this_peer_id": peer})
        self.write_json("aliases/data.json", {"current": "bench"})
        self.write_json(f"{collection}/config.json", {
            "params": {"vectors": {"size": DIMENSION, "distance": "Cosine", "on_disk": True}, "shard_number": 1,
                       "replication_factor": 1, "write_consistency_factor": 1, "on_disk_payload": True},
            "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000},
            "optimizer_config": {"deleted_threshold": 0.2, "flush_interval_sec": 5},
            "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0},
            "quantization_config": None, "uuid": self.uuid("collection")})
        self.write(f"{collection}/version.info", b"0.4.2")
        self.write_json(f"{collection}/payload_index.json", {"schema": {}})
        self.write_json(f"{collection}/shard_transfers", [])
        self.write_json(f"{shard}/shard_config.json", {"type": "ReplicaSet"})
        self.write_json(f"{shard}/replica_state.json", {
            "is_local": True, "this_peer_id": peer, "peers": {str(peer): "Active"}})
        for name in ("newest_clocks.json", "oldest_clocks.json"):
            self.write_json(f"{shard}/{name}", {"clocks": [{"peer_id": peer, "clock_id": 0, "current_tick": 64}]})
        self.write_json(f"{shard}/applied_seq.json", {"op_num": 64})
        for directory, used in (("collections_meta_wal", 6_000), (f"{shard}/wal", 2_400_000)):
            self.wal(f"{directory}/open-1", used)
            self.wal(f"{directory}/open-2", 0)
            self.write_json(f"{directory}/first-index", {"ack_index": 1})

    def wal(self, path: str, used: int) -> None:
        """A preallocated write-ahead log file: a header, some entries, then a hole."""
        used = min(used, self.size // 1000)
        entries = self.rng(path).standard_normal(used // 4, dtype=np.float32).tobytes() if used else b""
        self.write(path, b"wal\0\x11\x22\x33\x44" + entries, allocate=CHUNK)

    # The scattered change: new records in random payload pages.

    def write_change(self, list_path: Path, data_path: Path) -> None:
        pages: list[tuple[str, int]] = []
        for segment in self.segments:
            for index in range(self.page_count(segment)):
                size = min(CHUNK, self.payload_bytes(segment) - index * CHUNK)
                pages += [(self.page_path(segment, index), n * PAGE) for n in range(size // PAGE)]
        rng = self.rng("change")
        count = min(max(round(self.size * CHANGED_SHARE / PAGE), 1), len(pages))
        picked = sorted(rng.choice(len(pages), count, replace=False).tolist())
        new = self.writer().page(rng, (count + 1) * PAGE).ljust(count * PAGE, b"\0")
        data_path.write_bytes(new[:count * PAGE])
        list_path.write_text(json.dumps({"page": PAGE, "writes": [pages[i] for i in picked]}))

    def run(self, task: tuple) -> None:
        getattr(self, task[0])(*task[1:])


_maker: VolumeMaker


def _start_worker(maker: VolumeMaker) -> None:
    global _maker
    _maker = maker


def _run_task(task: tuple) -> None:
    _maker.run(task)


def make_volume(root: Path, size: int, seed: int) -> VolumeMaker:
    """Fills `root`, which must be missing or empty."""
    maker = VolumeMaker(root, size, seed)
    maker.writer()
    root.mkdir(parents=True, exist_ok=True)
    with multiprocessing.get_context("fork").Pool(cpu_count(), _start_worker, (maker,)) as pool:
        for _ in pool.imap_unordered(_run_task, maker.tasks()):
            pass
    for directory, _, _ in os.walk(root):
        os.chmod(directory, 0o755)
    return maker
