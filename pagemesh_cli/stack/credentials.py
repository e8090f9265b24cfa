"""The secrets of one embedded stack: made once, kept 0600 in its data directory, passed on by environment only."""

import json
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields

from pagemesh_cli.stack.errors import StackError
from pagemesh_cli.stack.layout import DataDir, read_json, write_private


@dataclass(frozen=True)
class Credentials:
    """Letters and digits only, so that they need no quoting anywhere; never shown by repr."""

    postgres_superuser: str = field(repr=False)
    extractor_password: str = field(repr=False)
    summarizer_password: str = field(repr=False)
    ledger_password: str = field(repr=False)
    valkey_password: str = field(repr=False)
    key_pepper: str = field(repr=False)

    def role_passwords(self) -> dict[str, str]:
        """The password of each service's database role, by service."""
        return {
            "extractor": self.extractor_password,
            "summarizer": self.summarizer_password,
            "ledger": self.ledger_password,
        }


def load_credentials(data: DataDir) -> Credentials:
    """Reads them. Raises StackError where the file is damaged or lacks one."""
    values = read_json(data.secrets_file)
    names = [item.name for item in fields(Credentials)]
    missing = [name for name in names if not isinstance(values.get(name), str)]
    if missing:
        raise StackError(f"{data.secrets_file} lacks {', '.join(missing)}. Restore it from a backup of the directory.")
    return Credentials(**{name: str(values[name]) for name in names})


def ensure_credentials(data: DataDir, *, make: Callable[[], str] = lambda: secrets.token_hex(32)) -> Credentials:
    """Reads them, or makes them the first time."""
    if not data.secrets_file.exists():
        made = Credentials(**{item.name: make() for item in fields(Credentials)})
        write_private(data.secrets_file, json.dumps(asdict(made), indent=2) + "\n")
    return load_credentials(data)


@dataclass(frozen=True)
class AdminKey:
    """The first key of the stack's own tenant, with every scope."""

    tenant: str
    api_key: str
    secret: str = field(repr=False)


def load_admin_key(data: DataDir) -> AdminKey | None:
    """None where none was made yet."""
    if not data.admin_file.exists():
        return None
    values = read_json(data.admin_file)
    return AdminKey(str(values["tenant"]), str(values["api_key"]), str(values["secret"]))


def store_admin_key(data: DataDir, key: AdminKey) -> None:
    write_private(data.admin_file, json.dumps(asdict(key), indent=2) + "\n")
