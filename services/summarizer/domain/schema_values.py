"""Stored schemas: their names, versions and lists."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from services.runtime.errors import QuotaViolation, ResourceExhausted

_NAME = re.compile(r"^schemas/([a-z](?:[a-z0-9-]{0,61}[a-z0-9])?)(?:@([1-9][0-9]{0,6}))?$")


@dataclass(frozen=True, slots=True)
class StoredSchema:
    """One version of a schema; it never changes. `digest` is the SHA-256 of its canonical JSON, in hexadecimal."""

    schema_id: str
    version: int
    content: Mapping[str, object]
    digest: str
    create_time: datetime

    @property
    def name(self) -> str:
        """`schemas/{id}@{version}`."""
        return f"schemas/{self.schema_id}@{self.version}"


def parse_name(name: str) -> tuple[str, int]:
    """Id and version of `schemas/{id}` or `schemas/{id}@{version}`; 0 stands for the latest. Raises ValueError."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError("not the name of a schema")
    return match[1], int(match[2] or 0)


def check_room(tenant: str, ids: int, versions: int, *, most_ids: int, most_versions: int) -> None:
    """Raises ResourceExhausted SCHEMAS_FULL where there is no room for another version."""
    if ids >= most_ids or versions >= most_versions:
        what = f"{most_ids:,} schemas" if ids >= most_ids else f"{most_versions:,} versions of a schema"
        raise ResourceExhausted(
            "SCHEMAS_FULL",
            f"There is room for {what}. Delete one that is not used any more.",
            quota=QuotaViolation(f"tenants/{tenant}", f"at most {what}"),
        )
