"""Writes of 4 KiB scattered over the payload pages of a volume, in place."""

import os
import random
from pathlib import Path

PAGE = 4096
GROUP = 4                        # pages of one block of bgbackup's


class Scatter:
    def __init__(self, root: Path, first: int | None = None):
        """Of the first so many files; of all where none are named."""
        paths = sorted(root.glob("collections/*/*/segments/*/payload_storage/page_*.dat"))[:first]
        self.groups = [(path, offset) for path in paths for offset in data_groups(path)]

    def write(self, pages: int, seed: int, apart: bool = False) -> int:
        """Gives that many pages new content; returns how many bytes that was.

        With `apart`, each is in a block of 16 KiB of its own: how much changes does not depend on the volume."""
        rng = random.Random(seed)
        if apart:
            picked = [(group, rng.randrange(GROUP)) for group in rng.sample(range(len(self.groups)), pages)]
        else:
            picked = [divmod(page, GROUP) for page in rng.sample(range(len(self.groups) * GROUP), pages)]
        by_file: dict[Path, list[int]] = {}
        for group, page in sorted(picked):
            path, offset = self.groups[group]
            by_file.setdefault(path, []).append(offset + page * PAGE)
        for path, offsets in by_file.items():
            file = os.open(path, os.O_WRONLY)
            try:
                for offset in offsets:
                    os.pwrite(file, text(rng, PAGE), offset)
            finally:
                os.close(file)
        return len(picked) * PAGE


def text(rng: random.Random, size: int) -> bytes:
    """Bytes that compress to half their size, about as payload does."""
    return rng.randbytes(size // 2).hex().encode()


def data_groups(path: Path) -> list[int]:
    """Offsets of the whole groups of pages that are not a hole."""
    found, step = [], GROUP * PAGE
    with open(path, "rb") as file:
        end, position = os.fstat(file.fileno()).st_size, 0
        while position < end:
            try:
                start = os.lseek(file.fileno(), position, os.SEEK_DATA)
            except OSError:                  # only a hole is left
                break
            position = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            found += range(-(-start // step) * step, position - step + 1, step)
    return found
