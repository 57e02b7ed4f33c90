"""Shows a copy of a restored volume to the engine, in a process that may crash or hang."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from . import processes

OBSERVER = Path(__file__).resolve().with_name("observe.py")
OPEN_SECONDS = 120


class Broken(Exception):
    """The engine does not open or read the volume; the text is what it said."""


def observe(volume: Path, scratch: Path, seed: int) -> dict:
    """What `observe.py` finds in a copy of a volume, which itself stays as it is."""
    scratch.mkdir()
    try:
        subprocess.run(["cp", "-a", "--sparse=always", "--reflink=auto", str(volume / "collections"), str(scratch)],
                       check=True)
        done = processes.run([sys.executable, OBSERVER, scratch, "--seed", seed], OPEN_SECONDS)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if done.status != 0 or done.timed_out:
        raise Broken(done.reason())
    return json.loads(done.output)
