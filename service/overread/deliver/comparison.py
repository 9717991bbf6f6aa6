"""What a destination gives back, compared with what was sent."""

from __future__ import annotations

from pydicom import Dataset
from pydicom.datadict import keyword_for_tag

from overread.deliver.content import as_dataset, differences
from overread.domain.delivery import Item, Proven, Standing
from overread.domain.errors import Rejected
from overread.spool.files import dataset_start

_TOLD = 5
_UIDS = (0x00080016, 0x00080018)
# What archives coerce, and say so (0xB000; IHE PIR): the groups of identification.
_IDENTIFICATION = (0x0008, 0x0010, 0x0032, 0x0040)


def compared(item: Item, content: bytes, syntax: str) -> Proven:
    """The standing of an object of which a data set came back: the same bytes, or the same in another encoding."""
    if syntax == item.result.transfer_syntax_uid and content == _own_bytes(item):
        return Proven(Standing.THERE)
    try:
        return compared_with(item, as_dataset(content, syntax))
    except ValueError as error:
        return Proven(Standing.ALTERED, str(error))


def compared_with(item: Item, theirs: Dataset) -> Proven:
    """The standing of an object that came back as a dataset; of what differs only the names are told."""
    try:
        tags = differences(item.path, theirs)
    except (OSError, KeyError, AttributeError, TypeError, NotImplementedError) as error:
        raise Rejected(f"the file of a result cannot be compared ({type(error).__name__}); run the job again") from None
    minded = [t for t in tags if not (item.coerced and t >> 16 in _IDENTIFICATION and t not in _UIDS)]
    if not minded:
        changed = f"it changed {_named(tags)}, as it had announced" if tags else ""
        return Proven(Standing.THERE, changed)
    return Proven(Standing.ALTERED, f"what it keeps differs from what was sent in {_named(minded)}")


def _own_bytes(item: Item) -> bytes:
    try:
        with item.path.open("rb") as file:
            file.seek(dataset_start(file))
            return file.read()
    except OSError as error:
        raise Rejected(f"the file of a result cannot be read ({type(error).__name__}); run the job again") from None


def _named(tags: list[int]) -> str:
    names = [keyword_for_tag(tag) or f"({tag >> 16:04X},{tag & 0xFFFF:04X})" for tag in tags]
    more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    return ", ".join(names[:_TOLD]) + more
