"""Turns the JSON of Qdrant's REST into the engine's types and the engine's records into JSON."""

import struct
import uuid

import qdrant_edge as edge


class BadRequest(Exception):
    """What a client sent cannot be answered; the text goes into the error's sentence."""


def only(body: dict, *known: str) -> dict:
    """Refuses what would otherwise be ignored in silence, such as `order_by`."""
    if not isinstance(body, dict):
        raise BadRequest("Format error in JSON body: an object is expected")
    for name in body:
        if name not in known:
            raise BadRequest(f"Format error in JSON body: {name!r} is not supported by this stand-in")
    return body


# --- from JSON ----------------------------------------------------------------------------------------

def point_id(value):
    """An unsigned 64-bit integer or a UUID."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64:
        return value
    try:
        return str(uuid.UUID(value))
    except (ValueError, TypeError, AttributeError):
        raise BadRequest(f"Format error in JSON body: value {value!r} is not a valid point ID, valid values are "
                         "either an unsigned integer or a UUID")


def is_point_id(value) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def payload_selection(value):
    if isinstance(value, dict):
        if "include" in only(value, "include", "exclude"):
            return edge.PayloadSelector.Include(value["include"])
        return edge.PayloadSelector.Exclude(value["exclude"])
    return value


def vector(value):
    """A dense, multi or sparse vector."""
    if isinstance(value, dict):
        only(value, "indices", "values")
        return edge.SparseVector(value["indices"], value["values"])
    if isinstance(value, list) and value:
        return value
    raise BadRequest("Format error in JSON body: a vector is expected")


def search_params(value: dict | None):
    only(value or {}, "exact", "hnsw_ef", "quantization", "indexed_only")
    options = dict(value or {})
    if quantization := options.pop("quantization", None):
        only(quantization, "ignore", "rescore", "oversampling")
        options["quantization"] = edge.QuantizationSearchParams(**quantization)
    return edge.SearchParams(**options)


def filter_of(value: dict | None):
    if value is None:
        return None
    only(value, "must", "should", "must_not", "min_should")
    clauses = {name: _conditions(value[name]) for name in ("must", "should", "must_not") if value.get(name) is not None}
    if minimum := value.get("min_should"):
        clauses["min_should"] = edge.MinShould(_conditions(minimum["conditions"]), minimum["min_count"])
    return edge.Filter(**clauses)


def without(filter, id):
    """The filter, and not the point itself: a query by id leaves its point out."""
    itself = edge.HasIdCondition({id})
    return edge.Filter(must=[filter] if filter else None, must_not=[itself])


def _conditions(value) -> list:
    return [_condition(item) for item in (value if isinstance(value, list) else [value])]


def _condition(value: dict):
    if "key" in value:
        return _field(value)
    if "has_id" in value:
        return edge.HasIdCondition({point_id(id) for id in value["has_id"]})
    if "has_vector" in value:
        return edge.HasVectorCondition(value["has_vector"])
    if "is_empty" in value:
        return edge.IsEmptyCondition(value["is_empty"]["key"])
    if "is_null" in value:
        return edge.IsNullCondition(value["is_null"]["key"])
    if "nested" in value:
        return edge.NestedCondition(value["nested"]["key"], filter_of(value["nested"]["filter"]))
    return filter_of(value)


def _field(value: dict):
    only(value, "key", "match", "range", "values_count", "is_empty", "is_null", "geo_radius", "geo_bounding_box")
    options = {name: value[name] for name in ("key", "is_empty", "is_null") if name in value}
    if "match" in value:
        options["match"] = _match(value["match"])
    if "range" in value:
        texts = any(isinstance(bound, str) for bound in value["range"].values())
        options["range"] = (edge.RangeDateTime if texts else edge.RangeFloat)(**only(value["range"], *BOUNDS))
    if "values_count" in value:
        options["values_count"] = edge.ValuesCount(**only(value["values_count"], *BOUNDS))
    if "geo_radius" in value:
        circle = value["geo_radius"]
        options["geo_radius"] = edge.GeoRadius(_place(circle["center"]), circle["radius"])
    if "geo_bounding_box" in value:
        box = value["geo_bounding_box"]
        options["geo_bounding_box"] = edge.GeoBoundingBox(_place(box["top_left"]), _place(box["bottom_right"]))
    return edge.FieldCondition(**options)


BOUNDS = ("gt", "gte", "lt", "lte")
MATCHES = {"value": edge.MatchValue, "text": edge.MatchText, "any": edge.MatchAny, "except": edge.MatchExcept,
           "phrase": edge.MatchPhrase, "text_any": edge.MatchTextAny}


def _match(value: dict):
    ((kind, wanted),) = only(value, *MATCHES).items()
    return MATCHES[kind](wanted)


def _place(value: dict):
    return edge.GeoPoint(value["lon"], value["lat"])


# --- to JSON ------------------------------------------------------------------------------------------

def id_json(id):
    return id if isinstance(id, int) else str(id)


def id_order(id) -> tuple:
    """Numbers first, then UUIDs, as the engine sorts them."""
    return (0, id) if isinstance(id, int) else (1, uuid.UUID(str(id)).int)


def record_json(record) -> dict:
    shown = {"id": id_json(record.id)}
    if record.payload is not None:
        shown["payload"] = record.payload
    if record.vector is not None:
        shown["vector"] = vectors_json(record.vector)
    return shown


def hit_json(hit) -> dict:
    shown = record_json(hit)
    return {"id": shown.pop("id"), "version": hit.version, "score": shortest(hit.score)} | shown


def vectors_json(value):
    """One unnamed vector by itself, named ones by their names."""
    if isinstance(value, dict):
        return {name: _vector_json(one) for name, one in value.items()}
    return _vector_json(value)


def _vector_json(value):
    if isinstance(value, edge.SparseVector):
        return {"indices": list(value.indices), "values": [shortest(number) for number in value.values]}
    if value and isinstance(value[0], list):
        return [_vector_json(row) for row in value]
    return [shortest(number) for number in value]


def shortest(number: float) -> float:
    """The float32 with as few digits as tell it from its neighbours, as a server prints it."""
    for digits in (7, 8):
        short = float(f"{number:.{digits}g}")
        if _float32(short) == number:
            return short
    return float(f"{number:.9g}")


def _float32(number: float) -> float:
    return struct.unpack("<f", struct.pack("<f", number))[0]
