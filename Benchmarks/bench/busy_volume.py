"""A volume of many files for a writer to write to, laid out as Qdrant's are.

The shares are those of make-volume: seven tenths vectors, one tenth graph, two tenths payload pages. The
content is random, because nothing here depends on it."""

import random
import uuid
from pathlib import Path

FILES = 10_000
SEGMENTS = 8
FILE, DATA = 32 << 20, 24 << 20              # of payload pages and vector chunks: size, and how much is no hole
PIECE = 1 << 20
SMALL = (64, 32 << 10)                       # bytes of a small file, evenly spread over the powers of two
SMALL_NAMES = ("bitmask.dat", "config.json", "gaps.dat", "page_0.dat", "tracker.dat")


class BusyVolume:
    """Fills `root` when made; `collection` is what a writer takes."""

    def __init__(self, root: Path, size: int, seed: int):
        self.rng, self.files, self.payload = random.Random(seed), 0, 0
        self.collection = root / "collections" / "c"
        segments = [self.collection / "0" / "segments" / str(uuid.UUID(bytes=self.rng.randbytes(16), version=4))
                    for _ in range(SEGMENTS)]
        self.file(self.collection / "0" / "wal" / "open-1", 2_400_000, FILE)
        for number, segment in enumerate(segments):
            self.segment(segment, size // SEGMENTS, number % 2 == 0)
        self.small_files(segments)

    def file(self, path: Path, data: int, size: int = 0) -> None:
        """`data` random bytes, then a hole up to `size`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            for start in range(0, data, PIECE):
                file.write(self.rng.randbytes(min(PIECE, data - start)))
            file.truncate(max(size, data))
        self.files += 1

    def segment(self, root: Path, size: int, is_appendable: bool) -> None:
        vectors, graph, payload = size * 7 // 10, size // 10, size // 5
        if is_appendable:
            for number, start in enumerate(range(0, vectors, DATA)):
                self.file(root / f"vector_storage/vectors/chunk_{number}.mmap", min(DATA, vectors - start), FILE)
        else:
            self.file(root / "vector_storage/matrix.dat", vectors)
        self.file(root / "vector_index/links.bin", graph)
        for number, start in enumerate(range(0, payload, DATA)):
            self.file(root / f"payload_storage/page_{number}.dat", min(DATA, payload - start), FILE)
            self.payload += min(DATA, payload - start)

    def small_files(self, segments: list[Path]) -> None:
        low, high = (size.bit_length() - 1 for size in SMALL)
        number = 0
        while self.files < FILES:
            field, name = divmod(number // SEGMENTS, len(SMALL_NAMES))
            path = segments[number % SEGMENTS] / f"payload_index/field_{field}" / SMALL_NAMES[name]
            self.file(path, int(2 ** self.rng.uniform(low, high)))
            number += 1
