"""A file system of a chosen kind in a sparse image file, mounted for as long as it is needed."""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from .environment import BenchError, need_packages
from .signals import undisturbed

MAKE = {
    "btrfs": ["mkfs.btrfs", "-q"],
    "xfs": ["mkfs.xfs", "-q", "-m", "reflink=1"],
    # Nothing is initialized later, while something is measured.
    "ext4": ["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
}
PACKAGES = {"btrfs": {"mkfs.btrfs": "btrfs-progs"}, "xfs": {"mkfs.xfs": "xfsprogs"}, "ext4": {"mkfs.ext4": "e2fsprogs"}}
SECTOR = 512
UNMOUNT_SECONDS = 30


class Image:
    """`with Image(…) as image:` mounts; the end unmounts, frees the loop device and deletes the image.

    The loop device reads and writes the image past the page cache, as a disk would."""

    def __init__(self, kind: str, size: int, home: Path):
        self.kind, self.size = kind, size
        self.path, self.mount = home / f"{kind}.img", home / f"{kind}.mount"
        self.device = self.file = None

    def __enter__(self) -> "Image":
        if os.geteuid() != 0:
            raise BenchError("mounting a file system takes root")
        need_packages(PACKAGES[self.kind])
        try:
            self.mount.mkdir()
            self.file = open(self.path, "wb")    # its lock tells that this process lives
            fcntl.flock(self.file, fcntl.LOCK_EX)
            self.file.truncate(self.size)
            subprocess.run([*MAKE[self.kind], str(self.path)], check=True, stdout=subprocess.DEVNULL)
            self.device = subprocess.run(["losetup", "--find", "--show", "--direct-io=on", str(self.path)], check=True,
                                         stdout=subprocess.PIPE, text=True).stdout.strip()
            subprocess.run(["mount", self.device, str(self.mount)], check=True)
        except BaseException:
            self.__exit__()
            raise
        return self

    def directory(self) -> Path:
        """A new place for a volume: on btrfs a subvolume."""
        path = self.mount / "volume"
        if self.kind == "btrfs":
            subprocess.run(["btrfs", "-q", "subvolume", "create", str(path)], check=True, stdout=subprocess.DEVNULL)
        else:
            path.mkdir()
        return path

    def sync(self) -> None:
        subprocess.run(["sync", "-f", str(self.mount)], check=True)

    def bytes_read(self) -> int:
        """That anybody has read from the device so far, metadata included."""
        fields = Path(f"/sys/block/{Path(self.device).name}/stat").read_text().split()
        return int(fields[2]) * SECTOR

    def __exit__(self, *_) -> None:
        with undisturbed():
            self._unmount()
            if self.device:                  # a device in use goes with its last mount
                subprocess.run(["losetup", "--detach", self.device], check=False)
            self.path.unlink(missing_ok=True)
            if self.file:
                self.file.close()
            if self.mount.exists() and not os.path.ismount(self.mount):
                self.mount.rmdir()

    def _unmount(self) -> None:
        deadline = time.monotonic() + UNMOUNT_SECONDS
        while os.path.ismount(self.mount):
            # A backup that was killed may have left the file system frozen; umount would wait for ever.
            subprocess.run(["fsfreeze", "--unfreeze", str(self.mount)], stderr=subprocess.DEVNULL)
            late = time.monotonic() > deadline
            done = subprocess.run(["umount", *(["--lazy"] if late else []), str(self.mount)],
                                  stderr=None if late else subprocess.DEVNULL)
            if late:
                print(f"{self.mount} was busy; unmounted lazily ({done.returncode})", file=sys.stderr)
                return
            time.sleep(0 if done.returncode == 0 else 0.5)


def sweep(directory: Path) -> None:
    """Unmounts and deletes the images of runs in this directory that were killed."""
    for path in directory.glob("run-*/*.img"):
        with open(path, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            image = Image(path.stem, 0, path.parent)
            image.device = subprocess.run(["losetup", "--associated", str(path), "--noheadings", "--output", "NAME"],
                                          capture_output=True, text=True).stdout.strip() or None
            image.__exit__()
            shutil.rmtree(path.parent, ignore_errors=True)
