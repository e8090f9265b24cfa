"""The data directory: made private, refused where it is not ours, held by one stack."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pagemesh_cli.stack.credentials import (
    AdminKey,
    ensure_credentials,
    load_admin_key,
    load_credentials,
    store_admin_key,
)
from pagemesh_cli.stack.errors import StackError
from pagemesh_cli.stack.layout import LAYOUT_VERSION, DataDir, StackRunning, default_root
from pagemesh_cli.stack.logs import rotate_logs


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    made = DataDir(tmp_path / "deep" / "data")
    assert made.prepare() == []
    return made


def test_is_private_and_marked(data: DataDir) -> None:
    assert data.root.stat().st_mode & 0o777 == 0o700
    assert data.marker.read_text() == f"{LAYOUT_VERSION}\n"
    assert data.prepare() == [], "a second look must find nothing to do"


def test_is_closed_to_others_again(data: DataDir) -> None:
    data.root.chmod(0o755)
    assert data.prepare() == [f"{data.root} was open to other users (mode 755): closed it to 700"]
    assert data.root.stat().st_mode & 0o777 == 0o700


def test_refuses_what_a_newer_version_made(data: DataDir) -> None:
    data.marker.write_text(f"{LAYOUT_VERSION + 1}\n")
    with pytest.raises(StackError, match="newer Pagemesh"):
        data.prepare()


def test_refuses_a_damaged_marker(data: DataDir) -> None:
    data.marker.write_text("one\n")
    with pytest.raises(StackError, match="damaged"):
        data.prepare()


def test_refuses_a_directory_with_other_things(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StackError, match="not empty"):
        DataDir(tmp_path).prepare()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_refuses_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match="Cannot make the data directory"):
        DataDir(tmp_path / "file").prepare()


def test_one_stack_at_a_time_until_the_holder_is_gone(data: DataDir) -> None:
    code = f"""
from pathlib import Path
from pagemesh_cli.stack.layout import DataDir
with DataDir(Path({str(data.root)!r})).locked():
    print("held", flush=True)
    input()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert data.is_locked()
        with pytest.raises(StackRunning), data.locked():
            pass
        holder.kill()
    assert not data.is_locked(), "a killed holder must not keep the directory"


def test_home_is_configurable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PAGEMESH_HOME", str(tmp_path))
    assert default_root() == tmp_path
    monkeypatch.setenv("PAGEMESH_HOME", "")
    assert default_root() == Path.home() / ".pagemesh"


def test_credentials_are_made_once_kept_private_and_not_shown(data: DataDir) -> None:
    made = ensure_credentials(data)
    assert ensure_credentials(data) == made
    assert data.secrets_file.stat().st_mode & 0o777 == 0o600
    assert len({*made.role_passwords().values(), made.postgres_superuser, made.valkey_password, made.key_pepper}) == 6
    assert made.key_pepper not in repr(made)


def test_a_lost_credential_is_not_made_anew(data: DataDir) -> None:
    """A new pepper would end every key, and a new password would lock us out of our own database."""
    ensure_credentials(data)
    values = json.loads(data.secrets_file.read_text())
    del values["key_pepper"]
    data.secrets_file.write_text(json.dumps(values))
    with pytest.raises(StackError, match="lacks key_pepper"):
        load_credentials(data)


def test_the_admin_key_is_private(data: DataDir) -> None:
    assert load_admin_key(data) is None
    key = AdminKey("local", "apiKeys/0000000000000000", "pm_secret")
    store_admin_key(data, key)
    assert load_admin_key(data) == key
    assert data.admin_file.stat().st_mode & 0o777 == 0o600
    assert "pm_secret" not in repr(key)


def test_a_large_log_is_turned_over_under_its_writer(tmp_path: Path) -> None:
    log, small = tmp_path / "a.log", tmp_path / "b.log"
    small.write_text("small")
    with log.open("a") as writer:
        writer.write("x" * 100)
        writer.flush()
        assert rotate_logs(tmp_path, largest_bytes=99) == [log]
        writer.write("after")
    assert log.read_text() == "after"
    assert log.with_name("a.log.1").read_text() == "x" * 100
    assert small.read_text() == "small"
