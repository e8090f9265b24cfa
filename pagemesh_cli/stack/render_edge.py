"""Renders the edge's configuration out of the environment, as its container image does.

    python -m pagemesh_cli.stack.render_edge DIRECTORY

Every field of EdgeAddresses, EdgeLimits and EdgeTracing is a variable: PAGEMESH_EDGE_ and its name in capitals. A limit
is written like 10+5/3s: 10 at once, and 5 more every 3 seconds. PAGEMESH_EDGE_ALLOWED_ORIGINS and
PAGEMESH_EDGE_HOSTS are comma lists.
"""

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pagemesh_cli.stack.edge import EdgeAddresses, EdgeLimits, TokenBucket, render
from pagemesh_cli.stack.edge_tracing import EdgeTracing
from pagemesh_cli.stack.errors import StackError

_PATHS = ("tls_dir", "access_log", "admin_socket")


def addresses_from(environment: Mapping[str, str]) -> EdgeAddresses:
    """Raises StackError with all that is missing."""
    given = _given(environment, EdgeAddresses)
    missing = [
        f"PAGEMESH_EDGE_{field.name.upper()}"
        for field in dataclasses.fields(EdgeAddresses)
        if field.default is dataclasses.MISSING and field.name not in given
    ]
    if missing:
        raise StackError(f"Not set: {', '.join(missing)}.")
    values: dict[str, Any] = {name: Path(text) if name in _PATHS else text for name, text in given.items()}
    return EdgeAddresses(**values)


def limits_from(environment: Mapping[str, str]) -> EdgeLimits:
    """Raises StackError where a limit cannot be read."""
    values: dict[str, Any] = {}
    for name, text in _given(environment, EdgeLimits).items():
        if isinstance(getattr(EdgeLimits(), name), TokenBucket):
            values[name] = TokenBucket.parse(text)
        elif text.isdecimal():
            values[name] = int(text)
        else:
            raise StackError(f"PAGEMESH_EDGE_{name.upper()} is not a whole number.")
    return EdgeLimits(**values)


def _given(environment: Mapping[str, str], what: type) -> dict[str, str]:
    names = [field.name for field in dataclasses.fields(what)]
    return {n: environment[key] for n in names if environment.get(key := f"PAGEMESH_EDGE_{n.upper()}")}


def _listed(name: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in os.environ.get(name, "").split(",") if part.strip())


def main(arguments: Sequence[str]) -> int:
    """Renders into the directory that is named; answers the exit code."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        config = render(
            Path(arguments[0]),
            addresses=addresses_from(os.environ),
            limits=limits_from(os.environ),
            tracing=EdgeTracing.of_environment(os.environ, "PAGEMESH_EDGE_"),
            allowed_origins=_listed("PAGEMESH_EDGE_ALLOWED_ORIGINS"),
            hosts=_listed("PAGEMESH_EDGE_HOSTS"),
        )
    except StackError as error:
        print(error, file=sys.stderr)
        return 2
    print(config)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
