"""An object store as a destination, through fsspec's own file systems for memory and disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from handed import prove, send

from overread.deliver.object_store import ObjectStoreDestination
from overread.domain.delivery import Outcome, Standing
from overread.domain.errors import ConfigError, Unreachable
from overread.domain.result import Result

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed (pip install 'overread[object-store]')")
Make = Callable[..., tuple[Result, Path]]


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    yield "memory://bucket/results" if request.param == "memory" else f"file://{tmp_path / 'store'}"
    memory = fsspec.filesystem("memory")
    if memory.exists("/bucket"):
        memory.rm("/bucket", recursive=True)


def test_objects_are_put_read_back_and_compared(url: str, make_result: Make) -> None:
    there = ObjectStoreDestination("store", url)
    assert "can be written" in there.check()
    made = [make_result(1), make_result(2, study="1.2.826.0.1.9")]
    assert [p.standing for p in prove(there, made)] == [Standing.MISSING] * 2
    for _ in range(2):
        assert [t.outcome for t in send(there, made).values()] == [Outcome.TAKEN] * 2
    assert [p.standing for p in prove(there, made)] == [Standing.THERE] * 2
    fs, root = fsspec.core.url_to_fs(url)
    held = sorted(name.removeprefix(root).lstrip("/") for name in fs.find(root))
    assert held == sorted(f"{r.study_uid}/{r.sop_instance_uid}.dcm" for r, _ in made)
    fs.pipe_file(fs.find(root)[0], b"something else")
    assert sorted(p.standing for p in prove(there, made)) == sorted([Standing.ALTERED, Standing.THERE])


def test_a_file_that_differs_from_its_digest_is_refused(url: str, make_result: Make) -> None:
    result, path = make_result(1)
    path.write_bytes(path.read_bytes() + b"rot")
    (told,) = send(ObjectStoreDestination("store", url), [(result, path)]).values()
    assert (told.outcome, "differs from its digest" in told.reason) == (Outcome.REFUSED, True)


def test_a_store_that_cannot_be_written_is_tried_later(tmp_path: Path, make_result: Make) -> None:
    (tmp_path / "store").write_text("a file where the store should be")
    with pytest.raises(Unreachable, match="cannot be used"):
        send(ObjectStoreDestination("store", f"file://{tmp_path / 'store'}"), [make_result(1)])


def test_options_and_secrets_come_from_a_file(tmp_path: Path) -> None:
    options = tmp_path / "options.json"
    options.write_text(json.dumps({"auto_mkdir": True}))
    assert ObjectStoreDestination("store", f"file://{tmp_path}/a", options_file=str(options))._fs.auto_mkdir
    options.write_text("no JSON")
    with pytest.raises(ConfigError, match=r"options_file .* not valid JSON"):
        ObjectStoreDestination("store", "memory://a", options_file=str(options))
    with pytest.raises(ConfigError, match="cannot be used"):
        ObjectStoreDestination("store", "carrier-pigeon://a")
