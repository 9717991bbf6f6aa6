"""From a scanner to a PACS and out again, over real associations."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ComprehensiveSRStorage, ExplicitVRLittleEndian, RLELossless
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage, StudyRootQueryRetrieveInformationModelFind

from overread.deliver.dimse import Calling, DimseDestination
from overread.deliver.proofs import by_find
from overread.domain.delivery import Item, Outcome, Standing
from overread.domain.errors import Unreachable
from overread.domain.peer import Peer
from overread.domain.result import Result
from overread.simulate.pacs import Pacs
from overread.simulate.scanner import Patience, send

QUICK = Patience(tries=3, first_wait_s=0.05, timeout_s=5.0)
FIND = StudyRootQueryRetrieveInformationModelFind


def query(peer: Peer, level: str, **keys: object) -> list[Dataset]:
    question = Dataset()
    question.QueryRetrieveLevel = level
    for key, value in keys.items():
        setattr(question, key, value)
    entity = AE()
    entity.add_requested_context(FIND)
    line = entity.associate(peer.host, peer.port, ae_title=peer.ae_title)
    assert line.is_established
    try:
        return [found for status, found in line.send_c_find(question, FIND) if status.Status == 0xFF00]
    finally:
        line.release()


def data_set(path: Path) -> bytes:
    content = path.read_bytes()
    return content[144 + int.from_bytes(content[140:144], "little") :]


def dcmtk(tool: str) -> str:
    for folder in os.get_exec_path():
        found = shutil.which(tool, path=folder)
        if found and b"dcmtk" in subprocess.run([found, "--version"], capture_output=True, check=False).stdout.lower():
            return found
    if os.environ.get("CI") == "true":
        pytest.fail(f"DCMTK's {tool} is not installed")
    pytest.skip(f"DCMTK's {tool} is not installed")


# the round trip


def test_a_study_goes_from_the_scanner_to_the_pacs_byte_for_byte(study: list[Path], pacs: Pacs, peer: Peer) -> None:
    told: list[tuple[int, int]] = []
    sent = send(study, peer, progress=lambda done, total: told.append((done, total)))
    assert (sent.stored, sent.warned, sent.failed, sent.retried) == (25, 0, (), 0)
    assert told == [(n, 25) for n in range(1, 26)]
    assert sorted(map(data_set, pacs.files())) == sorted(map(data_set, study))
    assert set(pacs.stored.values()) == {1}


def test_a_folder_can_be_sent_and_a_second_time_is_seen(study: list[Path], pacs: Pacs, peer: Peer) -> None:
    send([study[0].parent], peer)
    send([study[0].parent], peer)
    assert set(pacs.stored.values()) == {2}
    assert len(pacs.files()) == 25


def test_a_query_finds_what_was_stored_also_after_a_restart(study: list[Path], pacs: Pacs, peer: Peer) -> None:
    send(study, peer)
    ct = dcmread(study[1], stop_before_pixels=True)
    for _ in range(2):
        (found,) = query(peer, "STUDY", PatientID="PHANTOM-7", StudyInstanceUID="", NumberOfStudyRelatedInstances="")
        assert found.StudyInstanceUID == ct.StudyInstanceUID
        assert found.NumberOfStudyRelatedInstances == 25
        assert len(query(peer, "SERIES", StudyInstanceUID=ct.StudyInstanceUID, SeriesInstanceUID="")) == 2
        keys = {"StudyInstanceUID": ct.StudyInstanceUID, "SeriesInstanceUID": ct.SeriesInstanceUID}
        assert len(query(peer, "IMAGE", **keys, SOPInstanceUID="")) == 24
        assert len(query(peer, "IMAGE", **keys, SOPInstanceUID=ct.SOPInstanceUID)) == 1
        pacs.stop()
        pacs.start()


def test_dcmtk_sends_to_it_echoes_and_queries_it(study: list[Path], pacs: Pacs) -> None:
    where = ["-aec", pacs.ae_title, pacs.host, str(pacs.port)]
    environment = {**os.environ, "TCP_NODELAY": "1"}
    subprocess.run([dcmtk("echoscu"), *where], check=True, env=environment)
    subprocess.run([dcmtk("storescu"), *where, *map(str, study)], check=True, env=environment)
    assert sorted(map(data_set, pacs.files())) == sorted(map(data_set, study))
    keys = ["QueryRetrieveLevel=STUDY", "StudyInstanceUID", "PatientName=PHANTOM*", "NumberOfStudyRelatedInstances"]
    options = [part for key in keys for part in ("-k", key)]
    told = subprocess.run([dcmtk("findscu"), "-S", *options, *where], check=True, capture_output=True, text=True)
    answers = told.stdout + told.stderr
    assert answers.count("(Pending)") == 1
    assert dcmread(study[0]).StudyInstanceUID in answers
    assert "[25]" in answers


def test_several_scanners_at_once_lose_nothing(study: list[Path], pacs: Pacs, peer: Peer) -> None:
    threads = [threading.Thread(target=send, args=(study[n::4], peer)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pacs.files()) == len(pacs.stored) == len(pacs.catalogue) == 25


# a PACS that misbehaves


def test_one_that_refuses_associations_is_tried_again_and_given_up(study: list[Path], pacs: Pacs, peer: Peer) -> None:
    pacs.refuse = True
    with pytest.raises(Unreachable, match="local limit exceeded"):
        send(study[:2], peer, patience=QUICK)


def test_one_that_refuses_once_gets_everything_at_the_second_try(study: list[Path], tmp_path: Path) -> None:
    class Shy(Pacs):
        """Refuses as long as it has been asked only once."""

        asked = 0

        @property
        def refuse(self) -> bool:
            self.asked += 1
            return self.asked == 1

        @refuse.setter
        def refuse(self, _value: bool) -> None:
            self.asked = 0

    with Shy(tmp_path / "shy") as shy:
        sent = send(study[:2], Peer(shy.ae_title, shy.host, shy.port), patience=QUICK)
    assert (sent.stored, sent.failed) == (2, ())
    assert sent.retried > 0


def test_one_that_is_down_is_unreachable(study: list[Path], pacs: Pacs, peer: Peer) -> None:
    pacs.stop()
    with pytest.raises(Unreachable, match="nothing listens there"):
        send(study[:2], peer, patience=QUICK)


def test_one_without_space_is_tried_again_until_it_has_some(study: list[Path], pacs: Pacs, peer: Peer) -> None:
    pacs.status = 0xA700
    sent = send(study[:3], peer, patience=QUICK)
    assert (sent.stored, [f.status for f in sent.failed], sent.retried) == (0, [0xA700] * 3, 6)
    assert pacs.files() == [] and pacs.stored == {}
    assert set(pacs.received.values()) == {3}
    timer = threading.Timer(0.2, lambda: setattr(pacs, "status", 0x0000))
    timer.start()
    assert send(study[:3], peer, patience=Patience(6, 0.1, 5.0)).stored == 3
    timer.join()


def test_one_that_refuses_for_good_is_not_tried_again(study: list[Path], pacs: Pacs, peer: Peer) -> None:
    pacs.status = 0xC000
    sent = send(study[:2], peer, patience=QUICK)
    assert [(f.status, f.reason) for f in sent.failed] == [(0xC000, "status 0xC000")] * 2
    assert set(pacs.received.values()) == {1}


def test_a_warning_is_stored_and_counted(study: list[Path], pacs: Pacs, peer: Peer) -> None:
    pacs.status = 0xB000
    sent = send(study[:2], peer)
    assert (sent.stored, sent.warned, len(pacs.files())) == (2, 2, 2)


def test_one_that_loses_says_success_and_has_nothing(study: list[Path], pacs: Pacs, peer: Peer) -> None:
    pacs.lose = True
    assert send(study[:2], peer).stored == 2
    assert pacs.files() == [] and pacs.stored == {}
    assert query(peer, "STUDY", StudyInstanceUID="") == []


def test_one_that_is_slow_answers_late(study: list[Path], pacs: Pacs, peer: Peer) -> None:
    pacs.delay_s = 0.3
    started = time.monotonic()
    assert send(study[:2], peer).stored == 2
    assert time.monotonic() - started > 0.6


def test_one_that_answers_too_late_is_sent_the_same_again(study: list[Path], tmp_path: Path) -> None:
    class Drowsy(Pacs):
        """Answers late the first time only."""

        asked = 0

        @property
        def delay_s(self) -> float:
            self.asked += 1
            return 2.5 if self.asked == 1 else 0.0

        @delay_s.setter
        def delay_s(self, _value: float) -> None:
            self.asked = 0

    with Drowsy(tmp_path / "drowsy") as drowsy:
        peer = Peer(drowsy.ae_title, drowsy.host, drowsy.port)
        sent = send(study[:1], peer, patience=Patience(3, 0.1, 1.5))
        assert (sent.stored, sent.retried) == (1, 1)
        assert len(drowsy.files()) == 1


def test_one_that_does_not_answer_queries_fails_them(pacs: Pacs, peer: Peer) -> None:
    pacs.queries = False
    assert query(peer, "STUDY", StudyInstanceUID="") == []


def test_one_that_takes_other_transfer_syntaxes_only_fails_the_files(study: list[Path], tmp_path: Path) -> None:
    with Pacs(tmp_path / "pacs", transfer_syntaxes=(RLELossless,)) as pacs:
        sent = send(study[:2], Peer("PACS", pacs.host, pacs.port), patience=QUICK)
    assert sent.stored == 0
    assert all("accepted no presentation context" in f.reason for f in sent.failed)


def test_stopping_twice_and_starting_again_is_fine(tmp_path: Path) -> None:
    pacs = Pacs(tmp_path / "pacs")
    pacs.stop()
    port = pacs.start().port
    pacs.stop()
    pacs.stop()
    assert pacs.start().port == port
    pacs.stop()


# results that come home


def test_a_delivery_is_proven_by_the_pacs_that_kept_it_only(study: list[Path], pacs: Pacs, peer: Peer) -> None:
    d = dcmread(study[1], stop_before_pixels=True)
    uids = (d.SOPInstanceUID, d.SeriesInstanceUID, d.StudyInstanceUID)
    result = Result("ct", d.SOPClassUID, *uids, d.file_meta.TransferSyntaxUID, study[1].name, "")
    there = DimseDestination("pacs", Calling(peer, "OVERREAD"), witness=by_find)
    item = Item(result, study[1])

    def sent_and_asked() -> Standing:
        assert [told.outcome for _, told in there.send([item])] == [Outcome.TAKEN]
        ((_, proven),) = there.prove([item])
        return proven.standing

    pacs.lose = True
    assert sent_and_asked() is Standing.MISSING
    pacs.lose = False
    assert sent_and_asked() is Standing.THERE
    there.close()


# what a PACS must not take


@pytest.mark.parametrize(
    ("uids", "status"),
    [(("1.2.3", "../../up"), 0xA900), (("1.2.3", ""), 0xA900), (("1.2.4", "1.2.1"), 0xA900)],
    ids=["study UID is a path", "no study UID", "another SOP Instance UID than the command's"],
)
def test_rubbish_is_not_stored(pacs: Pacs, peer: Peer, uids: tuple[str, str], status: int, tmp_path: Path) -> None:
    assert _store(peer, *uids) == status
    assert pacs.files() == []
    assert not list(tmp_path.parent.rglob("up/*.dcm"))


def _store(peer: Peer, sop_instance_uid: str, study_uid: str) -> int:
    """C-STORE a data set whose SOP Instance UID in the command is always 1.2.3."""
    from pydicom import config
    from pydicom.dataset import FileMetaDataset

    with config.disable_value_validation():
        dataset = Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = ComprehensiveSRStorage, "1.2.3"
        dataset.StudyInstanceUID = study_uid
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian

        def swap(event: Any) -> None:
            event.message.command_set.AffectedSOPInstanceUID = sop_instance_uid

        entity = AE()
        entity.add_requested_context(ComprehensiveSRStorage, ExplicitVRLittleEndian)
        line = entity.associate(peer.host, peer.port, ae_title=peer.ae_title, evt_handlers=[(evt.EVT_DIMSE_SENT, swap)])
        try:
            return int(line.send_c_store(dataset).Status)
        finally:
            line.release()


# the scanner's limits


def test_more_than_128_contexts_take_another_association(study: list[Path], tmp_path: Path) -> None:
    from overread.simulate import scanner

    images = [scanner._Image(study[0], CTImageStorage, f"1.2.{n}") for n in range(300)]
    batches = list(scanner._batches(images))
    assert [len(b) for b in batches] == [128, 128, 44]
    assert [i for b in batches for i in b] == images


def test_a_file_that_is_not_there_is_told(peer: Peer, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        send([tmp_path / "absent.dcm"], peer)
