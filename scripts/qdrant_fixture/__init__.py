"""What `scripts/qdrant_volume.py` is made of.

`manifest`, `layout`, `raft_log` and `environment` need the standard library only; `points` and
`engine` need `qdrant_edge` and are imported after `environment.enter()`.
"""


class FixtureError(Exception):
    """A failure whose text is all the caller has to see."""
