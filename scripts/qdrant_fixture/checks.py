"""The checks of `scripts/check-fixture`: what a served volume answers against what the engine says of it."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from . import engine, layout, points, raft_log, translate, trap_checks
from .environment import ENTERED
from .scores import nearest

CLUSTERS = {  # each as `cluster` is called for it
    "one": ["--nodes", "1"],
    "two": ["--nodes", "2"],
    "three": ["--nodes", "3"],
    "sharded": ["--nodes", "3", "--sharded"],
    "alone": ["--nodes", "1", "--standalone"],
}
POINTS, DIM = 240, 16
ENDED = 15  # seconds in which a server must be up, or be gone after SIGTERM


class Failed(Exception):
    pass


def expect(holds, text: str) -> None:
    if not holds:
        raise Failed(text)


def same(found, wanted, what: str) -> None:
    expect(found == wanted, f"{what}: found {str(found)[:200]}, expected {str(wanted)[:200]}")


class Checks:
    """Runs checks and counts those that failed; each is one line."""

    def __init__(self, directory: Path, scripts: Path):
        self.directory, self.scripts, self.failed = directory, scripts, 0

    def check(self, name: str, body, *arguments) -> None:
        started = time.monotonic()
        try:
            detail = body(*arguments) or ""
            print(f"ok    {name}  {detail}  ({time.monotonic() - started:.1f} s)", flush=True)
        except Exception as error:
            self.failed += 1
            print(f"FAIL  {name}: {type(error).__name__}: {error}", flush=True)

    def node(self, cluster: str, number: int) -> Path:
        return self.directory / cluster / f"node-{number}"

    def nodes(self, cluster: str) -> list[Path]:
        return sorted((self.directory / cluster).iterdir())

    def script(self, *arguments) -> str:
        command = [sys.executable, str(self.scripts / "qdrant_volume.py"), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment())
        expect(done.returncode == 0, f"{arguments[0]} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def environment(self) -> dict:
        copies = self.directory / "copies"  # where servers make theirs
        copies.mkdir(exist_ok=True)
        return os.environ | {ENTERED: sys.executable, "TMPDIR": str(copies)}

    def copy(self, source: Path, name: str) -> Path:
        target = self.directory / "trapped" / name
        target.parent.mkdir(exist_ok=True)
        subprocess.run(["cp", "-a", "--sparse=always", str(source), str(target)], check=True)
        return target

    @contextmanager
    def serve(self, root: Path, *options):
        """A server of the volume; afterwards it must end in good order and leave no copy."""
        process = subprocess.Popen(
            [sys.executable, str(self.scripts / "qdrant_volume.py"), "serve", str(root), *map(str, options)],
            stdout=subprocess.PIPE, text=True, env=self.environment())
        try:
            yield Client(json.loads(process.stdout.readline())["url"])
            process.terminate()
            same(process.wait(ENDED), 0, "exit status after SIGTERM")
            same(os.listdir(self.directory / "copies"), [], "copies left")
        finally:
            process.kill()
            process.wait()


class Client:
    def __init__(self, url: str, key: dict | None = None):
        self.url, self.headers = url, key or {}

    def ask(self, path: str, body=None) -> tuple[int, object]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, self.headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                status, content = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            status, content = error.code, error.read().decode()
        try:
            return status, json.loads(content)
        except ValueError:
            return status, content

    def result(self, path: str, body=None):
        status, answer = self.ask(path, body)
        expect(status == 200 and answer["status"] == "ok" and answer["time"] >= 0, f"{path} answered {status} {answer}")
        return answer["result"]


# --- clusters -----------------------------------------------------------------------------------------

def make_clusters(checks: Checks) -> str:
    def make(name: str) -> None:
        made = checks.directory / f"{name}-made"
        checks.script("cluster", made, *CLUSTERS[name], "--points", POINTS, "--dim", DIM)
        # A file system in memory has few holes; with holes, all the copies later on are quick.
        subprocess.run(["cp", "-a", "--sparse=always", str(made), str(checks.directory / name)], check=True)
        subprocess.run(["rm", "-rf", str(made)], check=True)
    with ThreadPoolExecutor(len(CLUSTERS)) as pool:
        list(pool.map(make, CLUSTERS))
    return f"{sum(len(checks.nodes(name)) for name in CLUSTERS)} volumes"


def files_agree(checks: Checks, name: str) -> None:
    nodes = checks.nodes(name)
    states = [layout.read_json(node / "raft_state.json") for node in nodes]
    same(len({state.pop("this_peer_id") for state in states}), len(nodes), "peer ids")
    expect(all(state == states[0] for state in states), "raft states differ beyond the own id")
    for node in nodes:
        entries = raft_log.read(node / "collections_meta_wal/open-1")[1]
        same(len(entries), states[0]["state"]["hard_state"]["commit"], "raft entries and commit")
        same(sorted(states[0]["peer_address_by_id"]), sorted(map(str, states[0]["state"]["conf_state"]["voters"])),
             "addresses and voters")
        same([*node.rglob("edge_config.json")], [], "files that no server writes")
    for directory in layout.collection_directories(nodes[0]).values():
        relative = directory.relative_to(nodes[0])
        configs = {(node / relative / "config.json").read_text() for node in nodes}
        same(len(configs), 1, f"configurations of {directory.name}")
        params = json.loads(configs.pop())["params"]
        for shard in range(params["shard_number"]):
            replicas_agree([node / relative / str(shard) for node in nodes], params["replication_factor"])


def replicas_agree(shards: list[Path], replicas: int) -> None:
    states = [layout.read_json(shard / "replica_state.json") for shard in shards]
    same(len({json.dumps(state["peers"]) for state in states}), 1, "views of the replicas")
    same(len(states[0]["peers"]), replicas, "replicas")
    for shard, state in zip(shards, states):
        holds = str(state["this_peer_id"]) in state["peers"]
        same([state["is_local"], (shard / "segments").is_dir(), (shard / "wal").is_dir()], [holds] * 3, f"{shard}")
        if holds:
            versions = [layout.read_json(path)["version"] for path in shard.glob("segments/*/segment.json")]
            same(len(raft_log.read(shard / "wal/open-1")[1]) - 1, max(filter(None, versions)), "log and segments")
    clocks = {(shard / "newest_clocks.json").read_text() for shard, state in zip(shards, states) if state["is_local"]}
    same(len(clocks), 1, "clocks of the replicas")


def replicas_same(checks: Checks, name: str) -> str:
    """Every node of a replicated cluster has the same points, each in segments of its own."""
    prints = {engine.fingerprint(node, checks.directory)["fingerprint"] for node in checks.nodes(name)}
    same(len(prints), 1, "fingerprints")
    return prints.pop()[:12]


# --- answers ------------------------------------------------------------------------------------------

def answers_true(checks: Checks, name: str, *options) -> str:
    nodes = checks.nodes(name)
    before = trap_checks.tree(nodes[0])
    truth = points_of(checks, nodes)
    with checks.serve(nodes[0], *options) as client:
        names = [item["name"] for item in client.result("/collections")["collections"]]
        same(names, sorted(truth), "collections")
        compared = sum(collection_true(client, name, truth[name], nodes[0]) for name in names)
    same(trap_checks.tree(nodes[0]), before, "the volume after serving")
    return f"{compared} queries"


def points_of(checks: Checks, nodes: list[Path]) -> dict[str, dict]:
    """What the engine finds by itself: (payload digest, vector digest) by id, over all shards of the cluster."""
    found = {}
    for node in nodes:
        copy = checks.copy(node, f"truth-{node.parent.name}-{node.name}")
        with engine.open_collections(copy, seed=0) as collections:
            for collection in collections:
                for shard in collection.shards.values():
                    for record in engine.scroll(shard, with_payload=True, with_vector=True):
                        found.setdefault(collection.name, {})[str(record.id)] = record
        subprocess.run(["rm", "-rf", str(copy)], check=True)
    return found


def collection_true(client: Client, name: str, truth: dict, node: Path) -> int:
    path = f"/collections/{name}"
    info = client.result(path)
    config = layout.read_json(node / path[1:] / "config.json")
    same(info["config"]["params"], config["params"], "parameters")
    same([info["status"], info["points_count"]], ["green", len(truth)], "status and points")
    same(client.result(path + "/points/count", {"exact": True})["count"], len(truth), "count")
    odd = {"must": [{"key": "ordinal", "range": {"lt": 50}}]}
    same(client.result(path + "/points/count", {"exact": True, "filter": odd})["count"],
         sum(record.payload["ordinal"] < 50 for record in truth.values()), "filtered count")
    same(sorted(info["payload_schema"]), sorted(layout.PAYLOAD_SCHEMA[name]), "payload indexes")

    scrolled = scroll_all(client, path)
    same([str(point["id"]) for point in scrolled], [str(id) for id in sorted_ids(truth)], "scrolled ids")
    for point in scrolled:
        record = truth[str(point["id"])]
        same(point["payload"], record.payload, f"payload of {point['id']}")
        same(digest(point), points.vector_digest(record), f"vectors of {point['id']}")
    chosen = [point["id"] for point in scrolled[::37]]
    fetched = client.result(path + "/points", {"ids": chosen, "with_vector": True})
    same(sorted(map(str, (point["id"] for point in fetched))), sorted(map(str, chosen)), "fetched ids")
    return sum(query_true(client, path, vector, scrolled, config["params"]) for vector in scrolled[0]["vector"])


def sorted_ids(truth: dict) -> list:
    return sorted((record.id for record in truth.values()), key=translate.id_order)


def scroll_all(client: Client, path: str) -> list[dict]:
    found, offset, pages = [], None, 0
    while pages == 0 or offset is not None:
        body = {"limit": 37, "with_payload": True, "with_vector": True} | ({"offset": offset} if pages else {})
        page = client.result(path + "/points/scroll", body)
        found, offset, pages = found + page["points"], page["next_page_offset"], pages + 1
    return found


def digest(point: dict) -> bytes:
    """As the engine's record of the same point has it."""
    vectors = {name: translate.vector(value) for name, value in point["vector"].items()}
    return points.vector_digest(type("Record", (), {"vector": vectors}))


def query_true(client: Client, path: str, vector: str, scrolled: list[dict], params: dict) -> int:
    """The exact nearest of a point, by its vector and by its id, against brute force over all scrolled vectors."""
    asked = scrolled[len(scrolled) // 2]
    for query in (asked["vector"][vector], asked["id"]):
        others = scrolled if query != asked["id"] else [point for point in scrolled if point["id"] != asked["id"]]
        wanted = nearest(asked["vector"][vector], others, vector, params)[:10]
        hits = client.result(path + "/points/query", {"query": query, "using": vector, "limit": 10,
                                                      "params": {"exact": True}})["points"]
        same([hit["id"] for hit in hits], [id for id, _ in wanted], f"nearest by {vector!r}")
        far = [(hit["score"], score) for hit, (_, score) in zip(hits, wanted)
               if abs(hit["score"] - score) > 1e-3 * max(abs(score), 1)]
        same(far, [], f"scores by {vector!r}")
    return 2


# --- the server around them -----------------------------------------------------------------------------

def topology_told(checks: Checks) -> None:
    node = checks.node("three", 1)
    state = layout.read_json(node / "raft_state.json")
    own = state["this_peer_id"]
    with checks.serve(node, "--uri", "http://green-1:6335/", "--status", "yellow") as client:
        cluster = client.result("/cluster")
        same([cluster["peer_id"], cluster["raft_info"]["commit"], cluster["raft_info"]["role"]], [own, 10, "Follower"],
             "the node's place")
        addresses = state["peer_address_by_id"] | {str(own): "http://green-1:6335/"}
        same({id: peer["uri"] for id, peer in cluster["peers"].items()}, addresses, "peers")
        shards = client.result("/collections/documents/cluster")
        same(shards["local_shards"], [{"shard_id": 0, "points_count": POINTS, "state": "Active"}], "local shards")
        same(len(shards["remote_shards"]), 2, "remote shards")
        same(client.result("/collections/images")["status"], "yellow", "status")
        same(client.result("/aliases")["aliases"], [{"alias_name": "docs-live", "collection_name": "documents"}],
             "aliases")
        same(client.ask("/collections/none")[0], 404, "unknown collection")
        same(client.ask("/none"), (404, ""), "unknown path")
        same(client.ask("/collections/documents/points/query", {"query": [1.0], "using": "text"})[0], 400, "bad vector")
        same(client.ask("/")[1]["version"], layout.SERVER_VERSION, "version")
    with checks.serve(checks.node("alone", 0), "--peers", "{}") as client:
        same(client.result("/cluster"), {"status": "disabled"}, "cluster of a standalone server")


def keys_asked(checks: Checks) -> None:
    file = checks.directory / "key"
    file.write_text("a-key\n")
    with checks.serve(checks.node("one", 0), "--api-key-file", file, "--slow-ready", 1.5) as client:
        same(client.ask("/readyz"), (503, "some shards are not ready"), "readyz at first")
        same(client.ask("/healthz")[0], 200, "healthz")
        same(client.ask("/collections")[0], 401, "no key")
        for header, value, status in (("api-key", "a-key", 200), ("Authorization", "Bearer a-key", 200),
                                      ("api-key", "b-key", 401)):
            same(Client(client.url, {header: value}).ask("/collections")[0], status, f"{header}: {value}")
        time.sleep(1.5)
        same(client.ask("/readyz"), (200, "all shards are ready"), "readyz later")


def shards_missing(checks: Checks) -> None:
    node = checks.node("sharded", 0)
    with checks.serve(node) as client:
        same(client.ask("/collections/documents/points/count", {"exact": True})[0], 500, "a shard is elsewhere")
    with checks.serve(node, "--local-only") as client:
        shards = client.result("/collections/documents/cluster")
        counted = client.result("/collections/documents/points/count", {"exact": True})["count"]
        same(sum(shard["points_count"] for shard in shards["local_shards"]), counted, "local points")
        same([len(shards["local_shards"]), len(shards["remote_shards"]), shards["shard_count"]], [2, 4, 3], "shards")


def changes_show(checks: Checks) -> None:
    node = checks.copy(checks.node("two", 1), "changed")
    for verb in ("grow", "overwrite", "delete"):
        checks.script(verb, node, "--points", 30)
    with checks.serve(node) as client:
        same(client.result("/collections/documents/points/count", {})["count"], POINTS, "27 more, 27 less")
        revised = {"must": {"key": "revision", "range": {"gte": 2}}}
        counted = client.result("/collections/documents/points/count", {"filter": revised})["count"]
        expect(15 <= counted <= 27, f"{counted} of 27 overwritten points are left")


def verbs_keep_replicas(checks: Checks) -> None:
    """The same verb with the same seed on both replicas of a shard leaves them the same."""
    copies = [checks.copy(checks.node("sharded", number), f"verbs-{number}") for number in (0, 1)]
    for copy in copies:
        for verb in ("grow", "overwrite", "delete"):
            checks.script(verb, copy, "--points", 30)
    shared = []
    for copy in copies:
        with engine.open_collections(copy, seed=0) as collections:
            shared.append([collection.shard_inventory(0) for collection in collections])
    same(shared[0], shared[1], "shard 0 on both nodes")


def boots_in_place(checks: Checks) -> None:
    copy = checks.copy(checks.node("three", 2), "booted")
    with boot(checks, copy) as client:
        same(client.ask("/readyz")[0], 200, "readyz")
        same(client.result("/collections/documents/points/count", {"exact": True})["count"], POINTS, "count")


@contextmanager
def boot(checks: Checks, storage: Path):
    process = subprocess.Popen([sys.executable, str(checks.scripts / "boot-edge"), str(storage), "0"],
                               stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=checks.environment())
    try:
        line = process.stderr.readline()
        expect("serving" in line, line)
        yield Client(line.split()[-1])
        process.terminate()
        output, _ = process.communicate(timeout=ENDED)
        same([process.returncode, output], [0, ""], "exit status and output")
    finally:
        process.kill()
        process.communicate()


def run(directory: Path, scripts: Path) -> int:
    checks = Checks(directory, scripts)
    checks.check("clusters are made", make_clusters, checks)
    for name in ("one", "two", "three", "sharded"):
        checks.check(f"{name}: files of the nodes agree", files_agree, checks, name)
    for name in ("two", "three"):
        checks.check(f"{name}: replicas hold the same points", replicas_same, checks, name)
    for name in ("one", "two", "three", "alone"):
        checks.check(f"{name}: answers are the engine's", answers_true, checks, name)
    remote = [option for number in (1, 2) for option in ("--remote", checks.node("sharded", number))]
    checks.check("sharded: answers are the engine's over all shards", answers_true, checks, "sharded", *remote)
    for name, body in (("topology, states and errors are told", topology_told), ("keys and readiness", keys_asked),
                       ("a shard that is elsewhere is missed", shards_missing), ("changes show", changes_show),
                       ("verbs keep replicas the same", verbs_keep_replicas),
                       ("boot-edge boots in place", boots_in_place)):
        checks.check(name, body, checks)
    trap_checks.run(checks)
    print(f"{checks.failed} failed" if checks.failed else "all hold")
    return 1 if checks.failed else 0
