"""What `scripts/qdrant_volume.py` and `scripts/boot-edge` are made of.

`manifest`, `layout`, `raft_log`, `traps` and `environment` need the standard library only; `points`,
`engine`, `translate`, `node` and `serving` need `qdrant_edge` and are imported after `environment.enter()`.
"""


class FixtureError(Exception):
    """A failure whose text is all the caller has to see."""
