"""Where the services are: in a checkout of Pagemesh, never in its installed package."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from pagemesh_cli.stack.errors import StackError

SERVICES = ("ledger", "extractor", "summarizer")
WORKER = "worker"
"""The part that does jobs: the summarizer's package in another role."""


def find_checkout(packages: Sequence[Path] | None = None) -> Path:
    """The root of the checkout that `services` is imported from; `packages` are the places of that package.

    Raises StackError where there is none: the published package holds the client and the stubs, not the services.
    """
    if packages is None:
        found = importlib.util.find_spec("services")
        packages = [Path(place) for place in (found.submodule_search_locations or [] if found is not None else [])]
    for package in packages:
        if all((package / name).is_dir() for name in SERVICES):
            return package.parent
    raise StackError(
        "`pagemesh up` needs a checkout of Pagemesh: the services are not part of the installed package. "
        "Clone the repository, run `make setup` and start it there; "
        "or use the client verbs with --url against a stack that runs elsewhere."
    )
