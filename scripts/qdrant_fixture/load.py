"""Keeps a volume busy, and says on stdout what the engine has acknowledged."""

import json
import random
import signal
import time
from pathlib import Path

from . import engine

# How often each operation comes, out of 20.
MIX = ["upsert"] * 9 + ["overwrite"] * 6 + ["payload"] * 3 + ["delete"] * 2


class Load:
    """The live points of one collection and the next thing to do to them."""

    def __init__(self, collection: engine.Collection, rng: random.Random, batch: int, limit: float):
        self.collection, self.rng, self.batch, self.limit = collection, rng, batch, limit
        self.live = collection.inventory()
        self.next_ordinal = max(self.live, default=0) + 1

    def step(self) -> dict:
        """Runs one batch; what it returns is acknowledged, because the engine has returned."""
        operation = self.rng.choice(MIX) if len(self.live) > self.batch else "upsert"
        if operation == "upsert" and self.batch < len(self.live) > self.limit - self.batch:
            operation = "delete"
        done = getattr(self, "_" + operation)()
        return {"collection": self.collection.name, "operation": operation} | done | {"points": len(self.live)}

    def _upsert(self) -> dict:
        items = [(self.next_ordinal + offset, 1) for offset in range(self.batch)]
        self.next_ordinal += self.batch
        return self._write(items)

    def _overwrite(self) -> dict:
        return self._write([(ordinal, self.live[ordinal] + 1) for ordinal in self._pick()])

    def _write(self, items: list) -> dict:
        self.collection.upsert(items)
        self.live.update(items)
        return {"items": items}

    def _payload(self) -> dict:
        chosen, note = self._pick(), f"{self.rng.getrandbits(32):08x}"
        self.collection.set_payload(chosen, {"note": note})
        return {"items": [(ordinal, self.live[ordinal]) for ordinal in chosen], "note": note}

    def _delete(self) -> dict:
        chosen = self._pick()
        self.collection.delete(chosen)
        return {"items": [(ordinal, self.live.pop(ordinal)) for ordinal in chosen]}

    def _pick(self) -> list[int]:
        return self.rng.sample(sorted(self.live), self.batch)


def run(root: Path, seconds: float, seed: int, batch: int, flush_every: int, optimize_every: int,
        max_points: int = 0) -> None:
    stopped = _stop_on_signals()
    deadline = time.monotonic() + seconds if seconds else float("inf")
    with engine.open_collections(root, seed) as collections:
        rng = random.Random(f"{seed}/load")
        limits = [max_points or float("inf")] + [max_points // 10 or float("inf")] * (len(collections) - 1)
        loads = [Load(collection, rng, batch, limit) for collection, limit in zip(collections, limits)]
        number = 0
        while not stopped and time.monotonic() < deadline:
            number += 1
            _say({"batch": number} | loads[0 if rng.random() < 0.8 else -1].step())
            if number % flush_every == 0:
                for collection in collections:
                    collection.flush()
                _say({"batch": number, "operation": "flush"})
            if optimize_every and number % optimize_every == 0:
                for collection in collections:
                    collection.optimize()
                _say({"batch": number, "operation": "optimize"})
    _say({"batch": number, "operation": "stop", "reason": "signal" if stopped else "time"})


def _say(line: dict) -> None:
    print(json.dumps(line, separators=(",", ":")), flush=True)


def _stop_on_signals() -> list[int]:
    """SIGTERM and SIGINT end the loop after the batch under way, so that the volume is closed well."""
    caught: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: caught.append(received))
    return caught
