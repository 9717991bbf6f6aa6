"""The DICOM conformance statement (PS3.2), written from the presentation contexts that the code itself uses.

    make conformance
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from pydicom.uid import UID

from overread import __version__
from overread.deliver.content import NATIVE_TRANSFER_SYNTAXES
from overread.deliver.proofs import FIND_SOP_CLASS
from overread.encode import ENCODERS, encoders
from overread.receive import admission
from overread.receive.intake import CANNOT_UNDERSTAND, MISMATCH, OUT_OF_RESOURCES, SUCCESS
from overread.receive.listener import presentation_contexts
from overread.settings import Receive
from overread.spool.meta import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION

STATUSES = {
    SUCCESS: "the data set and its directory entry have been synced to disk; it would survive a power cut",
    OUT_OF_RESOURCES: "the spool has passed its high-water mark, or the disk does not take it; try again later",
    MISMATCH: "SOP Class UID or SOP Instance UID of data set and command differ",
    CANNOT_UNDERSTAND: "the data set is truncated or cannot be read, or lacks a UID; its bytes are kept in quarantine",
}
REFUSALS = {
    admission.ADDRESS: "the caller's network address is not on the allow-list",
    admission.CALLING_AE: "the calling AE title is not on the allow-list for that address",
    admission.CALLED_AE: "another AE title was called",
    admission.LIMIT: "as many associations as allowed are open",
    admission.CONGESTED: "the spool's disk is nearly full",
}


def statement() -> Iterator[str]:
    """The statement, line by line, in Markdown."""
    yield "# DICOM conformance statement"
    yield ""
    yield f"overread {__version__}. Structure after PS3.2. Written by `make conformance`; do not edit by hand."
    yield ""
    yield from _overview()
    yield from _scp()
    yield from _scu()
    yield from _results()
    yield from _rest()


def main() -> int:
    """Print the statement."""
    sys.stdout.write("\n".join(statement()) + "\n")
    return 0


def _overview() -> Iterator[str]:
    yield from f"""## 1 Overview

| network service | user (SCU) | provider (SCP) |
|---|---|---|
| Verification | yes (`overread check`) | yes |
| Storage | yes: results | yes: images and anything else that is stored |
| Query/Retrieve, Study Root FIND | yes: proof of delivery | no |

Implementation Class UID `{IMPLEMENTATION_CLASS_UID}`.
Implementation Version Name `{IMPLEMENTATION_VERSION}`.
""".splitlines()


def _scp() -> Iterator[str]:
    limits = Receive()
    contexts = presentation_contexts()
    yield from f"""## 2 As acceptor of associations (Verification and Storage SCP)

- Defaults: AE title `{limits.ae_title}`, port {limits.port}, maximum PDU {limits.max_pdu_bytes} bytes,
  {limits.max_associations} associations at once. No asynchronous operations, no user identity.
- The data set is stored byte for byte as it came, in the transfer syntax it came in, private elements
  included (Storage level 2). It is not coerced.

| A-ASSOCIATE-RJ (PS3.8 Table 9-21): result / source / reason | when |
|---|---|""".splitlines()
    yield from (f"| {r.result} / {r.source} / {r.reason} | {when} |" for r, when in REFUSALS.items())
    yield from ("", "| C-STORE status | meaning |", "|---|---|")
    yield from (f"| 0x{status:04X} | {meaning} |" for status, meaning in STATUSES.items())
    yield from ("", "Transfer syntaxes, for every storage SOP Class below:", "")
    syntaxes = sorted({str(s) for cx in contexts[1:] for s in cx.transfer_syntax})
    yield from (f"- {UID(uid).name} `{uid}`" for uid in syntaxes)
    yield from ("", "| SOP Class | UID |", "|---|---|")
    yield from (f"| {cx.abstract_syntax.name} | `{cx.abstract_syntax}` |" for cx in contexts)
    yield ""


def _scu() -> Iterator[str]:
    yield from """## 3 As initiator of associations (Storage SCU, FIND SCU)

One association carries all results of one reading to one destination; a second one asks for them by C-FIND at
IMAGE level (Study, Series and SOP Instance UID). Failures 0xA7xx are tried again with growing patience, 0xA9xx
and 0xCxxx are not; warnings 0xBxxx count as stored; 0x0111 is settled by asking.

| SOP Class | UID | transfer syntaxes proposed |
|---|---|---|""".splitlines()
    offered = ", ".join(UID(s).name for s in NATIVE_TRANSFER_SYNTAXES)
    made = (e.sop_class_uid for e in encoders(ENCODERS))
    yield from (f"| {UID(uid).name} | `{uid}` | {offered} |" for uid in made)
    yield f"| {UID(FIND_SOP_CLASS).name} | `{FIND_SOP_CLASS}` | Implicit VR Little Endian |"
    yield ""


def _results() -> Iterator[str]:
    yield from """## 4 Objects made

- **Segmentation** (PS3.3 A.51): BINARY, every source instance referenced, segments coded, tracking ID and UID,
  algorithm identified; patient, study and frame of reference of the source.
- **Comprehensive 3D SR** (PS3.3 A.35.13): TID 1500 Measurement Report; a TID 1410 group for each segment with
  its outline on one slice (SCOORD), its segment, tracking identifiers and numbers.
- Both: Specific Character Set ISO_IR 192; Contributing Equipment (109102, DCM, "Processing Equipment") with a
  Device UID that changes with the weights. UIDs are `2.25.` and derived from input, model and settings: the
  same reading has the same UIDs.
""".splitlines()


def _rest() -> Iterator[str]:
    yield ""
    yield from """## 5 Character sets, security, media

Character sets are stored as they come. Associations are plain TCP: let the network, or a TLS proxy, protect
them. No media services.""".splitlines()


if __name__ == "__main__":
    sys.exit(main())
