"""Describes a directory tree so that two of them can be compared byte for byte with `diff`."""

import hashlib
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import FixtureError, layout

CHUNK = 1024 * 1024
ZEROS = memoryview(bytes(CHUNK))
TYPES = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo",
         stat.S_IFSOCK: "socket", stat.S_IFCHR: "character-device", stat.S_IFBLK: "block-device"}


def lines(root: Path, with_scratch: bool, omit: set[str]) -> list[str]:
    """One JSON object per path, sorted by the bytes of the path; `.` is the root itself."""
    top = os.fsencode(root)
    if not os.path.isdir(top):
        raise FixtureError(f"{root} is not a directory")
    names = [b"."] + [name for name in sorted(_walk(top, b"")) if with_scratch or not layout.is_scratch(name)]
    stats = {name: os.lstat(os.path.join(top, name)) for name in names}
    links = _hard_links(stats)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # hashing releases the interpreter lock
        entries = pool.map(lambda name: _entry(top, name, stats[name], links.get(name), omit), names)
        return [json.dumps(entry, separators=(",", ":")) for entry in entries]


def _walk(top: bytes, prefix: bytes):
    with os.scandir(os.path.join(top, prefix)) as entries:
        for entry in entries:
            name = prefix + entry.name
            yield name
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(top, name + b"/")


def _hard_links(stats: dict[bytes, os.stat_result]) -> dict[bytes, str]:
    """For each path that shares its inode with another in the tree: the first such path."""
    groups: dict[tuple, list[bytes]] = {}
    for name, info in stats.items():
        if info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode):
            groups.setdefault((info.st_dev, info.st_ino), []).append(name)
    return {name: escape(names[0]) for names in groups.values() if len(names) > 1 for name in names}


def _entry(top: bytes, name: bytes, info: os.stat_result, link: str | None, omit: set[str]) -> dict:
    path = os.path.join(top, name)
    kind = stat.S_IFMT(info.st_mode)
    entry = {"path": escape(name), "type": TYPES[kind], "mode": f"{stat.S_IMODE(info.st_mode):04o}",
             "uid": info.st_uid, "gid": info.st_gid, "mtime_ns": info.st_mtime_ns}
    if kind == stat.S_IFREG:
        entry["size"] = info.st_size
        entry |= _content(path, info.st_size, omit)
    elif kind == stat.S_IFLNK:
        entry["target"] = escape(os.readlink(path))
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        entry["device"] = [os.major(info.st_rdev), os.minor(info.st_rdev)]
    if link:
        entry["hard_links"] = link
    if "xattrs" not in omit and (xattrs := _xattrs(path)):
        entry["xattrs"] = xattrs
    return {field: value for field, value in entry.items() if field not in omit}


def _content(path: bytes, size: int, omit: set[str]) -> dict:
    """The digest of the whole content, holes read as zeros, and where the data lies."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        segments = list(_data_segments(descriptor, size))
        content = {}
        if "segments" not in omit:
            content["segments"] = segments
        if "sha256" not in omit:
            content["sha256"] = _digest(descriptor, size, segments)
        return content
    finally:
        os.close(descriptor)


def _data_segments(descriptor: int, size: int):
    """[start, end) of every stretch of data, as the file system reports it."""
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        end = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
        yield [start, end]


def _digest(descriptor: int, size: int, segments: list) -> str:
    digest = hashlib.sha256()
    position = 0
    for start, end in segments:
        _update_zeros(digest, start - position)
        _update_data(digest, descriptor, start, end)
        position = end
    _update_zeros(digest, size - position)
    return digest.hexdigest()


def _update_zeros(digest, length: int) -> None:
    while length > 0:
        digest.update(ZEROS[:min(length, CHUNK)])
        length -= CHUNK


def _update_data(digest, descriptor: int, start: int, end: int) -> None:
    while start < end:
        data = os.pread(descriptor, min(CHUNK, end - start), start)
        if not data:
            raise FixtureError("a file became shorter while it was read")
        digest.update(data)
        start += len(data)


def _xattrs(path: bytes) -> dict[str, str]:
    """Includes POSIX ACLs, which Linux keeps in system.posix_acl_*."""
    try:
        names = sorted(os.listxattr(path, follow_symlinks=False))
        return {name: os.getxattr(path, name, follow_symlinks=False).hex() for name in names}
    except OSError:  # a file system without extended attributes
        return {}


def differences(before: Path, after: Path) -> list[str]:
    """What differs between two saved outputs of `lines`, one short text for each path and field."""
    old, new = _by_path(before), _by_path(after)
    found = [f"{path}: only in {before}" for path in old.keys() - new.keys()]
    found += [f"{path}: only in {after}" for path in new.keys() - old.keys()]
    for path in old.keys() & new.keys():
        for field in sorted(old[path].keys() | new[path].keys()):
            one, two = old[path].get(field), new[path].get(field)
            if one != two:
                found.append(f"{path}: {field} is {_short(one)}, then {_short(two)}")
    return sorted(found)


def _by_path(file: Path) -> dict[str, dict]:
    return {entry["path"]: entry for entry in map(json.loads, file.read_text().splitlines())}


def _short(value) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def escape(name: bytes) -> str:
    """Text from which the bytes can be told again: a byte that is not UTF-8 is \\xNN, a backslash \\\\."""
    return name.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
