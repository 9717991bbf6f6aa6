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
from overread.receive import admission, seats
from overread.receive.associations import presentation_contexts
from overread.receive.certificates import SUITES
from overread.receive.commitment import judge, request
from overread.receive.intake import CANNOT_UNDERSTAND, MISMATCH, OUT_OF_RESOURCES, SUCCESS
from overread.receive.stow import answer
from overread.receive.stow.accept import OFFERS
from overread.receive.waiting import LONGEST_REQUEST_BYTES
from overread.settings import Receive
from overread.spool.meta import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION

SEGMENTATION, LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"
DEFLATED, RLE, JPEG2000 = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90"
STATUSES = {
    SUCCESS: "the data set and its directory entry have been synced to disk; it would survive a power cut",
    OUT_OF_RESOURCES: "the spool's disk is nearly full or does not take it, or the peer has had its bytes for today",
    MISMATCH: "SOP Class UID or SOP Instance UID of data set and command differ",
    CANNOT_UNDERSTAND: "the data set is truncated or cannot be read, or lacks a UID; its bytes are kept in quarantine",
}
ACTION_STATUSES = {
    request.SUCCESS: "the request has been synced to disk; its outcome follows",
    request.PROCESSING_FAILURE: "an error within overread",
    request.NO_SUCH_INSTANCE: "another SOP Instance than the well-known one was addressed",
    request.INVALID_VALUE: "a UID is empty or not valid, the sequence is empty, or an instance has two SOP Classes",
    request.MISSING_ATTRIBUTE: "Transaction UID, Referenced SOP Sequence or an attribute of its items is missing",
    request.NO_SUCH_ACTION: "another Action Type than 1",
    request.MISTYPED: "the Action Information cannot be read",
    request.RESOURCE_LIMITATION: "too many instances, too many open requests, or the disk does not take it",
}
FAILURE_REASONS = {
    request.PROCESSING_FAILURE: "the instance is known, and its bytes are missing, damaged or cannot be synced",
    request.NO_SUCH_INSTANCE: "the instance is not known, was refused, or its images were removed by retention",
    judge.CLASS_INSTANCE_CONFLICT: "the instance is of another SOP Class",
    judge.DUPLICATE_TRANSACTION: "the Transaction UID was used by the same AE for other instances",
}
REFUSALS = {
    admission.ADDRESS: "the caller's network address is not on the allow-list",
    admission.CALLING_AE: "the calling AE title is not on the allow-list for that address",
    admission.CALLED_AE: "an AE title was called that is not served, or not for that caller",
    admission.CERTIFICATE: "the caller shows no client certificate that its line of the allow-list asks for",
    admission.LIMIT: "as many associations as allowed are open, and none has been idle for long enough to make way",
    admission.PEER_LIMIT: "the same for this peer",
    admission.RATE: "this peer has opened as many associations in the last minute as it may",
    admission.QUOTA: "this peer has stored as many bytes today as it may",
    admission.CONGESTED: "the spool's disk is nearly full",
}
SECURITY_PROFILES = {
    "bcp195": ("BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile", "B.12"),
    "bcp195-modified": ("Modified BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile", "B.13"),
}


def statement() -> Iterator[str]:
    """The statement, line by line, in Markdown."""
    yield "# DICOM conformance statement"
    yield ""
    yield f"overread {__version__}. Structure after PS3.2. Written by `make conformance`; do not edit by hand."
    yield ""
    yield from _overview()
    yield from _scp()
    yield from _commitment()
    yield from _stow()
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
| Storage Commitment Push Model | yes, with `proof = "commitment"` | yes |
| Studies Service, Store (STOW-RS) | no | yes, when `receive.stow` is enabled |
| Query/Retrieve, Study Root FIND | yes: proof of delivery | no |
| Query/Retrieve, Study Root GET, MOVE | yes, with `proof = "c-get"` or `"c-move"`: read back and compared | no |
| Studies Service, Store, Search and Retrieve (DICOMweb) | yes, with `kind = "stow"` | see above |

Implementation Class UID `{IMPLEMENTATION_CLASS_UID}`.
Implementation Version Name `{IMPLEMENTATION_VERSION}`.
""".splitlines()


def _scp() -> Iterator[str]:
    limits = Receive()
    contexts = presentation_contexts()
    yield from f"""## 2 As acceptor of associations (Verification, Storage and Storage Commitment SCP)

- Defaults: AE title `{limits.ae_title}`, port {limits.port}, maximum PDU {limits.max_pdu_bytes} bytes,
  {limits.max_associations} associations at once, half of them for one peer. Several AE titles can be called, each with
  a priority of its own. No asynchronous operations, no user identity.
- An association is set up within {limits.acse_timeout_s:g} s of the connection (ARTIM) and ended after
  {limits.network_timeout_s:g} s without a word. When all places are taken, one that has been idle makes way: after
  {seats.IDLE_S:g} s, or after {seats.IDLE_NEWCOMER_S:g} s when it has not stored anything yet (A-ABORT).
- A PDU longer than negotiated, or an A-ASSOCIATE-RQ longer than {LONGEST_REQUEST_BYTES} bytes, is answered by A-ABORT
  and not read.
- The data set is stored byte for byte as it came, in the transfer syntax it came in, private elements
  included (Storage level 2). It is not coerced.

| A-ASSOCIATE-RJ (PS3.8 Table 9-21): result / source / reason | when |
|---|---|""".splitlines()
    yield from (f"| {r.result} / {r.source} / {r.reason} | {when} |" for r, when in REFUSALS.items())
    yield from ("", "| C-STORE status | meaning |", "|---|---|")
    yield from (f"| 0x{status:04X} | {meaning} |" for status, meaning in STATUSES.items())
    yield from ("", "Transfer syntaxes, for every storage SOP Class below:", "")
    syntaxes = sorted({str(s) for cx in contexts[1:-1] for s in cx.transfer_syntax})
    yield from (f"- {UID(uid).name} `{uid}`" for uid in syntaxes)
    yield from ("", "| SOP Class | UID |", "|---|---|")
    yield from (f"| {cx.abstract_syntax.name} | `{cx.abstract_syntax}` |" for cx in contexts)
    yield ""


def _commitment() -> Iterator[str]:
    c, limits = Receive().commitment, Receive().limits
    yield from f"""### Storage Commitment Push Model (PS3.4 Annex J)

- **What is promised.** An instance is committed when the ledger has it under the SOP Class that is asked for, its bytes
  are in the spool as the ledger knows them (read again, size and digest compared) and they have been synced to
  disk. Of contents that came under one SOP Instance UID all must be there. What is only in quarantine is not
  committed.
- **For how long.** overread reads images, it is no archive. The whole study of a committed instance is kept for at
  least {c.days:g} days after the verdict (`receive.commitment.days`): neither age nor want of room takes it.
- N-ACTION is answered with 0x0000 once the request would survive a power cut; the outcome follows by
  N-EVENT-REPORT, on the same association when that is open and the caller silent, else on a new one to the
  address that `receive.commitment.peers` gives for the calling AE title, on which overread proposes the role of
  SCP by role selection. Without such an address a caller that does not wait is not told.
- A report that is not answered is sent again, for {c.give_up_after_h:g} hours. One that was answered is not, but for
  a crash in between. The same request again is judged and reported again. No Retrieve AE Title is
  given.
- The caller's role may be negotiated (SCU) or left to the default. One that proposes SCP, as a PACS does, may
  report here what overread has asked it for. At most {limits.commitment_instances} instances
  in one request.

| N-ACTION status | meaning |
|---|---|""".splitlines()
    yield from (f"| 0x{status:04X} | {meaning} |" for status, meaning in ACTION_STATUSES.items())
    yield from ("", "| Failure Reason | meaning |", "|---|---|")
    yield from (f"| 0x{reason:04X} | {meaning} |" for reason, meaning in FAILURE_REASONS.items())


def _stow() -> Iterator[str]:
    s, offers = Receive().stow, ", ".join(f"`{offer}`" for offer in OFFERS)
    yield from f"""## 3 As origin server of STOW-RS (PS3.18 Section 10.5)

- `POST {s.path}/studies` and `POST {s.path}/studies/{{study}}`, by default on port {s.port} when enabled.
  Nothing else: no retrieval, no query, no capabilities. HTTP/1.1, Content-Length or chunked, persistent
  connections, `Expect: 100-continue`.
- Request: `multipart/related; type="application/dicom"`, each part a Part 10 file in any transfer syntax of the
  Standard. Parameters may be quoted or not. `type`, and the Content-Type of a part, may be missing. A
  `transfer-syntax` parameter decides nothing: the file meta information does. No Content-Encoding; of
  Content-Transfer-Encoding only binary.
- Judged, stored and made durable as by C-STORE, the file meta information in the place of the command. The data
  set is kept byte for byte, the file meta information is written anew. A part without readable file meta
  information is kept in quarantine as it came.
- A missing closing boundary does not lose the part before it: it is taken when the request was complete, its
  elements end where the body does, and an image has its pixels. Otherwise it fails.
- A body that breaks off: instances stored by then stay and are reported, the one on its way is dropped.
- Response: {offers}, by Accept or the query
  parameter `accept`; the first by default. Store Instances Response Module: ReferencedSOPSequence,
  FailedSOPSequence, and OtherFailuresSequence for what has no readable SOP Instance UID; RetrieveURL is empty.
- Failure Reasons are the C-STORE statuses above; 0xA900 also when an instance is not of the study in the path,
  0xA700 also when it is larger than it may be. The `Warning` header says why in words.
- Security: bearer tokens (RFC 6750) and an allow-list of networks. Without tokens it listens on loopback only.
- Limits, all in the settings: head and headers of a part {s.max_header_kb} kB, instance {s.max_part_mb} MB,
  request {s.max_request_mb} MB and {s.max_parts} parts, {s.max_connections} connections; {s.header_timeout_s:g} s for
  a head, {s.stall_timeout_s:g} s without a byte, {s.min_kb_per_s:g} kB/s on average. File meta information: 64 kB.

| status | meaning |
|---|---|""".splitlines()
    yield from (f"| {status} | {meaning} |" for status, meaning in answer.STATUSES.items())
    yield ""


def _scu() -> Iterator[str]:
    yield from """## 4 As initiator of associations (Storage SCU, and SCU of what proves it)

Associations carry results to one destination, and are kept for those that follow at once; others ask for the
proof: C-FIND at IMAGE level (Study, Series and SOP Instance UID), storage commitment, C-GET or C-MOVE. Failures
0xA7xx are tried again with growing patience, 0xA9xx and 0xCxxx are not; warnings 0xBxxx count as stored; 0x0111
is settled by asking.

| SOP Class | UID | transfer syntaxes proposed |
|---|---|---|""".splitlines()
    offered = ", ".join(UID(s).name for s in NATIVE_TRANSFER_SYNTAXES)
    for uid in dict.fromkeys(e.sop_class_uid for e in encoders(ENCODERS)):
        first = f"{UID(DEFLATED).name}, " if uid == SEGMENTATION else ""
        yield f"| {UID(uid).name} | `{uid}` | {first}{offered}{f', {UID(JPEG2000).name}' if first else ''} |"
        if uid == SEGMENTATION:
            frames = ", ".join(UID(s).name for s in (RLE, JPEG2000))
            yield f"| Label Map Segmentation Storage | `{LABEL_MAP}` | {first}{offered}, {frames} |"
    yield f"| {UID(FIND_SOP_CLASS).name} | `{FIND_SOP_CLASS}` | Implicit VR Little Endian |"
    yield ""


def _results() -> Iterator[str]:
    yield from """## 5 Objects made

- **Segmentation** (PS3.3 A.51, A.90): BINARY; LABELMAP and FRACTIONAL (PROBABILITY) for destinations that are
  configured so and accept them. Overlapping segments in one instance for each group that does not overlap. Every
  source instance referenced; category, type, modifiers, region and laterality coded; recommended CIELab colour,
  tracking ID and UID, algorithm identified; patient, study and frame of reference of the source. Kept as Deflated
  Explicit VR Little Endian and sent as Explicit VR Little Endian where that is refused; frames in RLE or JPEG 2000
  lossless where configured.
- **Key Object Selection** (PS3.3 A.35.4): TID 2010, (113001, DCM, "Rejected for Quality Reasons"), an IOCM rejection
  note for results that a later reading of the study replaces, where configured. The later report names its
  predecessor (Predecessor Documents Sequence).
- **Comprehensive 3D SR** (PS3.3 A.35.13): TID 1500 Measurement Report with image library (TID 1600), the model as
  device observer, algorithm identification (TID 4019), whether anything was found (CID 6047) and what was looked for.
  In three forms, as configured: a TID 1410 group for each segment with its outline on one slice (SCOORD) and its
  segment; the same without references, for viewers; TID 1411 groups of whole segments and TID 1501 groups of classes.
  The most complete one lists all that the job made (121181, DCM, "DICOM Object Catalog").
- **Secondary Capture** (PS3.3 A.8.1): RGB, Conversion Type WSD; a summary, and the slices that matter with outlines.
  Nothing of the patient is written into the pixels. **Encapsulated PDF** (PS3.3 A.45.1): the summary.
- **Key Object Selection** (TID 2010, "Of Interest"): the slices that matter.
- **Parametric Map** (PS3.3 A.75): 32 bit float, probabilities and saliency, one for each segment or class, on the
  slices that hold anything. **Derived images**: CT or MR Image Storage like the source, else a Parametric Map.
- **Grayscale Softcopy Presentation State** (PS3.3 A.33.1): outlines as polylines. **RT Structure Set** (PS3.3 A.19.3):
  CLOSED_PLANAR contours of every segment, holes joined by a channel.
- All: Specific Character Set ISO_IR 192; Contributing Equipment (109102, DCM, "Processing Equipment") with a
  Device UID that changes with the weights, and with the SHA-256 of weights, card, input and settings. Series Date
  and Time, Performed Procedure Step Start Date and Time, Request Attributes and Body Part Examined (as the source
  has them) are there to be asked for (IHE AIR, RAD-137). UIDs are `2.25.` and derived from input, model and
  settings: the same reading has the same UIDs.
""".splitlines()


def _rest() -> Iterator[str]:
    yield ""
    yield from """## 6 Character sets, security, media

Character sets are stored as they come. No media services.

Security profiles (PS3.15), as acceptor, on a port of its own beside the plain one when `[receive.tls]` is set:

| profile | section | TLS 1.2 cipher suites |
|---|---|---|""".splitlines()
    for name, (title, section) in SECURITY_PROFILES.items():
        yield f"| {title} (`{name}`) | {section} | {', '.join(f'`{s}`' for s in SUITES[name])} |"
    yield from """
Of B.13's suites those with CCM and Camellia are not offered. TLS 1.2 and 1.3, nothing older; TLS 1.3 with the
suites of the installed OpenSSL (AES-256-GCM, ChaCha20-Poly1305 and AES-128-GCM), also under B.13. No renegotiation,
compression or resumption; keys of at least RSA 2048 or ECDSA 224 bits, no SHA-1. A client certificate can be asked
for or demanded; it is checked against the configured CAs, its Extended Key Usage and certificate revocation lists,
and its common name, DNS names, URIs and mail addresses are compared with the calling AE title's line of the
allow-list. As initiator, TLS 1.2 or later where `tls = true`, with a client certificate where one is
set; plain TCP otherwise.""".splitlines()


if __name__ == "__main__":
    sys.exit(main())
