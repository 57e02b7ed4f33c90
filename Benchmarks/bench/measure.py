"""Runs one command at a time and measures it; moves the volume between states."""

import hashlib
import json
import os
import stat
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .environment import BenchError, cpu_count

SETTLE_SECONDS = 2.0             # after a write, so that no file is racily clean
BUFFER = 1 << 20


def sync(directory: Path) -> float:
    start = time.perf_counter()
    subprocess.run(["sync", "-f", str(directory)], check=True)
    return time.perf_counter() - start


def busy_seconds() -> float:
    """CPU time the whole machine has spent busy, stolen time included."""
    with open("/proc/stat") as file:
        user, nice, system, _, _, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def tree_size(root: Path) -> tuple[int, int]:
    """Of the regular files below `root`: bytes without holes, and apparent bytes."""
    stored = apparent = 0
    for directory, _, names in os.walk(root):
        for name in names:
            status = os.lstat(os.path.join(directory, name))
            if stat.S_ISREG(status.st_mode):
                stored += min(status.st_size, status.st_blocks * 512)
                apparent += status.st_size
    return stored, apparent


class Runner:
    """Runs commands from a cold (or, if asked, warm) page cache."""

    def __init__(self, scratch: Path, cold: bool):
        self.scratch, self.cold = scratch, cold

    def command(self, argv: list[str], env: dict[str, str], cwd: Path) -> tuple[dict, str]:
        """Runs `argv`; returns its figures and its standard output."""
        out_path, err_path = self.scratch / "stdout", self.scratch / "stderr"
        with open(out_path, "wb") as out, open(err_path, "wb") as err:
            busy, start = busy_seconds(), time.perf_counter()
            process = subprocess.Popen(argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
            try:
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            except BaseException:
                process.kill()
                process.wait()
                raise
            wall = time.perf_counter() - start
            cpu = usage.ru_utime + usage.ru_stime
            others = max(0.0, busy_seconds() - busy - cpu) / wall
        if process.returncode != 0:
            tail = (out_path.read_bytes()[-1000:] + err_path.read_bytes()[-3000:]).decode(errors="replace")
            raise BenchError(f"`{' '.join(argv)}` ended with status {process.returncode}:\n{tail}")
        figures = {"wall": wall, "user": usage.ru_utime, "system": usage.ru_stime, "rss": usage.ru_maxrss * 1024,
                   "read": usage.ru_inblock * 512, "written": usage.ru_oublock * 512, "others": others}
        return figures, out_path.read_text(errors="replace")

    def measure(self, tool, argv: list[str], env: dict[str, str], cwd: Path) -> tuple[dict, str]:
        """As `command`, but from a defined state, and with the time of a sync afterwards."""
        sync(self.scratch)
        if self.cold:
            Path("/proc/sys/vm/drop_caches").write_text("3\n")
            for probe in tool.load:          # the program itself is loaded, its data is not
                subprocess.run(probe, env=env, capture_output=True)
        figures, output = self.command(argv, env, cwd)
        figures["sync"] = sync(self.scratch)
        return figures, output


class Volume:
    """The generated volume, its content's digests, and its scattered change."""

    def __init__(self, root: Path):
        self.root = root
        self.dirty = root.with_name(root.name + ".dirty")
        self.digests = self.hash_tree(root)

    @staticmethod
    def hash_tree(root: Path, only: set[str] | None = None) -> dict[str, str]:
        """Digests by relative path, of every file or of those in `only`."""
        paths = [os.path.join(directory, name) for directory, _, names in os.walk(root) for name in names]
        if only is not None:
            paths = [os.path.join(root, path) for path in only]

        def digest(path: str) -> str:
            hasher, buffer = hashlib.sha256(), bytearray(BUFFER)
            with open(path, "rb", buffering=0) as file:
                while count := file.readinto(buffer):
                    hasher.update(memoryview(buffer)[:count])
            return hasher.hexdigest()

        with ThreadPoolExecutor(cpu_count()) as pool:
            return dict(zip((os.path.relpath(p, root) for p in paths), pool.map(digest, paths)))

    @staticmethod
    def metadata(root: Path, nanoseconds: bool) -> dict[str, tuple]:
        result = {}
        for directory, _, names in os.walk(root):
            for path in (directory, *(os.path.join(directory, name) for name in names)):
                status = os.lstat(path)
                size = status.st_size if stat.S_ISREG(status.st_mode) else None
                mtime = status.st_mtime_ns if nanoseconds else status.st_mtime_ns // 10**9
                result[os.path.relpath(path, root)] = (oct(status.st_mode), status.st_uid, status.st_gid, size, mtime)
        result.pop(".")                      # made by the benchmark, not by every tool
        return result

    def verify(self, restored: Path, nanoseconds: bool, rehash: set[str] = frozenset()) -> None:
        """Fails unless names, types, modes, owners, times and content are the volume's.

        Files in `rehash` differ from the volume as it was generated."""
        digests = self.digests | self.hash_tree(self.root, rehash)
        for kind, expected, found in (
                ("metadata", self.metadata(self.root, nanoseconds), self.metadata(restored, nanoseconds)),
                ("content", digests, self.hash_tree(restored))):
            if expected != found:
                paths = sorted(p for p in expected.keys() | found.keys() if expected.get(p) != found.get(p))
                details = "\n".join(f"  {p}: {expected.get(p)} restored as {found.get(p)}" for p in paths[:10])
                raise BenchError(f"restored {kind} differs in {len(paths)} places:\n{details}")

    def change(self) -> "Change":
        return Change(self)


class Change:
    """Scope in which the scattered pages have their new content."""

    def __init__(self, volume: Volume):
        self.volume = volume
        beside = volume.root.with_name
        plan = json.loads(beside(volume.root.name + ".change.json").read_text())
        self.page, self.writes = plan["page"], plan["writes"]
        self.paths = {path for path, _ in self.writes}
        self.new = beside(volume.root.name + ".change.data").read_bytes()

    def swap(self, content: bytes) -> bytes:
        """Writes `content` over the pages and returns what was there."""
        previous, files = bytearray(), {}
        try:
            for number, (path, offset) in enumerate(self.writes):
                if path not in files:
                    files[path] = os.open(self.volume.root / path, os.O_RDWR)
                previous += os.pread(files[path], self.page, offset)
                os.pwrite(files[path], content[number * self.page:(number + 1) * self.page], offset)
        finally:
            for descriptor in files.values():
                os.close(descriptor)
        sync(self.volume.root)
        time.sleep(SETTLE_SECONDS)
        return bytes(previous)

    def __enter__(self) -> "Change":
        self.volume.dirty.touch()
        self.old = self.swap(self.new)
        return self

    def __exit__(self, *_) -> None:
        self.swap(self.old)
        self.volume.dirty.unlink()
