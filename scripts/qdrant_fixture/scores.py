"""Scores by definition, in plain Python: what the engine's exact search has to agree with."""

import math


def nearest(query, candidates: list[dict], vector: str, params: dict) -> list[tuple]:
    """(id, score) of all candidates with the vector, best first; sparse ones only where they share a dimension."""
    if isinstance(query, dict):
        scored = [(point["id"], _sparse(query, point["vector"][vector])) for point in candidates]
        return sorted((pair for pair in scored if pair[1] > 0), key=lambda pair: -pair[1])
    spec = params["vectors"][vector]
    score = SCORES[spec["distance"]]
    if spec.get("multivector_config"):
        scored = [(point["id"], _max_sim(score, query, point["vector"][vector])) for point in candidates]
    else:
        scored = [(point["id"], score(query, point["vector"][vector])) for point in candidates]
    return sorted(scored, key=lambda pair: pair[1] if spec["distance"] == "Euclid" else -pair[1])


def _dot(one, other) -> float:
    return sum(a * b for a, b in zip(one, other))


def _cosine(one, other) -> float:
    return _dot(one, other) / math.sqrt(_dot(one, one) * _dot(other, other))


SCORES = {"Dot": _dot, "Cosine": _cosine, "Euclid": math.dist}


def _max_sim(score, query, rows) -> float:
    return sum(max(score(part, row) for row in rows) for part in query)


def _sparse(one: dict, other: dict) -> float:
    values = dict(zip(other["indices"], other["values"]))
    return sum(value * values.get(index, 0.0) for index, value in zip(one["indices"], one["values"]))
