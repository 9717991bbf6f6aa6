"""An object store as a destination, such as S3, Azure or Google Cloud Storage, through fsspec (an optional extra)."""

from __future__ import annotations

import hashlib
import json
import secrets
import tomllib
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread

from overread.deliver.choice import chosen
from overread.domain.delivery import Item, Outcome, Proven, Standing, Told
from overread.domain.errors import ConfigError, Rejected, Unreachable
from overread.domain.result import Result

_PIECE_BYTES = 1 << 20


class ObjectStoreDestination:
    """Writes ``<url>/<Study Instance UID>/<SOP Instance UID>.dcm``, and reads it back to prove it.

    ``url`` is one that fsspec knows (``s3://bucket/prefix``); ``options_file`` (TOML or JSON) holds what its file
    system takes, secrets among them. An object appears whole under its name: where the store itself does not see to
    that, it is written under another name first.
    """

    def __init__(self, name: str, url: str, *, options_file: str = "", variants: Sequence[str] = ()) -> None:
        self.name, self.url = name, url
        self._variants = tuple(variants)
        self._options = _options(name, options_file)
        self._fs, self._root = self._open()

    def send(self, items: Sequence[Item]) -> Iterator[tuple[Item, Told]]:
        """Put the files. A file that is not what its digest says is refused. Raises Unreachable."""
        go, passed = chosen(items, self._variants, lambda _: True)
        yield from ((item, Told(Outcome.PASSED_OVER, "it got another variant of this")) for item in passed)
        for item in go:
            try:
                content = _content(item)
            except Rejected as error:
                yield item, Told(Outcome.REFUSED, str(error))
                continue
            self._reach(lambda content=content, item=item: self._put(content, self._key(item.result)))
            yield item, Told(Outcome.TAKEN)

    def prove(self, items: Sequence[Item]) -> Iterator[tuple[Item, Proven]]:
        """Read each object back and compare its digest. Raises Unreachable."""
        for item in items:
            yield item, self._reach(lambda item=item: self._standing(item.result))

    def give_back(self, items: Sequence[Item]) -> Iterator[tuple[Item, Dataset | None]]:
        """Each object as it lies there; None for what does not. Raises Unreachable."""
        for item in items:
            content = self._reach(lambda item=item: self._content(self._key(item.result)))
            yield item, None if content is None else dcmread(BytesIO(content))

    def _content(self, key: str) -> bytes | None:
        self._fs.invalidate_cache()
        try:
            return bytes(self._fs.cat_file(key))
        except FileNotFoundError:
            return None

    def check(self) -> str:
        """Put and remove an object; one line when it works, Unreachable with the reason and the remedy otherwise."""
        key = f"{self._root}/.overread-{secrets.token_hex(4)}"
        self._reach(lambda: self._put(b"overread", key))
        self._reach(lambda: self._fs.rm_file(key))
        return f"{self.name}: {self.url} can be written"

    def _open(self) -> tuple[Any, str]:
        try:
            import fsspec
        except ModuleNotFoundError:
            raise ConfigError(
                f"destination {self.name!r}: object stores need fsspec; pip install 'overread[object-store]'"
            ) from None
        try:
            fs, root = fsspec.core.url_to_fs(self.url, **self._options)
        except (ImportError, ValueError, TypeError) as error:
            raise ConfigError(f"destination {self.name!r}: url {self.url!r} cannot be used: {error}") from None
        return fs, str(root).rstrip("/")

    def _key(self, result: Result) -> str:
        return f"{self._root}/{result.study_uid}/{result.sop_instance_uid}.dcm"

    def _put(self, content: bytes, key: str) -> None:
        self._fs.makedirs(key.rpartition("/")[0], exist_ok=True)
        if self._is_atomic():
            self._fs.pipe_file(key, content)
            return
        part = f"{key}.{secrets.token_hex(4)}.part"
        try:
            self._fs.pipe_file(part, content)
            self._fs.mv(part, key)
        except BaseException:
            if self._fs.exists(part):
                self._fs.rm_file(part)
            raise

    def _is_atomic(self) -> bool:
        protocols = self._fs.protocol if isinstance(self._fs.protocol, (tuple, list)) else (self._fs.protocol,)
        return not {"file", "local", "sftp", "ssh", "ftp", "smb"} & set(protocols)

    def _standing(self, result: Result) -> Proven:
        digest = hashlib.sha256()
        self._fs.invalidate_cache()
        try:
            with self._fs.open(self._key(result), "rb") as file:
                while piece := file.read(_PIECE_BYTES):
                    digest.update(piece)
        except FileNotFoundError:
            return Proven(Standing.MISSING, "it was put but is not there any more")
        if digest.hexdigest() == result.digest:
            return Proven(Standing.THERE)
        return Proven(Standing.ALTERED, "the object that is there differs from what was put")

    def _reach(self, work: Any) -> Any:
        try:
            return work()
        except Exception as error:
            # The edge to the file systems of fsspec, each of which has errors of its own: none is the object's fault.
            why = getattr(error, "strerror", None) or type(error).__name__
            raise Unreachable(f"destination {self.name!r}: {self.url} cannot be used ({why})") from None


def _content(item: Item) -> bytes:
    uid = item.result.sop_instance_uid
    try:
        content = item.path.read_bytes()
    except OSError:
        raise Rejected(f"the file of {uid} is gone from the spool; run the job again") from None
    if hashlib.sha256(content).hexdigest() != item.result.digest:
        raise Rejected(f"the file of {uid} differs from its digest; run the job again")
    return content


def _options(name: str, path: str) -> dict[str, Any]:
    if not path:
        return {}
    try:
        text = Path(path).read_text("utf-8")
        found: Any = json.loads(text) if path.endswith(".json") else tomllib.loads(text)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or f"it is not valid {'JSON' if path.endswith('.json') else 'TOML'}"
        raise ConfigError(f"destination {name!r}: options_file {path!r} cannot be read: {why}") from None
    return dict(found)
