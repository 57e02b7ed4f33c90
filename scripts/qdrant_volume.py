#!/usr/bin/env python3
"""Makes, changes, breaks, serves and inspects real Qdrant volumes for tests, the demo and benchmarks.

The shards are written by Qdrant's own engine (PyPI: qdrant-edge-py), the files around them as the
servers of a cluster write them. The engine lives in a virtual environment which is made
at the first use, in $BGBACKUP_VENV, else $XDG_CACHE_HOME/bgbackup/venv, else ~/.cache/bgbackup/venv.

Exit status: 0 done, 1 failed, 2 usage, 77 the engine cannot be installed here.
"""

import argparse
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.dont_write_bytecode = True  # the source tree stays clean

from qdrant_fixture import FixtureError, environment, layout, manifest, traps  # noqa: E402


def main() -> int:
    arguments = parser().parse_args()
    if needs_engine(arguments):
        environment.enter()
    try:
        return arguments.run(arguments) or 0
    except FixtureError as error:
        return fail(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone: no traceback
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # the engine raises plain Exception for all that goes wrong in it
        if os.environ.get("BGBACKUP_TRACEBACK"):
            raise
        return fail(f"{type(error).__name__}: {error}")


def needs_engine(arguments) -> bool:
    """Trees are read and compared without it, and most traps change files that it has no part in."""
    if arguments.run == run_trap:
        return not arguments.list and arguments.name in traps.TRAPS and traps.TRAPS[arguments.name].needs_engine
    return arguments.run not in (run_hash, run_compare)


def fail(reason: str) -> int:
    print(f"qdrant_volume: {reason}", file=sys.stderr)
    return 1


def run_create(arguments) -> None:
    root = arguments.path
    make_empty(root)
    from qdrant_fixture import engine
    cluster = layout.Cluster(arguments.seed)
    layout.write_node(root, cluster, arguments.peer)
    configs = layout.collection_configs(arguments.dim, cluster)
    result = engine.create(root, arguments.points, configs, cluster, arguments.peer)
    if not arguments.no_scratch:
        layout.write_scratch(root)
    say(result)


def run_cluster(arguments) -> None:
    if arguments.standalone and arguments.nodes > 1:
        raise FixtureError("a server without clustering is alone: --nodes 1")
    make_empty(arguments.path)
    from qdrant_fixture import engine
    cluster = layout.Cluster(arguments.seed, arguments.nodes, arguments.sharded)
    # Thresholds so low that a few hundred points have graphs and quantization.
    configs = layout.collection_configs(arguments.dim, cluster, indexing_kb=(4, 1))

    def make(peer: int) -> dict:
        root = arguments.path / f"node-{peer}"
        root.mkdir()
        if arguments.standalone:
            layout.write_standalone(root, cluster)
        else:
            layout.write_node(root, cluster, peer)
        result = engine.create(root, arguments.points, configs, cluster, peer)
        if not arguments.no_scratch:
            layout.write_scratch(root)
        return {"node": str(root), "peer_id": cluster.peers[peer]} | result

    with ThreadPoolExecutor(arguments.nodes) as pool:  # the engine waits for the disk most of the time
        for made in pool.map(make, range(arguments.nodes)):
            say(made)


def make_empty(root: Path) -> None:
    if root.exists() and any(root.iterdir()):
        raise FixtureError(f"{root} is not empty")
    root.mkdir(parents=True, exist_ok=True)


def run_trap(arguments) -> None:
    if arguments.list:
        for trap in traps.TRAPS.values():
            print(f"{trap.name:22}{trap.purpose}")
        return
    if arguments.name not in traps.TRAPS:
        raise FixtureError(f"there is no trap {arguments.name}; --list names them")
    if not arguments.path:
        raise FixtureError("a trap needs at least one PATH")
    for path in arguments.path:
        traps.spring(arguments.name, path)


def run_serve(arguments) -> None:
    from qdrant_fixture import serving
    key = arguments.api_key_file.read_text().strip() if arguments.api_key_file else None
    options = serving.Options(arguments.port, key, arguments.uri, arguments.peers, arguments.slow_ready,
                              arguments.until_eof)
    serving.serve_copy(arguments.path, arguments.remote, arguments.local_only, arguments.status, options)


def run_change(arguments) -> None:
    from qdrant_fixture import engine
    verb = {"grow": engine.grow, "overwrite": engine.overwrite, "delete": engine.delete}[arguments.verb]
    say(verb(arguments.path, arguments.points, arguments.seed))


def run_optimize(arguments) -> None:
    from qdrant_fixture import engine
    say(engine.optimize(arguments.path))


def run_load(arguments) -> None:
    from qdrant_fixture import load
    load.run(arguments.path, arguments.seconds, arguments.seed, arguments.batch,
             arguments.flush_every, arguments.optimize_every, arguments.max_points)


def run_fingerprint(arguments) -> None:
    from qdrant_fixture import engine
    print(json.dumps(engine.fingerprint(arguments.path, arguments.scratch_dir), indent=2))


def run_hash(arguments) -> None:
    omit = set(arguments.omit) | ({"segments"} if arguments.no_segments else set())
    for line in manifest.lines(arguments.path, not arguments.no_scratch, omit):
        print(line)


def run_compare(arguments) -> int:
    found = manifest.differences(arguments.path, arguments.other)
    for line in found:
        print(line)
    return 1 if found else 0


def say(result: dict) -> None:
    print(json.dumps(result))


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    create = add(verbs, "create", run_create, "lay out a new volume in an empty or missing directory")
    create.add_argument("--points", type=positive, default=2000,
                        help="in the large collection (default %(default)s)")
    create.add_argument("--dim", type=positive, default=64, help="of the main vector (default %(default)s)")
    create.add_argument("--peer", type=int, choices=range(3), default=0,
                        help="which node of the cluster this is; volumes of one seed fit together")
    create.add_argument("--no-scratch", action="store_true", help="leave out what a backup has to exclude")
    add_seed(create)

    cluster = add(verbs, "cluster", run_cluster,
                  "lay out the volumes node-0, node-1 … of one cluster; print a line each")
    cluster.add_argument("--nodes", type=int, choices=(1, 2, 3), required=True)
    cluster.add_argument("--sharded", action="store_true",
                         help="as many shards as nodes, two replicas each (default: one shard that is everywhere)")
    cluster.add_argument("--standalone", action="store_true", help="with one node: a server without clustering")
    cluster.add_argument("--points", type=positive, default=300,
                         help="in the large collection of the cluster (default %(default)s)")
    cluster.add_argument("--dim", type=positive, default=16, help="of the main vector (default %(default)s)")
    cluster.add_argument("--no-scratch", action="store_true", help="leave out what a backup has to exclude")
    add_seed(cluster)

    purpose = "break volumes in exactly one way"
    trap = verbs.add_parser("trap", help=purpose, description=purpose.capitalize() + ".")
    trap.add_argument("name", nargs="?", metavar="NAME", help="what to break")
    trap.add_argument("path", nargs="*", type=Path, metavar="PATH", help="the storage directories")
    trap.add_argument("--list", action="store_true", help="print all names, one line each")
    trap.set_defaults(run=run_trap)
    add_serve(verbs)

    for name, purpose in (("grow", "add points"),
                          ("overwrite", "change points: half wholly, a quarter their vectors, a quarter their payload"),
                          ("delete", "delete points")):
        verb = add(verbs, name, run_change, f"{purpose}, through the engine")
        verb.add_argument("--points", type=positive, required=True, help="how many; a tenth in the small collection")
        add_seed(verb)
    add(verbs, "optimize", run_optimize, "merge, vacuum and index segments, through the engine")

    load = add(verbs, "load", run_load,
               "change the volume in a loop until SIGTERM; print a JSON line for each acknowledged batch")
    load.add_argument("--seconds", type=float, default=0, help="stop by itself after this time (default: never)")
    load.add_argument("--batch", type=positive, default=50, help="points in a batch (default %(default)s)")
    load.add_argument("--flush-every", type=positive, default=10, metavar="N", help="batches (default %(default)s)")
    load.add_argument("--optimize-every", type=int, default=100, metavar="N",
                      help="batches, 0 for never (default %(default)s)")
    load.add_argument("--max-points", type=int, default=0, metavar="N",
                      help="delete instead of adding above it; a tenth in the small collection (default: never)")
    add_seed(load)

    prints = add(verbs, "fingerprint", run_fingerprint,
                 "print counts, payload and vector hashes and exact nearest points as JSON; reads a copy")
    prints.add_argument("--scratch-dir", type=Path, help="where the copy is made (default: the temporary directory)")

    tree = add(verbs, "hash", run_hash, "print the tree as sorted JSON lines, for a comparison byte for byte")
    tree.add_argument("--no-scratch", action="store_true", help="leave out what a backup has to exclude")
    tree.add_argument("--no-segments", action="store_true", help="leave out where data and holes lie")
    tree.add_argument("--omit", action="append", default=[], metavar="FIELD",
                      help="leave out a field, such as mtime_ns or uid (may be repeated)")

    purpose = "say what differs between two saved outputs of hash; exit 1 if anything"
    compare = verbs.add_parser("compare", help=purpose, description=purpose.capitalize() + ".")
    compare.add_argument("path", type=Path, metavar="FILE", help="output of hash")
    compare.add_argument("other", type=Path, metavar="FILE", help="output of hash")
    compare.set_defaults(run=run_compare)
    return top


def add(verbs, name: str, run, purpose: str) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=purpose, description=purpose[0].upper() + purpose[1:] + ".")
    verb.add_argument("path", type=Path, metavar="PATH", help="the storage directory")
    verb.set_defaults(run=run)
    return verb


def add_serve(verbs) -> None:
    serve = add(verbs, "serve", run_serve, "answer Qdrant's REST from a copy of the volume until SIGTERM; "
                                           "print the URL as a JSON line when ready")
    serve.add_argument("--port", type=int, default=0, help="on 127.0.0.1 (default: a free one)")
    serve.add_argument("--api-key-file", type=Path, metavar="FILE", help="ask for the key in it")
    serve.add_argument("--uri", help="this peer's address in /cluster, as after a start with --uri")
    serve.add_argument("--peers", type=json.loads, metavar="JSON",
                       help='the addresses in /cluster, {"id": "uri"} (default: those of the volume)')
    serve.add_argument("--remote", type=Path, action="append", default=[], metavar="PATH",
                       help="another node's volume, to answer for the shards that are not here (may be repeated)")
    serve.add_argument("--local-only", action="store_true",
                       help="answer from the shards that are here, where some are not")
    serve.add_argument("--slow-ready", type=float, default=0, metavar="SECONDS",
                       help="answer /readyz with 503 until then")
    serve.add_argument("--until-eof", action="store_true", help="end with standard input, too")
    serve.add_argument("--status", choices=("green", "yellow", "grey", "red"), default="green",
                       help="of every collection, which no volume holds (default %(default)s)")


def add_seed(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--seed", type=int, default=1, help="the same seed makes the same points (default %(default)s)")


def positive(text: str) -> int:
    value = int(text)
    if value <= 0:
        raise argparse.ArgumentTypeError("must be greater than 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
