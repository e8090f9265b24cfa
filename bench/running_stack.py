"""A stack of its own for a benchmark: the whole of it, in a temporary folder, on free ports, without rate limits."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunningStack:
    """Where it is and how to get in."""

    root: Path
    ports: dict[str, int]
    key: str

    @property
    def ca_file(self) -> Path:
        return self.root / "pki" / "ca" / "ca.crt"

    def tls_dir(self, identity: str) -> Path:
        return self.root / "pki" / "tls" / identity


@contextlib.contextmanager
def running_stack(settings: Mapping[str, str] | None = None) -> Iterator[RunningStack]:
    """Up, with these settings besides those of the environment, and down again whatever happens."""
    with tempfile.TemporaryDirectory(prefix="pagemesh-bench-") as directory:
        root = Path(directory) / "stack"
        options = ["--data-dir", str(root)]
        command = [sys.executable, "-m", "pagemesh_cli"]
        subprocess.run(
            [*command, "up", "--detach", "--port", "0", "--no-rate-limits", *options],
            check=True,
            env={**os.environ, **(settings or {})},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=180,
        )
        try:
            state = json.loads((root / "state.json").read_text())
            key = json.loads((root / "admin.json").read_text())["secret"]
            yield RunningStack(root, state["ports"], key)
        finally:
            subprocess.run([*command, "down", *options], check=True, stderr=subprocess.DEVNULL, timeout=180)
