"""The data directory: everything that one embedded stack keeps, and the lock that makes it one stack."""

import fcntl
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pagemesh_cli.stack.errors import StackError

LAYOUT_VERSION = 1
"""Written into every data directory; raised when an older `pagemesh` could no longer read what a newer one wrote."""


class StackRunning(StackError):
    """Another `pagemesh up` holds the data directory."""


def default_root() -> Path:
    """`PAGEMESH_HOME`, else `~/.pagemesh`."""
    configured = os.environ.get("PAGEMESH_HOME")
    return Path(configured) if configured else Path.home() / ".pagemesh"


@dataclass(frozen=True)
class DataDir:
    """Paths below one data directory. Only its owner may look inside (0700)."""

    root: Path

    @property
    def marker(self) -> Path:
        return self.root / "VERSION"

    @property
    def state_file(self) -> Path:
        """What runs now; removed when the stack stops."""
        return self.root / "state.json"

    @property
    def secrets_file(self) -> Path:
        return self.root / "secrets.json"

    @property
    def admin_file(self) -> Path:
        """The first admin key, for the client verbs on this machine."""
        return self.root / "admin.json"

    @property
    def ca_file(self) -> Path:
        return self.root / "pki" / "ca" / "ca.crt"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def folder(self, name: str) -> Path:
        """A folder of its own for one part, made if absent."""
        path = self.root / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def prepare(self) -> list[str]:
        """Makes the directory or checks that it is one that this version can use; answers what it put right.

        Raises StackError where it is not: a file, somebody else's, full of other things, or of a newer version.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StackError(
                f"Cannot make the data directory {self.root}: {error.strerror}. "
                "Choose another with --data-dir or PAGEMESH_HOME."
            ) from error
        self.check()
        notes = []
        mode = stat.S_IMODE(self.root.stat().st_mode)
        if mode & 0o077:
            self.root.chmod(0o700)
            notes.append(f"{self.root} was open to other users (mode {mode:o}): closed it to 700")
        if not self.marker.exists():
            write_private(self.marker, f"{LAYOUT_VERSION}\n")
        return notes

    def check(self) -> None:
        """Raises StackError where the directory, which must exist, cannot be used by this version."""
        if self.root.stat().st_uid != os.geteuid():
            raise StackError(f"{self.root} belongs to another user. Choose another with --data-dir or PAGEMESH_HOME.")
        if not self.marker.exists():
            if any(self.root.iterdir()):
                raise StackError(
                    f"{self.root} is not empty and not a Pagemesh data directory. "
                    "Choose an empty or a new one with --data-dir or PAGEMESH_HOME."
                )
            return
        text = self.marker.read_text().strip()
        if not text.isdecimal():
            raise StackError(f"{self.marker} is damaged: it should hold a number. Restore it, or start afresh.")
        if int(text) > LAYOUT_VERSION:
            raise StackError(
                f"{self.root} was made by a newer Pagemesh (layout {text}; this one knows {LAYOUT_VERSION}). "
                "Update pagemesh, or choose another directory with --data-dir."
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the directory for one stack; the kernel lets go when the process ends, however it ends.

        Raises StackRunning where another process holds it.
        """
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                told = "`pagemesh status` shows it, `pagemesh down` stops it"
                raise StackRunning(f"A stack is already running on {self.root}: {told}.") from error
            yield
        finally:
            os.close(descriptor)

    def is_locked(self) -> bool:
        try:
            with self.locked():
                return False
        except StackRunning:
            return True

    def free_bytes(self) -> int:
        return shutil.disk_usage(self.root).free


def write_private(path: Path, text: str) -> None:
    """Replaces the file in one step; only its owner may read it."""
    fresh = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def read_json(path: Path) -> dict[str, object]:
    """An object out of one of our own files. Raises StackError where it is not one."""
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise StackError(f"{path} is damaged: {error}.") from error
    if not isinstance(value, dict):
        raise StackError(f"{path} is damaged: it should hold a JSON object.")
    return value
