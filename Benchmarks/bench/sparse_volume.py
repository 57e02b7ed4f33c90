"""A volume as large as one likes that takes little room: payload pages that are mostly holes."""

import random
from pathlib import Path

from .scatter import text

FILE = 32 << 20
RUN, STRIDE = 256 << 10, 4 << 20             # 2 MiB of data in a file, in eight runs
FILES_PER_SEGMENT = 64


def grow(root: Path, size: int, seed: int) -> int:
    """Adds files until there are `size` bytes, holes included; returns the number of files."""
    count = max(size // FILE, 1)
    for number in range(count):
        segment, page = divmod(number, FILES_PER_SEGMENT)
        path = root / f"collections/bench/0/segments/{segment:08x}/payload_storage/page_{page}.dat"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = random.Random(f"{seed}/{number}")
        with open(path, "wb") as file:
            for offset in range(0, FILE, STRIDE):
                file.seek(offset)
                file.write(text(rng, RUN))
            file.truncate(FILE)
    return count
