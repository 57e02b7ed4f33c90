"""How each tool makes a repository, backs up and restores."""

import json
import os
import re
import subprocess
from pathlib import Path

PASSWORD = "benchmark"


def output(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip().splitlines()[0]


def version_in(text: str) -> str:
    found = re.search(r"\d+(\.\d+)+\S*", text)
    return found.group().rstrip(",") if found else text


class Tool:
    """One contestant. `home` is a fresh directory for its repository, keys and caches."""

    name: str
    packages: dict[str, str] = {}
    incremental = True
    writer_key = False
    nanoseconds = True           # restores modification times exactly

    def start(self, home: Path, volume: Path) -> None:
        self.home, self.volume = home, volume
        self.repository = home / "repository"
        password = home / "password"
        password.write_text(PASSWORD + "\n")
        password.chmod(0o600)
        foreign = ("RESTIC_", "BORG_", "BGBACKUP_", "AWS_")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(foreign)} | self.environment()

    def environment(self) -> dict[str, str]:
        return {}

    def writer_environment(self) -> dict[str, str]:
        return self.env

    @property
    def load(self) -> list[list[str]]:
        """Commands that bring the program, not its data, into memory."""
        return [[self.name, "--version"]]

    def version(self) -> str:
        return version_in(output(self.name, "--version"))

    def prepare(self) -> list[list[str]]:
        return []

    def backup(self) -> tuple[list[str], Path]:
        raise NotImplementedError

    def backup_with_writer_key(self) -> tuple[list[str], Path]:
        raise NotImplementedError

    def restore(self, target: Path) -> tuple[list[str], Path]:
        raise NotImplementedError

    def summary(self, text: str) -> dict | None:
        """What the tool itself says about a backup, kept with the raw numbers."""
        return None


class Copy(Tool):
    name, label, incremental = "cp", "cp -a", False

    def backup(self):
        self.repository.mkdir()
        return ["cp", "-a", f"{self.volume}/.", str(self.repository)], self.home

    def restore(self, target):
        return ["cp", "-a", f"{self.repository}/.", str(target)], self.home

    def version(self) -> str:
        return "coreutils " + version_in(output("cp", "--version"))


class Tar(Tool):
    name, label, incremental, nanoseconds = "tar", "tar \\| zstd -3 -T2", False, False
    packages = {"zstd": "zstd"}
    load = [["tar", "--version"], ["zstd", "--version"], ["bash", "--version"]]

    def pipe(self, script: str, *arguments: str) -> list[str]:
        return ["bash", "-o", "pipefail", "-c", script, "bash", *arguments]

    def backup(self):
        self.repository.mkdir()
        script = 'tar --sparse -cf - . | zstd -3 -T2 -q -o "$1"'
        return self.pipe(script, str(self.repository / "volume.tar.zst")), self.volume

    def restore(self, target):
        script = 'zstd -dcq "$1" | tar --numeric-owner -xpf -'
        return self.pipe(script, str(self.repository / "volume.tar.zst")), target

    def version(self) -> str:
        return f"tar {version_in(output('tar', '--version'))}, zstd {version_in(output('zstd', '--version')[20:])}"


class Borg(Tool):
    name, label = "borg", "borg"
    packages = {"borg": "borgbackup"}
    count = 0

    def environment(self):
        return {"BORG_PASSPHRASE": PASSWORD, "BORG_BASE_DIR": str(self.home / "state"),
                "BORG_REPO": str(self.repository), "BORG_DISPLAY_PASSPHRASE": "no"}

    def prepare(self):
        self.count = 0
        return [["borg", "init", "--encryption", "repokey-blake2"]]

    def backup(self):
        self.count += 1
        return ["borg", "create", f"::{self.count}", "."], self.volume

    def restore(self, target):
        return ["borg", "extract", "--numeric-ids", f"::{self.count}"], target


class Restic(Tool):
    name, label = "restic", "restic"
    packages = {"restic": "restic"}
    load = [["restic", "version"]]

    def environment(self):
        return {"RESTIC_REPOSITORY": str(self.repository), "RESTIC_PASSWORD_FILE": str(self.home / "password"),
                "RESTIC_CACHE_DIR": str(self.home / "cache")}

    def prepare(self):
        return [["restic", "init", "--repository-version", "2"]]

    def backup(self):
        return ["restic", "-q", "backup", "."], self.volume

    def restore(self, target):
        return ["restic", "-q", "restore", "latest", "--target", str(target)], self.home

    def version(self) -> str:
        return version_in(output("restic", "version"))


class Bgbackup(Tool):
    name, label, writer_key = "bgbackup", "**bgbackup**", True

    def __init__(self, binary: Path):
        self.binary = str(binary)

    def environment(self):
        return {"BGBACKUP_REPOSITORY": str(self.repository), "BGBACKUP_PASSWORD_FILE": str(self.home / "password"),
                "BGBACKUP_CACHE_DIR": str(self.home / "cache"), "BGBACKUP_STATE_DIR": str(self.home / "state"),
                "BGBACKUP_CONFIG": str(self.home / "no-config")}

    def writer_environment(self):
        return {k: v for k, v in self.env.items() if k != "BGBACKUP_PASSWORD_FILE"}

    @property
    def load(self):
        return [[self.binary, "--version"]]

    def version(self) -> str:
        return version_in(output(self.binary, "--version"))

    def prepare(self):
        return [[self.binary, "init"], [self.binary, "key", "export-writer", str(self.home / "writer.key")]]

    def backup(self):
        return [self.binary, "backup", str(self.volume), "--node", "bench", "--json", "--no-progress"], self.home

    def backup_with_writer_key(self):
        argv, directory = self.backup()
        return [*argv, "--writer-key", str(self.home / "writer.key")], directory

    def restore(self, target):
        return [self.binary, "restore", "latest", "--target", str(target), "--no-progress", "--keep-identity"], self.home

    def summary(self, text):
        for line in reversed(text.splitlines()):
            try:
                if (value := json.loads(line)).get("message_type") == "summary":
                    return value
            except (ValueError, AttributeError):
                continue
        return None


def all_tools(binary: Path) -> dict[str, Tool]:
    return {tool.name: tool for tool in (Copy(), Tar(), Borg(), Restic(), Bgbackup(binary))}
