"""Logs of the stack's processes, kept from growing without end."""

import os
import shutil
from pathlib import Path

LARGEST_LOG_BYTES = 32 * 1024 * 1024


def rotate_logs(directory: Path, *, largest_bytes: int = LARGEST_LOG_BYTES) -> list[Path]:
    """Turns over every log above `largest_bytes`: it becomes `<name>.log.1`, the one before is dropped.

    The file is copied and emptied, not renamed, because its process goes on writing into it; all of them append, so
    they continue at its new end. Lines that are written between the copy and the cut are lost. Answers what was turned.
    """
    turned = []
    for log in sorted(directory.glob("*.log")):
        if log.stat().st_size > largest_bytes:
            before = log.with_name(f"{log.name}.1")
            shutil.copyfile(log, before)
            before.chmod(0o600)
            os.truncate(log, 0)
            turned.append(log)
    return turned
