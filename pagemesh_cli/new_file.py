"""Files that the command makes: each is there whole or not at all, and what was there is not lost by mistake."""

import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from pagemesh_cli.failures import ExitCode, Failure

_PARTIAL = ".partial"


class NewFile:
    """A file in the making, beside the place that it will have. Every method raises Failure where it cannot be written.

    What is there already and is no regular file, such as a pipe or a device, is written to as it stands.
    """

    def __init__(self, path: Path, *, force: bool) -> None:
        """Raises Failure FILE_EXISTS where something is there, unless `force`."""
        self.path = path
        self.written_bytes = 0
        self._force = force
        # A link stays a link: what it leads to is replaced.
        self._goal = Path(os.path.realpath(path))
        self._in_place = _is_written_in_place(self._goal)
        refuse_to_replace([path], force=force)
        self._draft = self._goal if self._in_place else self._goal.with_name(f".{secrets.token_hex(8)}.tmp")
        flags = os.O_WRONLY if self._in_place else os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            self._file = os.fdopen(os.open(self._draft, flags, 0o666), "wb")
        except OSError as error:
            raise unwritable(path, error) from error

    def write(self, data: bytes) -> None:
        """Appends, seen by others at once: somebody may read a pipe as it fills."""
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise unwritable(self.path, error) from error
        self.written_bytes += len(data)

    def close_to_others(self) -> None:
        """Lets nobody else read it: for secrets, before they are written."""
        if not self._in_place:
            os.fchmod(self._file.fileno(), 0o600)

    def commit(self) -> None:
        """Puts the file into its place."""
        try:
            self._file.close()
            if self._in_place:
                return
            if self._force:
                self._draft.replace(self._goal)
                return
            try:
                # Unlike a renaming, this replaces nothing that came there meanwhile.
                os.link(self._draft, self._goal)
                self._draft.unlink()
            except FileExistsError as error:
                raise _exists(self.path) from error
            except OSError:  # a file system without links
                refuse_to_replace([self.path], force=False)
                self._draft.rename(self._goal)
        except OSError as error:
            raise unwritable(self.path, error) from error
        finally:
            self._drop()

    def keep_partial(self) -> Path | None:
        """Leaves what was written as `NAME.partial` and answers that path; None where nothing was."""
        try:
            self._file.close()
            if self._in_place or not self.written_bytes:
                return None
            partial = self._goal.with_name(self._goal.name + _PARTIAL)
            self._draft.replace(partial)
        except OSError as error:
            raise unwritable(self.path, error) from error
        finally:
            self._drop()
        return self.path.with_name(partial.name)

    def abandon(self) -> None:
        """Leaves nothing."""
        try:
            self._file.close()
        except OSError:
            pass  # the disk is full, and what did not fit is not wanted any more
        finally:
            self._drop()

    def _drop(self) -> None:
        if not self._in_place:
            self._draft.unlink(missing_ok=True)


def write_whole(path: Path, pieces: Iterable[bytes], *, force: bool) -> NewFile:
    """Writes the whole file, or none; what they raise goes on. Raises Failure."""
    file = NewFile(path, force=force)
    try:
        for piece in pieces:
            file.write(piece)
    except BaseException:  # Ctrl-C too: half a file must not stay behind
        file.abandon()
        raise
    file.commit()
    return file


def refuse_to_replace(paths: list[Path], *, force: bool) -> None:
    """Raises Failure FILE_EXISTS where one of the paths is taken, unless `force`, and where it is a folder."""
    for path in paths:
        if path.is_dir():
            raise Failure(f"{path} is a folder.", ExitCode.USAGE, "CANNOT_WRITE")
        if not force and os.path.lexists(path) and not _is_written_in_place(path):
            raise _exists(path)


def refuse_without_folder(path: Path) -> None:
    """Raises Failure CANNOT_WRITE where the folder of the file is not there."""
    if not path.absolute().parent.is_dir():
        raise Failure(
            f"Cannot write {path}: there is no folder {path.parent}.",
            ExitCode.FAILED,
            "CANNOT_WRITE",
            advice="Make it first; a name that ends with / is a folder, which is made.",
        )


def make_folder(path: Path) -> None:
    """Makes the folder and those above it where they are missing. Raises Failure."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> Failure:
    """A file that was named and cannot be written."""
    return Failure(f"Cannot write {path}: {error.strerror}.", ExitCode.FAILED, "CANNOT_WRITE")


def _is_written_in_place(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


def _exists(path: Path) -> Failure:
    return Failure(f"{path} is there already.", ExitCode.USAGE, "FILE_EXISTS", advice="--force replaces it.")
