"""One command of a service's `python -m`, from an event loop to an exit code."""

import gc
import sys
from collections.abc import Coroutine

import uvloop

from services.runtime.config import EX_CONFIG, WrongSettingError
from services.runtime.errors import PagemeshError
from services.telemetry import start as telemetry

_COLLECT_AFTER = (5_000, 20, 20)
"""Objects, and rounds, between two collections. By Python's own numbers a service would look a dozen times a second at
all that it has loaded."""


def run(command: Coroutine[None, None, None], *, name: str) -> int:
    """Runs it on an event loop. Errors that are ours are told in one line on stderr: 1, or 78 for a wrong setting."""
    code = 0
    gc.collect()
    # What is loaded by now stays, and need not be looked at again.
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
    try:
        uvloop.run(command)
    except* (PagemeshError, OSError) as failed:
        code = 1
        for error in failed.exceptions:
            print(f"{name}: {error}", file=sys.stderr)
    except* WrongSettingError as wrong:
        code = EX_CONFIG
        for fault in wrong.exceptions:
            print(f"The configuration has 1 fault(s):\n  {fault}", file=sys.stderr)
    finally:
        telemetry.close()
    return code
