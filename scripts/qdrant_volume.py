#!/usr/bin/env python3
"""Makes, changes and inspects a real Qdrant volume for tests, the demo and benchmarks.

The shards are written by Qdrant's own engine (PyPI: qdrant-edge-py), the files around them as a
server of a three-node cluster writes them. The engine lives in a virtual environment which is made
at the first use, in $BGBACKUP_VENV, else $XDG_CACHE_HOME/bgbackup/venv, else ~/.cache/bgbackup/venv.

Exit status: 0 done, 1 failed, 2 usage, 77 the engine cannot be installed here.
"""

import argparse
import json
import os
import sys
from pathlib import Path

sys.dont_write_bytecode = True  # the source tree stays clean

from qdrant_fixture import FixtureError, environment, layout, manifest  # noqa: E402


def main() -> int:
    arguments = parser().parse_args()
    if arguments.run not in (run_hash, run_compare):  # trees are read and compared without the engine
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


def fail(reason: str) -> int:
    print(f"qdrant_volume: {reason}", file=sys.stderr)
    return 1


def run_create(arguments) -> None:
    root = arguments.path
    if root.exists() and any(root.iterdir()):
        raise FixtureError(f"{root} is not empty")
    from qdrant_fixture import engine
    root.mkdir(parents=True, exist_ok=True)
    layout.write_node(root, arguments.seed, arguments.peer)
    result = engine.create(root, arguments.points, arguments.dim, arguments.seed, arguments.peer)
    if not arguments.no_scratch:
        layout.write_scratch(root)
    say(result)


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


def add_seed(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--seed", type=int, default=1, help="the same seed makes the same points (default %(default)s)")


def positive(text: str) -> int:
    value = int(text)
    if value <= 0:
        raise argparse.ArgumentTypeError("must be greater than 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
