"""A memory cgroup: what runs in it shares so many bytes of memory, page cache included."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from .environment import BenchError
from .signals import undisturbed

FIRST, SECOND = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")    # version 1 and 2
PREFIX = "bgbackup-bench-"
REMOVE_SECONDS = 10


class MemoryGroup:
    """`with MemoryGroup(…) as group:` makes it; the end kills what is left in it and removes it."""

    def __init__(self, limit: int, owner: int | None = None):
        self.is_first = (FIRST / "memory.limit_in_bytes").exists()
        self.path = (FIRST if self.is_first else SECOND) / f"{PREFIX}{owner or os.getpid()}"
        self.limit = limit

    def __enter__(self) -> "MemoryGroup":
        try:
            if not self.is_first:
                (SECOND / "cgroup.subtree_control").write_text("+memory")
            self.path.mkdir()
            if self.is_first:
                (self.path / "memory.limit_in_bytes").write_text(str(self.limit))
            else:
                (self.path / "memory.max").write_text(str(self.limit))
                (self.path / "memory.swap.max").write_text("0")
        except OSError as error:
            self.__exit__()
            raise BenchError(f"no memory cgroup can be made here: {error}") from None
        return self

    def wrap(self, argv: list[str]) -> list[str]:
        """The command, started in the group."""
        return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(self.path / "cgroup.procs"), *argv]

    def __exit__(self, *_) -> None:
        with undisturbed():
            deadline = time.monotonic() + REMOVE_SECONDS
            while self.path.exists():
                for number in (self.path / "cgroup.procs").read_text().split():
                    with suppress(ProcessLookupError):
                        os.kill(int(number), signal.SIGKILL)
                if self.is_first:            # its page cache goes with it
                    with suppress(OSError):
                        (self.path / "memory.force_empty").write_text("0")
                try:
                    self.path.rmdir()
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.1)


def sweep() -> None:
    """Removes the groups of runs that were killed."""
    for path in (*FIRST.glob(f"{PREFIX}*"), *SECOND.glob(f"{PREFIX}*")):
        owner = int(path.name.removeprefix(PREFIX))
        if not Path(f"/proc/{owner}").exists():
            MemoryGroup(0, owner).__exit__()
