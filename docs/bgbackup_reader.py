#!/usr/bin/env python3
"""A second, independent reader of bgbackup repositories, written from format.md alone.

It trusts nothing: every MAC, bound, block id and file digest is checked before a byte is written.
Exit status: 0 done, 1 failed, 10 no repository, 12 wrong password, 15 target not empty, 17 damage found.
"""
import argparse
import ctypes
import functools
import hashlib
import hmac
import json
import os
import pathlib
import re
import struct
import sys
from bisect import bisect_left, bisect_right

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
try:
    import zstandard
except ImportError:
    zstandard, libzstd = None, ctypes.CDLL("libzstd.so.1")
    libzstd.ZSTD_decompress.restype = libzstd.ZSTD_findFrameCompressedSize.restype = ctypes.c_size_t

MIB = 1 << 20
PACK, SNAPSHOT, INDEX = 1, 2, 3
MAGIC = {PACK: b"BGBPACK1", SNAPSHOT: b"BGBSNAP1", INDEX: b"BGBINDX1"}
TYPES = {1: "file", 2: "directory", 3: "symlink", 4: "hardlink"}
DIGIT = "[0-9a-f]"
FAULTS = (ValueError, LookupError, TypeError, RecursionError, struct.error, InvalidTag,
          getattr(zstandard, "ZstdError", ValueError))  # what reading something damaged can raise
damage = []


def note(problem, status=None):
    damage.append(problem)
    print(f"bgbackup_reader: {problem}", file=sys.stderr)
    if status:
        sys.exit(status)


def check(holds, problem):
    if not holds:
        raise ValueError(problem)


def mac(key, data):
    return hmac.digest(key, data, "sha256")


def hkdf(secret, salt, info):
    return mac(mac(salt, secret), info + b"\x01")


def public_half(key):
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def hpke_export(key, enc, info, psk, psk_id, context):
    """32 bytes of RFC 9180 Export: mode_psk, X25519 and HKDF-SHA-256, AES-256-GCM."""
    def extract(suite, salt, label, secret):
        return mac(salt, b"HPKE-v1" + suite + label + secret)

    def expand(suite, secret, label, text):
        return mac(secret, b"\x00\x20HPKE-v1" + suite + label + text + b"\x01")

    kem, suite = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01\x00\x02"
    shared = extract(kem, b"", b"eae_prk", key.exchange(X25519PublicKey.from_public_bytes(enc)))
    shared = expand(kem, shared, b"shared_secret", enc + public_half(key))
    schedule = b"\x01" + extract(suite, b"", b"psk_id_hash", psk_id) + extract(suite, b"", b"info_hash", info)
    exporter = expand(suite, extract(suite, shared, b"secret", psk), b"exp", schedule)
    return expand(suite, exporter, b"sec", context)


def inflate(data, limit):
    """The content of exactly one zstd frame."""
    if zstandard:
        plain, stream = bytearray(), zstandard.ZstdDecompressor().decompressobj()
        for at in range(0, len(data), 4096):  # in steps: the bound is seen before much is allocated
            plain += stream.decompress(data[at:at + 4096])
            check(len(plain) <= limit, "zstd frame too long")
        check(stream.eof and not stream.unused_data, "not one zstd frame")
        return bytes(plain)
    size, room = ctypes.c_size_t(len(data)), ctypes.create_string_buffer(limit + 1)
    check(libzstd.ZSTD_findFrameCompressedSize(data, size) == len(data), "not one zstd frame")
    length = libzstd.ZSTD_decompress(room, ctypes.c_size_t(limit), data, size)
    check(length <= limit, "bad zstd frame")  # an error is a very large number
    return ctypes.string_at(room, length)


def unfilter(data):
    plain, count = bytearray(data), len(data) // 4
    for plane in range(4):
        plain[plane:4 * count:4] = data[plane * count:(plane + 1) * count]
    return bytes(plain)


def unhex(text, size=None):
    check(re.fullmatch("([0-9a-fA-F]{2})*", text) and size in (None, len(text) // 2), "bad hex digits")
    return bytes.fromhex(text)


class Cursor:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        check(count <= len(self.data) - self.at, "cut short")
        self.at += count
        return self.data[self.at - count:self.at]

    def varint(self, bits=63):
        value = 0
        for shift in range(0, 70, 7):
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                break
        check(byte < 128 and value < 1 << bits, "number too large")
        return value

    def bytes(self):
        return self.take(self.varint())

    def times(self, size):
        """A number of things that follow, each of at least `size` bytes."""
        count = self.varint()
        check(count * size <= len(self.data) - self.at, "cut short")
        return range(count)

    def extents(self):
        """Runs of blocks: (count, pack id or None for zeros, ordinal of the first)."""
        packs, runs = [self.take(16) for _ in self.times(16)], []
        for _ in self.times(1):
            count, stored = divmod(self.varint(), 2)
            check(count, "a run of nothing")
            runs.append((count, packs[self.varint()], self.varint()) if stored else (count, None, 0))
        return runs

    def end(self):
        check(self.at == len(self.data), "bytes left over")


class Repository:
    def __init__(self, root, password):
        self.root, self.listed, self.reading = pathlib.Path(root).absolute() / "v1", {}, "v1"
        self.pack = functools.lru_cache(1024)(self.pack)
        self.payload = functools.lru_cache(64)(self.payload)
        if not self.names("config.[ab]"):
            note("no repository", 10)
        slots = sorted({name[:16] for name in self.names("keys/" + DIGIT * 16 + ".[ab]")})
        keys = [(unhex(slot), key) for slot in slots for key in self.copies(f"keys/{slot}")]
        if not any(self.unlock(config, *key, password) for config in self.copies("config") for key in keys):
            note("the password opens no key", 17 if damage else 12)

    def names(self, pattern):
        return sorted(path.name for path in self.root.glob(pattern))

    def fault(self, error):
        note(f"{self.reading}: {str(error) or 'wrong MAC'}")

    def read(self, name, limit, offset=0, count=-1):
        self.reading = name
        try:
            with open(self.root / name, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                check(size <= limit and -size <= offset <= size, "too long or too short")
                file.seek(offset + size if offset < 0 else offset)
                return file.read(count)
        except OSError as error:
            raise ValueError(error.strerror) from None

    def copies(self, name):
        texts = {}
        for copy in "ab":
            try:
                texts[self.read(f"{name}.{copy}", 1 << 16)] = copy
            except ValueError as error:
                self.fault(error)
        if len(texts) == 2:
            note(f"the copies of {name} differ")
        return texts

    def unlock(self, config, slot, key, password):
        try:
            line, seal = config.removesuffix(b"\n").split(b"\n")
            config, key = json.loads(line), json.loads(key)
            check((config["format"], config["suite"], key["format"]) == (1, 1, 1), "unknown format or suite")
            check((key["kind"], key["kdf"]) == ("password", "scrypt"), "unknown kind of key slot")
            n, r, p = key["n"], key["r"], key["p"]
            check(n & (n - 1) == 0 and 1 << 10 <= n <= 1 << 20, "n out of bounds")
            check(1 <= r <= 16 and 1 <= p <= 16 and 128 * n * r <= 1 << 30, "r or p out of bounds")
            self.id = unhex(config["repository"], 16)
            kek = hashlib.scrypt(password, salt=unhex(key["salt"]), n=n, r=r, p=p, maxmem=2**31 - 1, dklen=32)
            secrets = AESGCM(kek).decrypt(unhex(key["nonce"], 12), unhex(key["sealed"], 80),
                                          b"bgbackup v1 key" + self.id + slot)
            self.private_key = X25519PrivateKey.from_private_bytes(secrets[:32])
            self.id_key, self.digest_key, self.index_key, self.writer_psk, config_key = (
                hkdf(secrets[32:], self.id, b"bgbackup v1 " + name)
                for name in (b"block id", b"file digest", b"index", b"writer psk", b"config"))
            check(mac(config_key, line) == unhex(seal.decode(), 32), "the configuration has a wrong MAC")
            check(public_half(self.private_key) == unhex(config["publicKey"], 32), "another public key")
            return True
        except InvalidTag:
            return False  # another password's
        except FAULTS as error:
            return note(f"configuration or key slot {slot.hex()}: {error}")

    def object_key(self, kind, identity, header):
        fixed = MAGIC[kind] + bytes([1, 1, kind, 0, 0, 0, 0, 0]) + identity
        check(len(header) == 64 and header[:32] == fixed, "bad object header")
        if kind == INDEX:
            return hkdf(self.index_key, header[32:], b"bgbackup v1 index object" + self.id + identity)
        return hpke_export(self.private_key, header[32:], b"bgbackup v1" + self.id + bytes([kind]) + identity,
                           self.writer_psk, b"bgbackup v1 writer", b"bgbackup v1 object key")

    def unseal(self, key, kind, identity, position, sealed, extra=b""):
        at = struct.pack("<Q", position)
        bound = self.id + bytes([kind]) + identity + at + b"\x01" + extra
        return AESGCM(key).decrypt(at + bytes(4), sealed, bound)

    def body(self, kind, identity, name):
        data = self.read(name, 64 * MIB + 80)
        return self.unseal(self.object_key(kind, identity, data[:64]), kind, identity, 0, data[64:])

    def read_indexes(self):
        """What the indexes say of the packs: it is only compared with the packs' trailers."""
        for name in self.names("index/" + DIGIT * 32):
            try:
                cursor = Cursor(self.body(INDEX, unhex(name), f"index/{name}"))
                for _ in cursor.times(18):
                    identity, size, trailer = cursor.take(16), cursor.varint(), cursor.bytes()
                    self.listed[identity] = size, trailer
                cursor.end()
            except FAULTS as error:
                self.fault(error)

    def pack(self, identity):
        """Name, object key, cohort, frames (offset, sealed, length), blocks (frame, offset, length, id)."""
        name = f"packs/{identity.hex()[:2]}/{identity.hex()}"
        key = self.object_key(PACK, identity, self.read(name, 128 * MIB, 0, 64))
        sealed, zero, magic = struct.unpack("<II8s", self.read(name, 128 * MIB, -16))
        check((zero, magic) == (0, b"BGBTRLR1") and sealed <= 32 * MIB + 16, "bad footer")
        trailer = self.read(name, 128 * MIB, -16 - sealed, sealed)
        trailer_key = hkdf(self.index_key, identity, b"bgbackup v1 trailer" + self.id)
        trailer = self.unseal(trailer_key, PACK, identity, 2**64 - 1, trailer)
        cursor, frames, blocks, end = Cursor(trailer), [], [], 64
        cohort = cursor.take(1)[0]
        for frame in cursor.times(2):
            length, total = cursor.varint(), 0
            for _ in cursor.times(33):
                blocks.append((frame, total, cursor.varint(), cursor.take(32)))
                total += blocks[-1][2]
            check(total <= MIB, "frame too long")
            frames.append((end, length, total))
            end += 16 + length
        cursor.end()
        size = os.path.getsize(self.root / name)
        check(1 <= cohort <= 4 and end + sealed + 16 == size, "the trailer does not fit the pack")
        check(self.listed.get(identity, (size, trailer)) == (size, trailer), "index and trailer differ")
        return name, key, cohort, frames, blocks

    def payload(self, identity, frame):
        name, key, _, frames, _ = self.pack(identity)
        offset, sealed, length = frames[frame]
        data = self.read(name, 128 * MIB, offset, 16 + sealed)
        head, codec, filtered = data[:16], data[12], data[13]
        check(head == struct.pack("<4sIIBBH", b"BGBF", frame, sealed, codec, filtered, 0), "bad frame header")
        data = self.unseal(key, PACK, identity, frame, data[16:], head)
        check(codec <= 1 and filtered <= 1, "unknown codec or filter")
        data = inflate(data, length) if codec else data
        check(len(data) == length, "a frame of another length")
        return unfilter(data) if filtered else data

    def described(self, count, identity, first):
        """Pack id, frame, offset, length and block id of each block of a stored run."""
        check(identity, "zero blocks where none can be")
        blocks = self.pack(identity)[4]
        check(first + count <= len(blocks), "no such block")
        return ((identity, *block) for block in blocks[first:first + count])

    def block(self, identity, frame, offset, length, name):
        data = self.payload(identity, frame)[offset:offset + length]
        check(mac(self.id_key, data) == name, "a block does not match its id")
        return data

    def blocks(self, runs):
        return (self.block(*block) for run in runs for block in self.described(*run))

    def snapshot(self, name):
        cursor = Cursor(inflate(self.body(SNAPSHOT, unhex(name[17:]), f"snapshots/{name}"), 64 * MIB))
        record, runs = json.loads(cursor.bytes()), cursor.extents()
        cursor.end()
        check(record["sequence"] == int(name[:16], 16), "another sequence than in the name")
        return {**record, "id": name[17:]}, runs

    def entries(self, name):
        """The manifest, checked against its rules."""
        record, runs = self.snapshot(name)
        check(all(run[1] and self.pack(run[1])[2] == 1 for run in runs), "no manifest chunk")
        directories, files, kinds, last = set(), set(), [], None
        for chunk in self.blocks(runs):
            cursor, path = Cursor(chunk), b""
            while cursor.at < len(chunk):
                begin, kind, shared = cursor.at, cursor.take(1)[0], cursor.varint()
                check(kind in TYPES and shared <= len(path), "bad entry")
                path = path[:shared] + cursor.bytes()
                parts = path.split(b"/") if path else []
                check(len(path) <= 65535 and 0 not in path, "bad path")
                check(all(0 < len(part) <= 255 and part not in (b".", b"..") for part in parts), "bad name")
                check(last is None or last < parts, "entries out of order")
                check(b"/".join(parts[:-1]) in directories if parts else kind == 2, "no directory before it")
                entry, last = {"path": path, "type": TYPES[kind]}, parts
                if kind != 4:
                    entry |= {key: cursor.varint() for key in ("mode", "owner", "group")}
                    check(entry["mode"] < 1 << 12, "bad mode")
                    check(max(entry["owner"], entry["group"]) < 1 << 32, "bad owner or group")
                    time = cursor.varint(64)
                    entry["time"] = time >> 1 ^ -(time & 1)
                    entry["xattrs"] = [(cursor.bytes(), cursor.bytes()) for _ in cursor.times(2)]
                if kind != 2:
                    entry["content" if kind == 1 else "target"] = cursor.bytes()
                check(kind != 4 or entry["target"] in files, "hard link to no file before it")
                check(cursor.at - begin <= MIB, "entry too long")
                {1: files, 2: directories}.get(kind, set()).add(path)
                kinds.append(kind)
                yield entry
        check(kinds if record["kind"] == "tree" else kinds == [2, 1], "not what a tree or device consists of")

    def pieces(self, content):
        """Each stored block or run of zero blocks of a file: first byte, end, ranges of data, the block."""
        cursor = Cursor(content)
        size, unit, _, layout = cursor.varint(), cursor.varint(), cursor.take(32), cursor.take(1)[0]
        check(4096 <= unit <= MIB and unit & (unit - 1) == 0 and layout <= 1, "bad block size or layout")
        part_size, parts, at = -(-size // unit) * unit, [cursor], 0
        if layout == 1:
            part_size, runs = cursor.varint() * unit, cursor.extents()
            cursor.end()
            check(part_size and sum(run[0] for run in runs) == -(-size // part_size), "bad number of parts")
            parts = map(Cursor, self.blocks(runs))
        for cursor in parts:
            end, ranges, low = min(at + part_size, size), [], at
            for _ in cursor.times(2):
                begin = low + cursor.varint()
                low = begin + cursor.varint()
                check(begin < low, "a range of nothing")
                ranges.append((begin, low))
            runs = cursor.extents()
            cursor.end()
            check(low <= end, "data behind the end")
            check(sum(run[0] for run in runs) == -(-(end - at) // unit), "bad number of blocks")
            begins, ends = [begin for begin, _ in ranges], [end for _, end in ranges]
            for run in runs:
                step = unit if run[1] else run[0] * unit
                for block in self.described(*run) if run[1] else [None]:
                    low, at = at, min(at + step, end)
                    check(block is None or block[3] == at - low, "a block of another length")
                    inside = ranges[bisect_right(ends, low):bisect_left(begins, at)]
                    yield low, at, [(max(low, begin), min(at, stop)) for begin, stop in inside], block

    def write(self, content, file):
        cursor, zeros = Cursor(content), 0
        size, unit, expected = cursor.varint(), cursor.varint(), cursor.take(32)
        digest = hmac.new(self.digest_key, struct.pack("<QI", size, unit), "sha256")
        for low, high, _, block in self.pieces(content):  # the digest is one of ids: it comes first
            zeros += 0 if block else -(-(high - low) // unit)
            if zeros and (block or high == size):
                digest.update(bytes(32) + struct.pack("<Q", zeros))
                zeros = 0
            digest.update(block[4] if block else b"")
        check(digest.digest() == expected, "the file does not match its digest")
        file.truncate(size)
        for low, high, ranges, block in self.pieces(content):
            data = self.block(*block) if block else b""
            inside = b"".join(data[begin - low:end - low] for begin, end in ranges)
            check(len(data) - data.count(0) == len(inside) - inside.count(0), "data in a hole")
            for begin, end in ranges:
                for at in range(begin, end, MIB):
                    file.seek(at)
                    file.write(data[at - low:end - low] if block else bytes(min(MIB, end - at)))

    def extract(self, name, target):
        entries, folders = list(self.entries(name)), []
        os.makedirs(target, exist_ok=True)
        if os.listdir(target):
            note("the target is not empty", 15)
        os.chdir(target)
        for entry in entries:  # a path leads only through directories that were made here
            path = entry["path"] or b"."
            if entry["type"] == "directory":
                os.makedirs(path, 0o700, exist_ok=path == b".")
                folders.append(entry)
            elif entry["type"] == "hardlink":
                os.link(entry["target"], path, follow_symlinks=False)
            elif entry["type"] == "symlink":
                os.symlink(entry["target"], path)
                set_metadata(path, entry)
            else:
                with open(path, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                    try:
                        self.write(entry["content"], file)
                    except FAULTS:
                        os.unlink(path)
                        print(f"bgbackup_reader: {path} cannot be extracted", file=sys.stderr)
                        raise
                set_metadata(path, entry)
        for entry in reversed(folders):
            set_metadata(entry["path"] or b".", entry)


def set_metadata(path, entry):
    root = os.geteuid() == 0
    if root:
        os.chown(path, entry["owner"], entry["group"], follow_symlinks=False)
    for name, value in entry["xattrs"]:
        if root or name.startswith((b"user.", b"system.")):
            os.setxattr(path, name, value, follow_symlinks=False)
    if entry["type"] != "symlink":
        os.chmod(path, entry["mode"])
    os.utime(path, ns=(entry["time"], entry["time"]), follow_symlinks=False)


def show(record):
    print(json.dumps(record, default=lambda text: text.decode("utf-8", "surrogateescape")))


def run(options, repository):
    names = repository.names("snapshots/" + DIGIT * 16 + "-" + DIGIT * 32)
    if options.command == "list":
        for name in names:
            try:
                show(repository.snapshot(name)[0])
            except FAULTS as error:
                repository.fault(error)
        return
    chosen = [name for name in names if name[17:].startswith(options.snapshot)]
    chosen = names[-1:] if options.snapshot == "latest" else chosen
    if len(chosen) != 1:
        note(f"{len(chosen)} snapshots are meant by {options.snapshot}", 1)
    repository.read_indexes()
    if options.command == "extract":
        return repository.extract(chosen[0], options.target)
    for entry in repository.entries(chosen[0]):
        content = entry.pop("content", None)
        show(entry | ({"size": Cursor(content).varint()} if content else {}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("repository")
    parser.add_argument("--password-file", required=True)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list")
    for command in ("ls", "extract"):
        commands.add_parser(command).add_argument("snapshot", help="an id, a prefix of one, or `latest`")
    commands.choices["extract"].add_argument("target")
    options = parser.parse_args()
    try:
        password = pathlib.Path(options.password_file).read_bytes().removesuffix(b"\n")
        repository = Repository(options.repository, password)
        try:
            run(options, repository)
        except FAULTS as error:
            repository.fault(error)
    except OSError as error:
        note(error, 1)
    sys.exit(17 if damage else 0)


if __name__ == "__main__":
    main()
