"""Opening the ledger: one engine, reads and writes apart, the schema brought up to date under a lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Insert, event, inspect, text
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry
from sqlmodel import Session, SQLModel, create_engine

from overread.domain.errors import ConfigError, Unreachable

HEAD = "0009"
MIGRATION_LOCK = 7_236_011
BUSY_S = 30


class Ledger:
    """Sessions on the ledger's database. Safe to share between threads; not between processes."""

    def __init__(self, engine: Engine) -> None:
        postgres = engine.dialect.name == "postgresql"
        self._reader = engine.execution_options(isolation_level="REPEATABLE READ") if postgres else engine
        self._writer = engine.execution_options(immediate=True)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for looking; sees one consistent state."""
        with Session(self._reader) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session whose changes are durable when the block ends, or none of them when it raises."""
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    def insert(self, table: type[SQLModel]) -> Any:
        """The dialect's INSERT, which knows ``on_conflict_do_…``."""
        from sqlalchemy.dialects import postgresql, sqlite

        make = postgresql.insert if self._reader.dialect.name == "postgresql" else sqlite.insert
        statement: Insert = make(table)
        return statement

    def answer(self) -> None:
        """Ask the database for nothing; raises Unreachable when it does not answer."""
        try:
            with self._reader.connect() as connection:
                connection.execute(text("SELECT 1"))
        except OperationalError as error:
            raise Unreachable(f"the ledger does not answer: {type(error.orig).__name__}") from error

    def close(self) -> None:
        """Let go of all connections."""
        self._reader.dispose()


def open_ledger(url: str) -> Ledger:
    """Open the ledger at an SQLAlchemy URL and migrate it to this version's schema.

    Raises ConfigError for a URL that names no usable database, Unreachable when the database does not answer.
    """
    try:
        engine = _engine(url)
        try:
            with engine.execution_options(immediate=True).begin() as connection:
                _migrate(connection)
        except BaseException:
            engine.dispose()
            raise
    except (ArgumentError, ModuleNotFoundError) as error:
        raise ConfigError(
            f"ledger: {error}; use sqlite:///PATH or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE "
            "(the latter needs: pip install 'overread[postgres]')"
        ) from error
    except OperationalError as error:
        raise Unreachable(f"the ledger cannot be opened: {error.orig}") from error
    return Ledger(engine)


def _engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"timeout": BUSY_S, "check_same_thread": False})
    event.listen(engine, "connect", _on_sqlite_connect)
    event.listen(engine, "begin", _on_sqlite_begin)
    return engine


def _on_sqlite_connect(connection: Any, _entry: ConnectionPoolEntry) -> None:
    # The driver must not open transactions by itself: a write transaction has to say IMMEDIATE when it begins, or two
    # processes that both read and then write would refuse each other.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _on_sqlite_begin(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("immediate")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _migrate(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
    version = _version(connection)
    if version == HEAD:
        return
    if version > HEAD:
        raise ConfigError(f"the ledger was written by a newer overread (schema {version}); this one knows {HEAD}")
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "overread.ledger:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)


def _version(connection: Connection) -> str:
    if not inspect(connection).has_table("alembic_version"):
        return ""
    return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or "")
