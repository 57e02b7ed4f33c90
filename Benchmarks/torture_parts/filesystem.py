"""A file system of a chosen kind in a sparse image file, mounted for as long as it is needed."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from bench.environment import BenchError, need_packages

from .processes import undisturbed

MEMORY = Path("/dev/shm")    # flushes are fast there, so the load does more of everything

MAKE = {
    "btrfs": ["mkfs.btrfs", "-q"],
    "xfs": ["mkfs.xfs", "-q", "-m", "reflink=1"],
    "ext4": ["mkfs.ext4", "-q", "-F"],
}
PACKAGES = {"btrfs": {"mkfs.btrfs": "btrfs-progs"}, "xfs": {"mkfs.xfs": "xfsprogs"}, "ext4": {"mkfs.ext4": "e2fsprogs"}}
UNMOUNT_SECONDS = 20


def image_directory(size: int, otherwise: Path) -> Path:
    """Where an image is best: in memory, where that has room for twice its size."""
    room = os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 2 * size
    return MEMORY if room else otherwise


class ImageFileSystem:
    """`with ImageFileSystem(…) as made:` mounts; the end unmounts, frees the loop device and deletes the image."""

    def __init__(self, kind: str, size: int, home: Path, image: Path):
        self.kind, self.size, self.image, self.mount = kind, size, image, home / "mount"

    def __enter__(self) -> "ImageFileSystem":
        if os.geteuid() != 0:
            raise BenchError("mounting a file system takes root")
        need_packages(PACKAGES[self.kind])
        self.mount.mkdir()
        with open(self.image, "wb") as image:
            image.truncate(self.size)
        try:
            subprocess.run([*MAKE[self.kind], str(self.image)], check=True, stdout=subprocess.DEVNULL)
            subprocess.run(["mount", "-o", "loop", str(self.image), str(self.mount)], check=True)
        except BaseException:
            self.__exit__()
            raise
        return self

    def directory(self) -> Path:
        """A place for the volume: on btrfs a subvolume, which can be captured alone."""
        path = self.mount / "volume"
        if self.kind == "btrfs":
            subprocess.run(["btrfs", "-q", "subvolume", "create", str(path)], check=True, stdout=subprocess.DEVNULL)
        else:
            path.mkdir()
        return path

    def used(self) -> int:
        status = os.statvfs(self.mount)
        return (status.f_blocks - status.f_bfree) * status.f_frsize

    def __exit__(self, *_) -> None:
        with undisturbed():
            self._unmount()
            self.image.unlink(missing_ok=True)
            if not os.path.ismount(self.mount):
                self.mount.rmdir()

    def _unmount(self) -> None:
        """`mount -o loop` made the loop device, so it goes with the last mount."""
        deadline = time.monotonic() + UNMOUNT_SECONDS
        while os.path.ismount(self.mount):
            # A capture that was killed may have left the file system frozen, and umount would wait for ever.
            subprocess.run(["fsfreeze", "--unfreeze", str(self.mount)], stderr=subprocess.DEVNULL)
            late = time.monotonic() > deadline
            done = subprocess.run(["umount", *(["--lazy"] if late else []), str(self.mount)],
                                  stderr=None if late else subprocess.DEVNULL)
            if late:
                print(f"torture: {self.mount} was busy; unmounted lazily ({done.returncode})", file=sys.stderr)
                return
            time.sleep(0 if done.returncode == 0 else 0.5)
