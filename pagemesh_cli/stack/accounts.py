"""Which user a server that refuses to be root runs as, and what that user can reach."""

import os
import pwd
import stat
from pathlib import Path

from pagemesh_cli.stack.errors import StackError
from pagemesh_cli.stack.process import Account

# The first one that exists: PostgreSQL's own, else the one that owns nothing.
_UNPRIVILEGED = ("postgres", "nobody")


def unprivileged_account(directory: Path) -> Account | None:
    """Whom to run as so as not to be root; None where we are not root anyway.

    The owner of `directory`, where it exists, so that a cluster stays with the user that made it.
    """
    if os.geteuid() != 0:
        return None
    if directory.exists() and (owner := directory.stat()).st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    for name in _UNPRIVILEGED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise StackError(
        "PostgreSQL does not run as root, and there is no user `postgres` or `nobody` to run it as. "
        "Start pagemesh as an ordinary user."
    )


def can_reach(path: Path, account: Account) -> bool:
    """True where the account may search every directory above `path`."""
    return all(_may_search(parent, account) for parent in path.resolve().parents)


def _may_search(directory: Path, account: Account) -> bool:
    entry = directory.stat()
    if entry.st_uid == account.uid:
        return bool(entry.st_mode & stat.S_IXUSR)
    if entry.st_gid == account.gid:
        return bool(entry.st_mode & stat.S_IXGRP)
    return bool(entry.st_mode & stat.S_IXOTH)
