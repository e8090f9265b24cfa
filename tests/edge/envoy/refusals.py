"""Requests with JSON bodies, and what the edge says of names that are wrong."""

from tests.edge.envoy.edge import KEY, Answer
from tests.edge.envoy.upstreams import DOCUMENT

JSON = {**KEY, "content-type": "application/json"}
SUMMARIZE = f"/v1/{DOCUMENT}:summarize"
REFUSED = {"UNKNOWN_FIELD", "DUPLICATE_FIELD"}


def violations(answer: Answer) -> list[tuple[str, str]]:
    assert answer.status == 400, answer
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["code"] == 3
    assert [detail["@type"].rpartition(".")[2] for detail in answer.json["details"]] == ["ErrorInfo", "BadRequest"]
    found = [(v["field"], v["description"]) for v in answer.json["details"][1]["fieldViolations"]]
    assert answer.json["message"] == f"{found[0][0]}: {found[0][1]}"
    return found


def is_refused(answer: Answer) -> bool:
    details = answer.json.get("details") or [{}]
    return answer.status == 400 and details[0].get("reason") in REFUSED
