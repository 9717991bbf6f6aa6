"""A ledger's database, empty for each test: SQLite in a file, or Debian's PostgreSQL started for the session."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from overread.ledger import Ledger, open_ledger

_numbers = itertools.count(1)


def _lacking(what: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} must be there in continuous integration")
    pytest.skip(what)


def _as_postgres(command: list[str]) -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else command


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    if not found:
        _lacking("PostgreSQL is not installed (Debian: postgresql)")
    if os.geteuid() == 0 and (shutil.which("runuser") is None or "postgres" not in {u.pw_name for u in pwd.getpwall()}):
        _lacking("PostgreSQL needs a user postgres and runuser when the tests run as root")
    return found[-1].parent


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a running server, without a database's name; it listens on a socket in its own folder only."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (pip install 'overread[postgres]')")
    binaries = _binaries()
    folder = Path(tempfile.mkdtemp(prefix="overread-pg-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    init = [str(binaries / "initdb"), "-D", str(folder / "data"), "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8"]
    subprocess.run(_as_postgres(init), check=True, capture_output=True, cwd=folder)
    options = ["-c", "listen_addresses=", "-c", "fsync=off", "-c", "shared_buffers=16MB", "-k", str(folder)]
    with (folder / "log").open("wb") as log:
        run = [str(binaries / "postgres"), "-D", str(folder / "data"), *options]
        server = subprocess.Popen(_as_postgres(run), stdout=log, stderr=log, cwd=folder)
    try:
        url = f"postgresql+psycopg://postgres@/{{}}?host={folder}"
        _until_it_answers(url, folder / "log")
        yield url
    finally:
        pid = int((folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, 2)  # fast shutdown
        server.wait(20)
        shutil.rmtree(folder)


def _until_it_answers(url: str, log: Path) -> None:
    deadline = time.monotonic() + 30
    engine = create_engine(url.format("postgres"))
    while True:
        try:
            engine.connect().close()
        except Exception:
            if time.monotonic() > deadline:
                pytest.fail(f"PostgreSQL did not start: {log.read_text()}")
            time.sleep(0.1)
        else:
            engine.dispose()
            return


Create = Callable[..., str]


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def create(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Create]:
    """``create(template)``: make a database, empty or like another, and return its URL."""
    if request.param == "sqlite":
        folder = tmp_path_factory.mktemp("sqlite")

        def copy(template: str = "") -> str:
            path = folder / f"{next(_numbers)}.sqlite"
            if template:
                shutil.copy(template.removeprefix("sqlite:///"), path)
            return f"sqlite:///{path}"

        yield copy
        return
    server = request.getfixturevalue("postgres")
    admin = create_engine(server.format("postgres"), isolation_level="AUTOCOMMIT")

    def clone(template: str = "") -> str:
        name = f"test_{next(_numbers)}"
        source = make_url(template).database if template else "template0"
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {source}"))
        return str(server.format(name))

    yield clone
    admin.dispose()


@pytest.fixture(scope="session")
def migrated(create: Create) -> str:
    """A database with the schema and nothing in it; never written to."""
    made = create()
    open_ledger(made).close()
    return made


@pytest.fixture
def url(create: Create) -> str:
    """An empty database."""
    return create()


@pytest.fixture
def ledger(create: Create, migrated: str) -> Iterator[Ledger]:
    """A ledger with nothing in it."""
    books = open_ledger(create(migrated))
    yield books
    books.close()
