"""Databases of the session's PostgreSQL: made once from a migrated template, emptied and used again after that."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import sql

from pagemesh_cli.stack.postgres import SUPERUSER, PostgresServer

_ROOT = Path(__file__).parent.parent
_KEPT = 8
"""Empty databases of each service that wait for their next test."""

# All that a schema, its rights, its settings and its statistics are written down in. Whatever changes one of them
# leaves another count, or a row of a later transaction.
_CATALOGS = (
    "pg_attrdef",
    "pg_attribute",
    "pg_class",
    "pg_constraint",
    "pg_default_acl",
    "pg_description",
    "pg_event_trigger",
    "pg_extension",
    "pg_index",
    "pg_inherits",
    "pg_namespace",
    "pg_opclass",
    "pg_partitioned_table",
    "pg_policy",
    "pg_proc",
    "pg_publication",
    "pg_rewrite",
    "pg_sequence",
    "pg_statistic",
    "pg_statistic_ext",
    "pg_trigger",
    "pg_ts_config",
    "pg_type",
)
_OWN: LiteralString = "(SELECT oid FROM pg_database WHERE datname = current_database())"
_USER_RELATIONS: LiteralString = (
    "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname NOT LIKE 'pg\\_%%' AND n.nspname <> 'information_schema' "
)


@dataclass(frozen=True)
class _Template:
    """What a database starts with."""

    rows: dict[str, bytes]
    """What migrations wrote, by table, as COPY has it."""
    sizes: list[tuple[int, int, float]]
    """How large the planner takes each table and index for: oid, pages, rows. Copies have the same oids."""


@dataclass(frozen=True)
class _Made:
    """A database from a template, and the mark of its schema as the template has it."""

    service: str
    mark: str


@dataclass
class Databases:
    """A real PostgreSQL, with one migrated template for each service that a test asked for."""

    server: PostgresServer
    superuser_password: str
    passwords: dict[str, str]
    _templates: dict[str, _Template] = field(default_factory=dict)
    _made: dict[str, _Made] = field(default_factory=dict)
    _free: dict[str, list[str]] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def superuser_dsn(self) -> str:
        return self.server.dsn(SUPERUSER, self.superuser_password, database="postgres")

    def dsn(self, service: str, database: str) -> str:
        """The data source that the service itself would use: its own role, which owns its own schema."""
        return self.server.dsn(service, self.passwords[service], database=database)

    def create_empty(self) -> str:
        """A new database with the roles and schemas of all services and no tables; answers its name."""
        name = f"t{next(self._numbers)}"
        self.server.execute(f"CREATE DATABASE {name} TEMPLATE with_roles")
        return name

    def create(self, service: str) -> str:
        """A database with the service's tables and nothing in them but what migrations wrote; answers its name."""
        if free := self._free.get(service):
            return free.pop()
        self._prepare(service)
        name = f"t{next(self._numbers)}_{service}"
        self.server.execute(f"CREATE DATABASE {name} TEMPLATE template_{service}")
        with self._as_superuser(name) as connection:
            self._made[name] = _Made(service, _mark(connection))
        return name

    def drop(self, database: str) -> None:
        """Gives a database back. One whose schema is what it was is emptied for the next test; copying the template
        takes ten times as long."""
        made = self._made.pop(database, None)
        free = self._free.setdefault(made.service, []) if made else []
        if made is None or len(free) >= _KEPT or not self._emptied(database, made):
            self.server.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
        else:
            free.append(database)

    def _emptied(self, database: str, made: _Made) -> bool:
        """False where it is not as it was made: it was dropped or renamed, or a test changed its schema."""
        try:
            with self._as_superuser(database) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
                if _mark(connection) != made.mark:
                    return False
                _empty(connection, self._templates[made.service])
                self._made[database] = _Made(made.service, _mark(connection))
        except psycopg.Error:
            return False  # DROP DATABASE says what is wrong, if anything is
        return True

    def _as_superuser(self, database: str) -> psycopg.Connection:
        dsn = self.server.dsn(SUPERUSER, self.superuser_password, database=database)
        return psycopg.connect(dsn, autocommit=True, connect_timeout=10)

    def _prepare(self, service: str) -> None:
        """Makes the template of that service, if it is not there."""
        from services.database.migrate import migrate

        name = f"template_{service}"
        if service not in self._templates:
            self.server.execute(f"CREATE DATABASE {name} TEMPLATE with_roles")
            directory = _ROOT / "services" / service / "migrations"
            migrate(self.dsn(service, name), directory=directory, schema=service)
            with self._as_superuser(name) as connection:
                rows = {table: _copied(connection, table) for table in _written(connection)}
                self._templates[service] = _Template(rows, _sizes(connection))


def _mark(connection: psycopg.Connection) -> str:
    """Another text whenever a statement changed the schema, its rights or its statistics."""
    parts = sql.SQL(" UNION ALL ").join(
        sql.SQL("SELECT {}, count(*), max(xmin::text::bigint) FROM {}").format(sql.Literal(name), sql.Identifier(name))
        for name in _CATALOGS
    )
    shared = sql.SQL(
        " UNION ALL SELECT 'pg_database', count(*), max(xmin::text::bigint) FROM pg_database WHERE oid = {own}"
        " UNION ALL SELECT 'pg_db_role_setting', count(*), max(xmin::text::bigint) FROM pg_db_role_setting"
        " WHERE setdatabase = {own} ORDER BY 1"
    ).format(own=sql.SQL(_OWN))
    return str(connection.execute(parts + shared).fetchall())


def _written(connection: psycopg.Connection) -> list[str]:
    """Every table that has had rows, ready to be put into a statement."""
    rows = connection.execute(
        "SELECT format('%%I.%%I', n.nspname, c.relname) "
        + _USER_RELATIONS
        + "AND c.relkind = 'r' AND pg_relation_size(c.oid) > 0 ORDER BY 1",
        [],
    )
    return [name for (name,) in rows]


def _sizes(connection: psycopg.Connection) -> list[tuple[int, int, float]]:
    return connection.execute(
        "SELECT c.oid, c.relpages, c.reltuples " + _USER_RELATIONS + "AND c.relkind IN ('r', 'i')", []
    ).fetchall()


def _copied(connection: psycopg.Connection, table: str) -> bytes:
    with connection.cursor() as cursor, cursor.copy(_statement(f"COPY {table} TO STDOUT")) as rows:
        return b"".join(bytes(piece) for piece in rows)


def _empty(connection: psycopg.Connection, template: _Template) -> None:
    """Puts back what migrations wrote, in place of what there is. The superuser's session minds no trigger."""
    with connection.transaction():
        connection.execute("SET LOCAL session_replication_role = replica")
        if written := _written(connection):
            connection.execute(_statement(f"TRUNCATE {', '.join(written)} RESTART IDENTITY CASCADE"))
        for table, rows in template.rows.items():
            with connection.cursor() as cursor, cursor.copy(_statement(f"COPY {table} FROM STDIN")) as copy:
                copy.write(rows)
        # TRUNCATE leaves an index without a size, and the planner then takes another one.
        connection.execute(
            "UPDATE pg_class c SET relpages = s.pages, reltuples = s.rows "
            "FROM unnest(%s::oid[], %s::int[], %s::real[]) s (id, pages, rows) "
            "WHERE c.oid = s.id AND (c.relpages, c.reltuples) IS DISTINCT FROM (s.pages, s.rows)",
            [list(column) for column in zip(*template.sizes, strict=True)],
        )


def _statement(text: str) -> sql.SQL:
    return sql.SQL(text)  # names in it are quoted by format('%I')
