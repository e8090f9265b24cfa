"""Settings from the caller's environment: which nobody knows, and which a service refused."""

import difflib
import importlib
from collections.abc import Collection, Mapping, Sequence

from pagemesh_cli.stack.checkout import SERVICES
from pagemesh_cli.stack.process import Process, wait_until

PREFIX = "PAGEMESH_"
CLIENT_SETTINGS = frozenset(
    {
        "PAGEMESH_HOME",
        "PAGEMESH_URL",
        "PAGEMESH_API_KEY",
        "PAGEMESH_CA_FILE",
        "PAGEMESH_SIGNING_KEY_FILE",
        "PAGEMESH_CORPUS",
    }
)
"""Meant for the command itself and for tests; a service has no business with them."""
EX_CONFIG = 78
"""How a service ends that refuses its settings (sysexits.h)."""
# Services that were started together read their settings at the same time.
_OTHERS_TIMEOUT_S = 3.0


def unknown_settings(environment: Mapping[str, str]) -> list[str]:
    """A sentence for each variable that looks like a setting and is none, with the one that may have been meant."""
    given = {name for name in environment if name.startswith(PREFIX)} - CLIENT_SETTINGS
    if not given:
        return []  # most often; and the services' own classes take a while to import
    known = _known_settings()
    return [_unknown(name, known) for name in sorted(given - known)]


def refusal(processes: Sequence[Process]) -> str | None:
    """What the processes refuse of their settings, each fault once with all who told it; None where none does."""
    if not any(process.exit_code() == EX_CONFIG for process in processes):
        return None
    wait_until(lambda: all(p.exit_code() is not None for p in processes), timeout_s=_OTHERS_TIMEOUT_S)
    told: dict[str, list[str]] = {}
    for process in processes:
        if process.exit_code() == EX_CONFIG:
            for line in process.log_written().splitlines():
                if line.startswith(f"  {PREFIX}"):
                    told.setdefault(line.strip(), []).append(process.spec.name)
    if not told:
        return None
    faults = "".join(f"\n    {fault} ({', '.join(names)})" for fault, names in told.items())
    return f"Settings are refused:{faults}"


def _known_settings() -> frozenset[str]:
    names: set[str] = set()
    for service in SERVICES:
        module = importlib.import_module(f"services.{service}.config")
        for value in vars(module).values():
            names.update(getattr(value, "model_fields", ()))
    return frozenset(PREFIX + name.upper() for name in names) | CLIENT_SETTINGS


def _unknown(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name.removeprefix(PREFIX), [item.removeprefix(PREFIX) for item in known], n=1)
    hint = f"; did you mean {PREFIX}{close[0]}?" if close else "; it has no effect."
    return f"{name} is no setting{hint}"
