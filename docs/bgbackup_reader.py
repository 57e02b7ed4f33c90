#!/usr/bin/env python3
"""A second reader of bgbackup repositories: format.md in Python, sharing no code with the program.

bgbackup_reader.py REPOSITORY PASSWORD-FILE                      lists the snapshots
bgbackup_reader.py REPOSITORY PASSWORD-FILE SNAPSHOT             lists its paths (an id, a prefix, or latest)
bgbackup_reader.py REPOSITORY PASSWORD-FILE SNAPSHOT TARGET      extracts it into an empty directory
Every MAC, block id and file digest is checked. Exit status: 12 wrong password, 15 target not empty, 17 damage.
"""
import ctypes, functools, hashlib, hmac, json, os, pathlib, struct, sys
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

zstd, MIB, PACK, SNAPSHOT, NOTE, TRAILER = ctypes.CDLL("libzstd.so.1"), 1 << 20, 1, 2, 4, 2**64 - 1
zstd.ZSTD_decompress.restype = zstd.ZSTD_findFrameCompressedSize.restype = ctypes.c_size_t
zstd.ZSTD_getFrameContentSize.restype = ctypes.c_ulonglong
FAULTS = (ValueError, LookupError, TypeError, struct.error, InvalidTag, FileNotFoundError)


def check(holds, problem):
    if not holds:
        raise ValueError(problem)


def stop(status, problem):
    print(f"bgbackup_reader: {problem}", file=sys.stderr)
    sys.exit(status)


def mac(key, data):
    return hmac.digest(key, data, "sha256")


def hkdf(secret, salt, info):
    return mac(mac(salt, secret), info + b"\x01")


def public(key):
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def hpke_export(key, enc, info, psk, psk_id, context):
    """RFC 9180, mode_psk, DHKEM(X25519, HKDF-SHA-256), HKDF-SHA-256, AES-256-GCM."""
    def extract(suite, salt, label, secret):
        return mac(salt, b"HPKE-v1" + suite + label + secret)

    def expand(suite, secret, label, text):
        return mac(secret, b"\x00\x20HPKE-v1" + suite + label + text + b"\x01")
    kem, suite = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01\x00\x02"
    shared = extract(kem, b"", b"eae_prk", key.exchange(X25519PublicKey.from_public_bytes(enc)))
    secret = extract(suite, expand(kem, shared, b"shared_secret", enc + public(key)), b"secret", psk)
    schedule = b"\x01" + extract(suite, b"", b"psk_id_hash", psk_id) + extract(suite, b"", b"info_hash", info)
    return expand(suite, expand(suite, secret, b"exp", schedule), b"sec", context)


def inflate(data, limit):
    count, size = ctypes.c_size_t(len(data)), zstd.ZSTD_getFrameContentSize(data, ctypes.c_size_t(len(data)))
    check(size <= limit and zstd.ZSTD_findFrameCompressedSize(data, count) == len(data), "not one bounded zstd frame")
    out = ctypes.create_string_buffer(max(size, 1))
    check(zstd.ZSTD_decompress(out, ctypes.c_size_t(size), data, count) == size, "a zstd frame is damaged")
    return out.raw[:size]


class Cursor:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        check(0 <= count <= len(self.data) - self.at, "it ends too early")
        self.at += count
        return self.data[self.at - count:self.at]

    def varint(self):
        value = shift = 0
        while (byte := self.take(1)[0]) >= 128 and shift < 63:
            value, shift = value | (byte & 127) << shift, shift + 7
        return value | byte << shift

    def bytes(self):
        return self.take(self.varint())

    def extents(self):  # [(count, pack id or None, first ordinal)]
        packs, runs = [self.take(16) for _ in range(self.varint())], []
        for _ in range(self.varint()):
            tag = self.varint()
            check(tag > 1, "a run of no blocks")
            runs.append((tag >> 1, packs[self.varint()], self.varint()) if tag & 1 else (tag >> 1, None, 0))
        return runs


class Repository:
    def __init__(self, root, password):
        self.root = pathlib.Path(root)
        for config in map(self.root.joinpath, ("v1/config.a", "v1/config.b")):
            line, seal = config.read_bytes()[:65536].split(b"\n")[:2]
            self.id, public_key = bytes.fromhex(json.loads(line)["repository"]), json.loads(line)["publicKey"]
            for path in sorted(self.root.glob("v1/keys/*.[ab]")):
                slot, number = json.loads(path.read_bytes()[:65536]), bytes.fromhex(path.name[:16])
                salt, nonce, sealed = (bytes.fromhex(slot[name]) for name in ("salt", "nonce", "sealed"))
                check(slot["n"] <= 2**20 and slot["r"] <= 16 and slot["p"] <= 16, "key derivation out of bounds")
                key = hashlib.scrypt(password, salt=salt, n=slot["n"], r=slot["r"], p=slot["p"], maxmem=2**31 - 1, dklen=32)
                try:
                    secrets = AESGCM(key).decrypt(nonce, sealed, b"bgbackup v1 key" + self.id + number)
                except InvalidTag:
                    continue
                halves = [secrets[at:at + 32] for at in range(0, len(secrets), 32)]
                self.privates = halves[::2]
                self.pairs = list(zip(map(X25519PrivateKey.from_private_bytes, self.privates), halves[1::2]))
                self.writer, (private, secret) = self.pairs[0][1], self.pairs[json.loads(line).get("generation", 1) - 1]
                check(mac(self.key("config", secret), line).hex().encode() == seal.strip(), "the configuration was altered")
                check(public(private).hex() == public_key, "the configuration has another public key")
                self.id_key, self.digest_key = self.key("block id"), self.key("file digest")
                return
        stop(12, "no key slot opens with this password")

    def key(self, name, secret=None):
        return hkdf(secret or self.writer, self.id, b"bgbackup v1 " + name.encode())

    def unseal(self, key, kind, identity, position, sealed, extra=b""):
        associated = self.id + bytes([kind]) + identity + struct.pack("<QB", position, 1) + extra
        return AESGCM(key).decrypt(struct.pack("<QI", position, 0), sealed, associated)

    def object_key(self, kind, identity, header):
        magic = b"BGBPACK1" if kind == PACK else b"BGBSNAP1"
        check(header[:11] + header[12:32] == magic + bytes([1, 1, kind, 0, 0, 0, 0]) + identity, "not this object's header")
        private, secret = self.pairs[header[11]]
        return hpke_export(private, header[32:64], b"bgbackup v1" + self.id + bytes([kind]) + identity,
                           self.key("writer psk", secret), b"bgbackup v1 writer", b"bgbackup v1 object key")

    def place(self, name):
        """Where a pack is, or the one that took its place, by the owner's word."""
        path = self.root / "v1/packs" / name[:2] / name
        if not path.exists():
            data, identity = (self.root / "v1/notes/succession" / name).read_bytes(), bytes.fromhex(name)
            check(data[:32] == b"BGBNOTE1" + bytes([1, 1, NOTE, 0, 0, 0, 0, 0]) + identity, "not this note's header")
            key = hkdf(self.key("index"), data[32:64], b"bgbackup v1 note" + self.id + identity + b"succession")
            note = json.loads(self.unseal(key, NOTE, identity, 0, data[64:]))
            text = f"succession {name} {note['successor']} {note['kept']}".encode()
            owners = [hkdf(private, self.id, b"bgbackup v1 owner") for private in self.privates]
            check(note["seal"] in [mac(owner, text).hex() for owner in owners], f"the owner did not replace pack {name}")
            return self.place(note["successor"])
        return path

    @functools.lru_cache(64)
    def pack(self, identity):
        """(path, object key, frames: (offset, sealed length, plain length), blocks: (frame, start, length, id))"""
        path = self.place(identity.hex())
        home = bytes.fromhex(path.name)
        with path.open("rb") as file:
            header, size = file.read(64), file.seek(0, 2)
            file.seek(size - 16)
            length, zero, magic = struct.unpack("<II8s", file.read(16))
            check((magic, zero) == (b"BGBTRLR1", 0) and length <= min(32 * MIB + 16, size - 80), "bad footer")
            file.seek(size - 16 - length)
            sealed = file.read(length)
        trailer_key = hkdf(self.key("index"), home, b"bgbackup v1 trailer" + self.id)
        cursor = Cursor(self.unseal(trailer_key, PACK, home, TRAILER, sealed))
        frames, blocks, offset, _ = [], [], 64, cursor.take(1)
        for frame in range(cursor.varint()):
            sealed_length, start = cursor.varint(), 0
            for _ in range(cursor.varint()):
                length = cursor.varint()
                blocks.append((frame, start, length, cursor.take(32) if length else None))
                start += blocks[-1][2]
            check(start <= MIB and sealed_length <= MIB + 16, "a frame is too large")
            frames.append((offset, sealed_length, start))
            offset += 16 + sealed_length
        check(cursor.at == len(cursor.data) and offset + len(sealed) + 16 == size, "the frames do not fill the pack")
        return path, self.object_key(PACK, home, header), frames, blocks

    @functools.lru_cache(8)
    def frame(self, identity, number):
        path, key, frames, _ = self.pack(identity)
        offset, length, plain = frames[number]
        with path.open("rb") as file:
            file.seek(offset)
            header, sealed = file.read(16), file.read(length)
        magic, ordinal, size, codec, planes, zero = struct.unpack("<4sIIBBH", header)
        check((magic, ordinal, size, zero) == (b"BGBF", number, length, 0) and codec < 2 > planes, "bad frame header")
        data = self.unseal(key, PACK, bytes.fromhex(path.name), number, sealed, header)
        data = inflate(data, MIB) if codec else data
        check(len(data) == plain, "a frame of another length")
        quarter, joined = plain // 4, bytearray(data)
        for plane in range(4 * planes):
            joined[plane:quarter * 4:4] = data[plane * quarter:(plane + 1) * quarter]
        return bytes(joined)

    def block(self, identity, ordinal):
        frame, start, length, name = self.pack(identity)[3][ordinal]
        data = self.frame(identity, frame)[start:start + length]
        check(mac(self.id_key, data) == name, f"block {ordinal} of pack {identity.hex()} is not what its id names")
        return data

    def metadata(self, runs):
        return (self.block(pack, ordinal) for count, pack, first in runs for ordinal in range(first, first + count))

    def snapshot(self, name):
        identity, data = bytes.fromhex(name[17:]), (self.root / "v1/snapshots" / name).read_bytes()
        body = self.unseal(self.object_key(SNAPSHOT, identity, data[:64]), SNAPSHOT, identity, 0, data[64:])
        cursor = Cursor(inflate(body, 8 * MIB))
        record, runs = json.loads(cursor.bytes()), cursor.extents()
        check(record["sequence"] == int(name[:16], 16), "another sequence")
        return {"id": name[17:], **record}, runs

    def entries(self, name):
        """The manifest, held to its rules: ascending, below directories, nothing that leads outside."""
        seen, last = {}, None
        for chunk in self.metadata(self.snapshot(name)[1]):
            cursor, path = Cursor(chunk), b""
            while cursor.at < len(chunk):
                kind, path = cursor.take(1)[0], path[:cursor.varint()] + cursor.bytes()
                parts = path.split(b"/") if path else []
                check(1 <= kind <= 4 and not {b"", b".", b".."} & set(parts) and 0 not in path, "a path no writer makes")
                check(last is None or last < parts, "entries out of order")
                check(seen.get(b"/".join(parts[:-1])) == 2 if parts else kind == 2, "a parent that is no directory")
                entry, last, seen[path] = {"path": path, "kind": kind}, parts, kind
                if kind != 4:
                    entry |= {key: cursor.varint() for key in ("mode", "owner", "group", "time")}
                    entry["time"] = entry["time"] >> 1 ^ -(entry["time"] & 1)
                    entry["xattrs"] = [(cursor.bytes(), cursor.bytes()) for _ in range(cursor.varint())]
                entry["body"] = cursor.bytes() if kind != 2 else b""
                check(kind != 4 or seen.get(entry["body"]) == 1, "a hard link to no file before it")
                yield entry

    def write(self, content, file):
        cursor = Cursor(content)
        size, unit, expected, layout = cursor.varint(), cursor.varint(), cursor.take(32), cursor.take(1)[0]
        check(4096 <= unit <= MIB and layout < 2, "bad block size or layout")
        span, parts = (cursor.varint() * unit, map(Cursor, self.metadata(cursor.extents()))) if layout else (size, [cursor])
        digest, zeros, base = hmac.new(self.digest_key, struct.pack("<QI", size, unit), "sha256"), 0, 0
        file.truncate(size)
        for part in parts:
            ranges, at, end = [], base, base
            for _ in range(part.varint()):
                start = end + part.varint()
                ranges.append((start, end := start + part.varint()))
            for count, pack, first in part.extents():
                for ordinal in range(first, first + count) if pack else [None]:
                    data, low, at = self.block(pack, ordinal) if pack else b"", at, min(at + unit * (1 if pack else count), size)
                    check(end <= size and (not pack or len(data) == at - low), "a block of another length")
                    zeros += 0 if pack else -(-(at - low) // unit)
                    if zeros and (pack or at == size):
                        digest.update(bytes(32) + struct.pack("<Q", zeros))
                        zeros = 0
                    digest.update(self.pack(pack)[3][ordinal][3] if pack else b"")
                    for begin, stop_at in [(max(begin, low), min(stop_at, at)) for begin, stop_at in ranges]:
                        for piece in range(begin, stop_at, MIB):
                            file.seek(piece)
                            file.write(data[piece - low:stop_at - low] if pack else bytes(min(MIB, stop_at - piece)))
            base += span
        check(digest.digest() == expected, "a file does not match its digest")

    def extract(self, name, target):
        os.makedirs(target, exist_ok=True)
        os.listdir(target) and stop(15, "the target is not empty")
        os.chdir(target)
        entries = list(self.entries(name))
        for path, kind, body in ((entry["path"] or b".", entry["kind"], entry["body"]) for entry in entries):
            if kind == 1:
                try:
                    with open(path, "xb") as file:
                        self.write(body, file)
                except FAULTS:
                    os.unlink(path)
                    raise
            elif kind == 2:  # parents are directories made here, so no path leads elsewhere
                os.makedirs(path, 0o700, exist_ok=path == b".")
            else:
                os.symlink(body, path) if kind == 3 else os.link(body, path, follow_symlinks=False)
        for entry in reversed([entry for entry in entries if entry["kind"] != 4]):
            path, link = entry["path"] or b".", {"follow_symlinks": False}
            os.geteuid() or os.chown(path, entry["owner"], entry["group"], **link)
            for attribute, value in entry["xattrs"]:
                os.setxattr(path, attribute, value, **link)
            entry["kind"] == 3 or os.chmod(path, entry["mode"])
            os.utime(path, ns=(entry["time"], entry["time"]), **link)


def main(root, password_file, snapshot=None, target=None):
    try:
        repository = Repository(root, pathlib.Path(password_file).read_bytes().removesuffix(b"\n"))
        names = sorted(path.name for path in repository.root.glob("v1/snapshots/*-*"))
        if snapshot is None:
            return [print(json.dumps(repository.snapshot(name)[0])) for name in names]
        chosen = names[-1:] if snapshot == "latest" else [name for name in names if name[17:].startswith(snapshot)]
        len(chosen) == 1 or stop(1, f"{len(chosen)} snapshots are meant by {snapshot}")
        if target:
            return repository.extract(chosen[0], target)
        for entry in repository.entries(chosen[0]):
            print(json.dumps(entry["path"].decode("utf-8", "backslashreplace")))
    except FAULTS as problem:
        stop(17, f"damage found: {problem or type(problem).__name__}")


if __name__ == "__main__":
    main(*sys.argv[1:]) if 3 <= len(sys.argv) <= 5 else stop(64, __doc__)
