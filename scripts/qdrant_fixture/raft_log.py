"""Writes and changes logs in the format of Qdrant's `wal` crate: raft's in `collections_meta_wal/`, a shard's
in `wal/`.

A segment is the header `"wal" 00 seed` and entries `u64 length | data | padding | u32 crc`, all
little endian, in a file preallocated to its full capacity. Each CRC starts from the one before it,
so that the log ends where the chain breaks.
"""

import struct
from pathlib import Path

CAPACITY = 32 * 1024 * 1024
NORMAL, CONF_CHANGE_V2 = 0, 2
ADD_NODE, ADD_LEARNER = 0, 2


def write(directory: Path, entries: list[bytes], seed: int) -> None:
    """Lays out a log as a running server leaves it: one open segment in use, one spare."""
    directory.mkdir()
    for name, content in (("open-1", entries), ("open-2", [])):
        with open(directory / name, "wb") as file:
            file.write(_segment(seed, content))
            file.truncate(CAPACITY)
        seed = (seed * 2654435761 + 1) & 0xFFFFFFFF


def read(segment: Path) -> tuple[int, list[bytes]]:
    """The seed and the entries of a segment; it ends where the chain of checksums breaks."""
    content = segment.read_bytes()
    crc, = (seed,) = struct.unpack_from("<I", content, 4)
    entries, start = [], 8
    while start + 12 <= len(content):
        length, = struct.unpack_from("<Q", content, start)
        end = start + 8 + length + ((4 - length) & 7)
        if end + 4 > len(content):
            break
        crc = chained_crc(crc, content[start:end])
        if crc != struct.unpack_from("<I", content, end)[0]:
            break
        entries.append(content[start + 8:start + 8 + length])
        start = end + 4
    return seed, entries


def rewrite(segment: Path, entries: list[bytes]) -> None:
    """Replaces the entries of a segment; its length and seed stay."""
    size = segment.stat().st_size
    seed, = struct.unpack_from("<I", segment.read_bytes(), 4)
    with open(segment, "r+b") as file:
        file.truncate(0)
        file.write(_segment(seed, entries))
        file.truncate(size)


def position(segment: Path, number: int) -> int:
    """Where the data of an entry starts in its segment."""
    _, entries = read(segment)
    return 8 + sum(12 + len(data) + ((4 - len(data)) & 7) for data in entries[:number]) + 8


def _segment(seed: int, entries: list[bytes]) -> bytes:
    out = bytearray(b"wal\0" + struct.pack("<I", seed))
    crc = seed
    for data in entries:
        record = struct.pack("<Q", len(data)) + data
        record += bytes((4 - len(data)) & 7)
        crc = chained_crc(crc, record)
        out += record + struct.pack("<I", crc)
    return bytes(out)


def entry(kind: int, term: int, index: int, data: bytes = b"", context: bytes = b"") -> bytes:
    """One raft log entry (protobuf `eraftpb.Entry`)."""
    return (_varint_field(1, kind) + _varint_field(2, term) + _varint_field(3, index)
            + _bytes_field(4, data) + _bytes_field(6, context))


def conf_change(change: int, peer: int) -> bytes:
    """A membership change of one peer (protobuf `eraftpb.ConfChangeV2`)."""
    return _bytes_field(2, _varint_field(1, change) + _varint_field(2, peer))


def peer_metadata(peer: int, version: str) -> bytes:
    """The CBOR of Qdrant's consensus operation that records a peer's version."""
    metadata = b"\xa1" + _cbor_text("version") + _cbor_text(version)
    fields = b"\xa2" + _cbor_text("peer_id") + b"\x1b" + struct.pack(">Q", peer)
    return b"\xa1" + _cbor_text("UpdatePeerMetadata") + fields + _cbor_text("metadata") + metadata


def _cbor_text(text: str) -> bytes:
    raw = text.encode()
    return (bytes([0x60 | len(raw)]) if len(raw) < 24 else bytes([0x78, len(raw)])) + raw


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varint_field(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value) if value else b""  # proto3 omits defaults


def _bytes_field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value if value else b""


def chained_crc(previous: int, data: bytes) -> int:
    """CRC-32C of `data`, its register loaded with the bit-reversed previous value."""
    register = int(f"{previous:032b}"[::-1], 2)
    for byte in data:
        register = register >> 8 ^ _TABLE[(register ^ byte) & 0xFF]
    return register ^ 0xFFFFFFFF


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _table()
