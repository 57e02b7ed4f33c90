"""What a node answers from the shards of its volume: every figure is computed by the engine when it is asked."""

import random
import threading
from pathlib import Path

import qdrant_edge as edge

from . import FixtureError, engine, layout, translate
from .translate import BadRequest

ASCENDING = ("Euclid", "Manhattan")  # distances: the smaller, the nearer


class NotFound(Exception):
    """What was asked for does not exist; the text goes into the error's sentence."""


class Unavailable(Exception):
    """A shard that is needed for the answer cannot be read here."""


class Shard:
    """One shard that is open in the engine; its replica may belong to another node's volume."""

    def __init__(self, path: Path, config: dict):
        try:
            self.edge = edge.EdgeShard.load(str(path), engine.edge_config(config))
        except BaseException as error:
            if not _is_of_engine(error):
                raise
            raise FixtureError(f"the engine cannot open {path.parent.name}/{path.name}: {error}") from None
        self.lock = threading.Lock()

    def __call__(self, method: str, *arguments, **options):
        with self.lock:
            try:
                return getattr(self.edge, method)(*arguments, **options)
            except Exception as error:  # the engine's own sentence, such as a wrong vector's
                raise BadRequest(f"Wrong input: {error}")
            except BaseException as error:
                if not _is_of_engine(error):
                    raise
                raise Unavailable(f"Service internal error: {error}")


def _is_of_engine(error: BaseException) -> bool:
    """A panic of the engine is no Exception, and its type has no name that could be imported."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


class Collection:
    """One collection, its shards and what its files say of them."""

    def __init__(self, name: str, directory: Path, others: list[Path], local_only: bool):
        self.name, self.directory = name, directory
        self.config = layout.read_json(directory / "config.json")
        self.schema = layout.read_json(directory / "payload_index.json")["schema"]
        paths = layout.local_shards(directory)
        self.local = {id: Shard(path, self.config) for id, path in paths.items()}
        self.shards = dict(self.local)
        for other in others:
            for id, path in layout.local_shards(other / "collections" / name).items():
                if id not in self.shards:
                    self.shards[id] = Shard(path, self.config)
        count = self.config["params"]["shard_number"]
        self.missing = [] if local_only else [id for id in range(count) if id not in self.shards]

    def readable(self) -> list[Shard]:
        if self.missing:  # as where no replica of a shard answers
            raise Unavailable(f"Service internal error: no replica of shard {self.missing[0]} of {self.name} is here")
        return list(self.shards.values())

    def close(self) -> None:
        for shard in self.shards.values():
            shard.edge.close()

    # --- what it is ---

    def info(self, status: str) -> dict:
        """lib/collection/src/operations/types.rs, `CollectionInfo`."""
        infos = [shard("info") for shard in self.readable()]
        config = {name: value for name, value in self.config.items() if name != "uuid"}
        return {
            "status": status, "optimizer_status": "ok",
            "indexed_vectors_count": sum(info.indexed_vectors_count for info in infos),
            "points_count": sum(info.points_count for info in infos),
            "segments_count": sum(info.segments_count for info in infos),
            "config": config, "payload_schema": self._payload_schema(infos), "update_queue": {"length": 0}}

    def _payload_schema(self, infos: list) -> dict:
        found = {}
        for name in sorted(set().union(*(info.payload_schema for info in infos))):
            fields = [info.payload_schema[name] for info in infos if name in info.payload_schema]
            found[name] = {"data_type": str(fields[0].data_type).rpartition(".")[2].lower(),
                           "points": sum(field.points for field in fields)}
            if isinstance(self.schema.get(name), dict):
                found[name]["params"] = self.schema[name]
        return found

    def cluster(self) -> dict:
        """lib/collection/src/operations/types.rs, `CollectionClusterInfo`."""
        own, local, remote = None, [], []
        for path in sorted(self.directory.glob("[0-9]*"), key=lambda path: int(path.name)):
            state, id = layout.read_json(path / "replica_state.json"), int(path.name)
            own = state["this_peer_id"]
            for peer, replica in state["peers"].items():
                if int(peer) != own:
                    remote.append({"shard_id": id, "peer_id": int(peer), "state": replica})
                elif id in self.local:
                    points = self.local[id]("count", edge.CountRequest(exact=True))
                    local.append({"shard_id": id, "points_count": points, "state": replica})
        transfers = self.directory / "shard_transfers"
        return {"peer_id": own, "shard_count": self.config["params"]["shard_number"], "local_shards": local,
                "remote_shards": remote, "shard_transfers": layout.read_json(transfers) if transfers.exists() else []}

    # --- what is in it ---

    def count(self, body: dict) -> dict:
        translate.only(body, "exact", "filter")
        request = edge.CountRequest(exact=body.get("exact", True), filter=translate.filter_of(body.get("filter")))
        return {"count": sum(shard("count", request) for shard in self.readable())}

    def scroll(self, body: dict) -> dict:
        translate.only(body, "limit", "offset", "filter", "with_payload", "with_vector")
        limit = _limit(body)
        offset = body.get("offset")
        request = edge.ScrollRequest(
            limit=limit + 1, offset=None if offset is None else translate.point_id(offset),
            filter=translate.filter_of(body.get("filter")),
            with_payload=translate.payload_selection(body.get("with_payload", True)),
            with_vector=body.get("with_vector", False))
        found = [record for shard in self.readable() for record in shard("scroll", request)[0]]
        found.sort(key=lambda record: translate.id_order(record.id))
        following = translate.id_json(found[limit].id) if len(found) > limit else None
        return {"points": [translate.record_json(record) for record in found[:limit]], "next_page_offset": following}

    def retrieve(self, body: dict) -> list[dict]:
        translate.only(body, "ids", "with_payload", "with_vector")
        ids = [translate.point_id(id) for id in body.get("ids", [])]
        found = self._records(ids, translate.payload_selection(body.get("with_payload", True)),
                              body.get("with_vector", False))
        return [translate.record_json(record) for record in found]

    def point(self, text: str) -> dict:
        id = translate.point_id(int(text) if text.isdecimal() else text)
        for record in self._records([id], True, True):
            return translate.record_json(record)
        raise NotFound(f"Not found: Point with id {text} does not exists!")

    def _records(self, ids: list, with_payload, with_vector) -> list:
        return [record for shard in self.readable() for record in shard("retrieve", ids, with_payload, with_vector)]

    def query(self, body: dict) -> dict:
        """The nearest points of a vector or of a point; without a query, points in the order of their ids."""
        translate.only(body, "query", "using", "limit", "offset", "params", "filter", "with_payload", "with_vector",
                       "score_threshold")
        query = body.get("query")
        if query is None:
            same = ("limit", "filter", "with_payload", "with_vector")
            page = self.scroll({"with_payload": False} | {name: body[name] for name in same if name in body})
            return {"points": [{"id": point.pop("id"), "version": 0, "score": 0.0} | point
                               for point in page["points"]]}
        if isinstance(query, dict) and "sample" in query:
            return {"points": [translate.hit_json(hit) for hit in self._sample(query, body)]}
        if isinstance(query, dict) and "nearest" in query:
            query = translate.only(query, "nearest")["nearest"]
        return {"points": [translate.hit_json(hit) for hit in self._nearest(query, body)]}

    def _sample(self, query: dict, body: dict) -> list:
        """Points by chance, as many from each shard as its size lets expect."""
        if translate.only(query, "sample")["sample"] != "random":
            raise BadRequest("Format error in JSON body: the only sample is random")
        request = edge.QueryRequest(
            limit=_limit(body), query=edge.Sample.Random, filter=translate.filter_of(body.get("filter")),
            with_payload=translate.payload_selection(body.get("with_payload", False)),
            with_vector=body.get("with_vector", False))
        hits = [hit for shard in self.readable() for hit in shard("query", request)]
        return random.sample(hits, min(_limit(body), len(hits)))

    def _nearest(self, query, body: dict) -> list:
        using, filter = body.get("using") or "", translate.filter_of(body.get("filter"))
        if translate.is_point_id(query):
            id = translate.point_id(query)
            wanted, filter = self._vector_of(id, using), translate.without(filter, id)
        else:
            wanted = translate.vector(query)
        limit, offset = _limit(body), body.get("offset") or 0
        request = edge.QueryRequest(
            limit=limit + offset, query=edge.Query.Nearest(wanted, using), filter=filter,
            params=translate.search_params(body.get("params")), score_threshold=body.get("score_threshold"),
            with_payload=translate.payload_selection(body.get("with_payload", False)),
            with_vector=body.get("with_vector", False))
        hits = [hit for shard in self.readable() for hit in shard("query", request)]
        named = self.config["params"].get("vectors") or {}
        sign = 1 if named.get(using, {}).get("distance") in ASCENDING else -1
        hits.sort(key=lambda hit: sign * hit.score)  # stable: within a shard the engine's order stays
        return hits[offset:offset + limit]

    def _vector_of(self, id, using: str):
        for record in self._records([id], False, [using]):
            value = record.vector
            return value[using] if isinstance(value, dict) else value
        raise NotFound(f"Not found: No point with id {id} found")


def _limit(body: dict) -> int:
    limit = body.get("limit")
    if limit is None:
        return 10
    if not isinstance(limit, int) or limit < 1:
        raise BadRequest(f"Validation error in JSON body: [limit: value {limit} invalid, must be 1 or larger]")
    return limit


# What a server starts with where there is no raft_state.json: it is not part of a cluster.
NO_RAFT = {"this_peer_id": 0, "state": {"hard_state": {"term": 0}}, "peer_metadata_by_id": {}}


class Node:
    """A volume, opened in the engine, and the other volumes from which shards of other nodes are read."""

    def __init__(self, root: Path, others: list[Path], local_only: bool, status: str = "green"):
        self.root, self.status = root, status
        state = root / "raft_state.json"
        self.raft = layout.read_json(state) if state.exists() else NO_RAFT
        self.collections = {}
        for name, directory in layout.collection_directories(root).items():
            self.collections[name] = Collection(name, directory, others, local_only)

    def close(self) -> None:
        for collection in self.collections.values():
            collection.close()

    @property
    def version(self) -> str:
        """Of the server that wrote the volume, as it has told the cluster."""
        own = self.raft["peer_metadata_by_id"].get(str(self.raft["this_peer_id"]), {})
        return own.get("version", layout.SERVER_VERSION)

    def aliases(self, collection: str | None = None) -> dict:
        file = self.root / "aliases" / "data.json"
        pairs = layout.read_json(file) if file.exists() else {}
        return {"aliases": [{"alias_name": alias, "collection_name": name} for alias, name in pairs.items()
                            if collection in (None, name)]}

    def collection(self, name: str) -> Collection:
        """By its name or an alias."""
        aliases = {pair["alias_name"]: pair["collection_name"] for pair in self.aliases()["aliases"]}
        found = self.collections.get(name) or self.collections.get(aliases.get(name))
        if found is None:
            raise NotFound(f"Not found: Collection `{name}` doesn't exist!")
        return found

    def cluster(self, uri: str | None, peers: dict | None) -> dict:
        """lib/storage/src/types.rs, `ClusterStatus`; `uri` and `peers` stand for what a start was told."""
        hard_state, own = self.raft["state"]["hard_state"], self.raft["this_peer_id"]
        if hard_state["term"] == 0:
            return {"status": "disabled"}
        addresses = dict(self.raft["peer_address_by_id"]) if peers is None else dict(peers)
        if uri:
            addresses[str(own)] = uri
        first, last = self.raft["apply_progress_queue"] or (1, 0)
        leader = hard_state["vote"] or None  # whom this node voted for in its term; a running server knows better
        return {
            "status": "enabled", "peer_id": own, "peers": {id: {"uri": address} for id, address in addresses.items()},
            "raft_info": {"term": hard_state["term"], "commit": hard_state["commit"],
                          "pending_operations": max(last + 1 - first, 0), "leader": leader,
                          "role": "Leader" if leader == own else "Follower",
                          "is_voter": own in self.raft["state"]["conf_state"]["voters"]},
            "consensus_thread_status": {"consensus_thread_status": "working", "last_update": layout.now()},
            "message_send_failures": {}}

    def telemetry(self) -> dict:
        return {"id": str(self.raft["this_peer_id"]), "app": {"name": "qdrant", "version": self.version},
                "collections": {"number_of_collections": len(self.collections)}}
