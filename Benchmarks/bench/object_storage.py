"""bgbackup and restic on S3 servers of this machine, beside bgbackup on a local directory.

Servers: rclone serve s3 (as it comes, and without the checksums that it makes for itself), and the
strict server of Tests/StrictS3, with and without 50 ms added to each request."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from statistics import median

from .environment import BenchError
from .measure import Runner, Volume, sync
from .tools import Bgbackup, Restic, Tool

ROOT = Path(__file__).resolve().parents[2]
DELAY_MILLISECONDS = 50


class Server:
    """An S3 server as a process of its own, whose CPU time is taken too."""

    def __init__(self, kind: str, home: Path):
        self.kind, self.home = kind, home
        self.access, self.secret = "STRICTACCESS", "strict-secret-key"
        port_file = home / "port"
        port_file.unlink(missing_ok=True)
        if kind.startswith("strict"):
            binary = os.environ.get("BGBACKUP_STRICT_S3", str(ROOT / ".build-strict/release/strict-s3"))
            command = [binary, "--port-file", str(port_file), "--until-eof", "--quiet"]
        else:
            command = [sys.executable, str(ROOT / "scripts/s3_server.py"), "rclone", "--port-file", str(port_file),
                       "--data", str(home / "data"), "--key", f"{self.access},{self.secret}"]
            if kind == "rclone-bare":
                command += ["--option=--ignore-checksum", "--option=--etag-hash="]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE)
        end = time.monotonic() + 300
        while not port_file.exists():
            if self.process.poll() is not None or time.monotonic() > end:
                raise BenchError(f"the server {kind} did not start")
            time.sleep(0.05)
        self.endpoint = f"http://127.0.0.1:{port_file.read_text().strip()}"
        if kind.startswith("strict"):
            delay = DELAY_MILLISECONDS if kind == "strict-delay" else 0
            # MD5 as ETag would be three quarters of the server's work and is no part of the question.
            self.control("PUT", "config", {"personality": {"opaqueETag": True, "delayMilliseconds": delay}})

    def control(self, method: str, path: str, body: dict | None = None):
        request = urllib.request.Request(f"{self.endpoint}/_control/{path}", method=method,
                                         data=json.dumps(body).encode() if body is not None else None)
        with urllib.request.urlopen(request) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def gets(self) -> int | None:
        """GET requests for objects so far; only the strict server counts."""
        if not self.kind.startswith("strict"):
            return None
        return sum(self.control("GET", "stats")["requests"].get("GetObject", {}).values())

    def cpu(self) -> float:
        """Seconds of CPU of the server and what it started."""
        total, wanted = 0.0, {self.process.pid}
        for _ in range(2):
            for entry in Path("/proc").glob("[0-9]*/stat"):
                try:
                    fields = entry.read_text().rsplit(")", 1)[1].split()
                except OSError:
                    continue
                if int(fields[1]) in wanted:
                    wanted.add(int(entry.parent.name))
        for pid in wanted:
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            except OSError:
                continue
        return total

    def stop(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
        shutil.rmtree(self.home, ignore_errors=True)


def keys(server: Server) -> dict[str, str]:
    return {"AWS_ACCESS_KEY_ID": server.access, "AWS_SECRET_ACCESS_KEY": server.secret,
            "AWS_EC2_METADATA_DISABLED": "true", "no_proxy": "*"}


class S3Bgbackup(Bgbackup):
    def __init__(self, binary: Path, server: Server):
        super().__init__(binary)
        self.server = server

    def environment(self):
        return super().environment() | keys(self.server) | {
            "BGBACKUP_REPOSITORY": f"s3://bucket/bench?endpoint={self.server.endpoint}"}


class S3Restic(Restic):
    def __init__(self, server: Server):
        self.server = server

    def environment(self):
        return super().environment() | keys(self.server) | {
            "RESTIC_REPOSITORY": f"s3:{self.server.endpoint}/bucket/restic", "AWS_DEFAULT_REGION": "us-east-1"}


CONTESTS = [("bgbackup", "local"), ("bgbackup", "rclone"), ("restic", "rclone"), ("bgbackup", "rclone-bare"),
            ("restic", "rclone-bare"), ("bgbackup", "strict"), ("bgbackup", "strict-delay")]


def run_contest(contest: tuple[str, str], binary: Path, runner: Runner, volume: Volume, scratch: Path, say) -> dict:
    name, place = contest
    home = scratch / f"{name}-{place}"
    home.mkdir()
    server = None
    try:
        if place != "local":
            (home / "server").mkdir()
            server = Server(place, home / "server")
        tool: Tool = Bgbackup(binary) if server is None else (
            S3Bgbackup(binary, server) if name == "bgbackup" else S3Restic(server))
        tool.start(home, volume.root)
        for argv in tool.prepare():
            runner.command(argv, tool.env, home)
        figures = {}
        for step in ("backup", "restore"):
            target = home / "restored"
            if step == "restore":
                target.mkdir()
            command, directory = tool.backup() if step == "backup" else tool.restore(target)
            cpu, gets = (server.cpu(), server.gets()) if server else (0.0, None)
            measured, _ = runner.measure(tool, command, tool.env, directory)
            measured["server_cpu"] = server.cpu() - cpu if server else 0.0
            if gets is not None:
                measured["gets"] = server.gets() - gets
            figures[step] = measured
            say(f"  {name:9} {place:13} {step:8} {measured['wall']:6.2f} s, CPU {measured['user'] + measured['system']:.1f} s, "
                f"server {measured['server_cpu']:.1f} s, {measured['rss'] / 2**20:.0f} MiB"
                + (f", {measured['gets']} GETs" if gets is not None else ""))
        volume.verify(home / "restored", tool.nanoseconds)
        if place == "local":
            figures["stored"] = sum(p.stat().st_size for p in (home / "repository").rglob("*") if p.is_file())
        return figures
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(home, ignore_errors=True)
        sync(scratch)


def measure(binary: Path, runner: Runner, volume: Volume, scratch: Path, rounds: int, say) -> dict:
    samples: dict[str, list[dict]] = {}
    order = list(CONTESTS)
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        for contest in order:
            samples.setdefault("/".join(contest), []).append(run_contest(contest, binary, runner, volume, scratch, say))
        order = order[1:] + order[:1]
    return samples


# MARK: tables


def middle(samples: dict, contest: str, step: str, key: str) -> float:
    return median(s[step][key] for s in samples[contest])


def spread(samples: dict, contest: str, step: str) -> str:
    walls = [s[step]["wall"] for s in samples[contest]]
    return f"{median(walls):.2f} ({min(walls):.2f}–{max(walls):.2f})"


def markdown(samples: dict) -> str:
    def own(contest, step):
        return median(s[step]["user"] + s[step]["system"] for s in samples[contest])

    lines = ["| | first backup, s | restore, s | CPU: tool / server, s | restore, CPU: tool / server, s | peak memory, MiB |",
             "| --- | ---: | ---: | ---: | ---: | ---: |"]
    labels = {"local": "local directory", "rclone": "rclone serve s3", "rclone-bare": "rclone, without its checksums",
              "strict": "strict server", "strict-delay": f"strict server, + {DELAY_MILLISECONDS} ms a request"}
    for contest in samples:
        name, place = contest.split("/")
        peak = max(s[step]["rss"] for s in samples[contest] for step in ("backup", "restore")) / 2**20
        lines.append(
            f"| {name}, {labels[place]} | {spread(samples, contest, 'backup')} | {spread(samples, contest, 'restore')} | "
            f"{own(contest, 'backup'):.1f} / {middle(samples, contest, 'backup', 'server_cpu'):.1f} | "
            f"{own(contest, 'restore'):.1f} / {middle(samples, contest, 'restore', 'server_cpu'):.1f} | {peak:.0f} |")
    goals = ["| target | goal | measured | |", "| --- | ---: | ---: | ---: |"]
    for label, goal, value in targets(samples):
        goals.append(f"| {label} | {goal[0]} {goal[1]} | {value:.2f} | "
                     f"{'✓' if (value <= goal[1] if goal[0] == '≤' else value >= goal[1]) else '✗'} |")
    return "\n".join(lines) + "\n\n" + "\n".join(goals) + "\n"


def targets(samples: dict) -> list[tuple[str, tuple[str, float], float]]:
    def ratio(one, two, step):
        return middle(samples, one, step, "wall") / middle(samples, two, step, "wall")

    rows = []
    for place in ("rclone", "rclone-bare"):
        note = "" if place == "rclone" else ", rclone without its checksums"
        for step in ("backup", "restore"):
            rows.append((f"{step}, × local{note}", ("≤", 1.3), ratio(f"bgbackup/{place}", "bgbackup/local", step)))
            rows.append((f"{step}, restic × bgbackup{note}", ("≥", 3.0), ratio(f"restic/{place}", f"bgbackup/{place}", step)))
    for step in ("backup", "restore"):
        rows.append((f"{step}, throughput with {DELAY_MILLISECONDS} ms a request", ("≥", 0.8),
                     ratio("bgbackup/strict", "bgbackup/strict-delay", step)))
    stored = median(s["stored"] for s in samples["bgbackup/local"])
    gets = middle(samples, "bgbackup/strict", "restore", "gets")
    rows.append(("GETs of a full restore, × stored bytes / 16 MiB", ("≤", 1.2), gets / (stored / (16 << 20))))
    peak = max(s[step]["rss"] for contest in samples if contest.startswith("bgbackup/")
               for s in samples[contest] for step in ("backup", "restore"))
    rows.append(("peak resident memory, MiB", ("≤", 300.0), peak / 2**20))
    return rows
