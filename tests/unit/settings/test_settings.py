"""A settings file is understood whole, or refused with the file, the key and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from overread.domain.errors import ConfigError
from overread.settings import Caller, Deliver, Settings, read_settings

CALLED = "[[receive.called]]\nae_title = 'STAT'\n"
TLS = "[receive.tls]\nport = 2762\ncertificate = 'c.pem'\nkey = 'k.pem'\n"
PACS = '[[deliver]]\nname = "pacs"\nae_title = "PACS"\nhost = "10.0.0.5"\n'


def read(folder: Path, text: str) -> Settings:
    path = folder / "overread.toml"
    path.write_text(text, "utf-8")
    return read_settings(path)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(folder, text)
    assert str(folder / "overread.toml") in str(caught.value)
    return str(caught.value).removeprefix(f"{folder / 'overread.toml'}: ")


def test_no_file_gives_the_defaults() -> None:
    assert read_settings(None) == Settings()


def test_an_empty_file_gives_the_defaults_beside_it(tmp_path: Path) -> None:
    settings = read(tmp_path, "")
    assert settings.data_path == tmp_path / "data"
    assert settings.models == (str(tmp_path / "models"),)
    assert settings.ledger_url == f"sqlite:///{tmp_path / 'data' / 'ledger.sqlite'}"
    assert settings.receive == Settings().receive


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    text = 'data = "../d"\nmodels = ["m", "/opt/m"]\n[[deliver]]\nname = "f"\nkind = "folder"\nfolder = "out"\n'
    settings = read(tmp_path, text)
    assert settings.data == str(tmp_path / "../d")
    assert settings.models == (str(tmp_path / "m"), "/opt/m")
    assert settings.deliver[0].folder == str(tmp_path / "out")


def test_everything_given_is_kept(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        'ledger = "postgresql+psycopg://u@h/d"\n[receive]\nallow = [{ae_title = "CT1", network = "10.0.0.0/8"}]\n'
        "[assemble.quiet_by_modality_s]\nCT = 5\n" + PACS,
    )
    assert settings.ledger_url == "postgresql+psycopg://u@h/d"
    assert settings.receive.allow == (Caller("CT1", "10.0.0.0/8"),)
    assert settings.assemble.quiet_by_modality_s == {"CT": 5.0}
    assert settings.deliver == (Deliver("pacs", ae_title="PACS", host="10.0.0.5"),)


def test_retention_and_the_listener_have_limits_of_their_own(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        '[receive]\nmin_free_mb = 5\ndurability = "none"\nlayers = false\n[retain]\nmin_free_mb = 7\nmax_gb = 2\n',
    )
    assert (settings.receive.min_free_mb, settings.receive.durability, settings.receive.layers) == (5, "none", False)
    assert (settings.retain.days, settings.retain.max_gb, settings.retain.min_free_mb) == (14.0, 2.0, 7)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[recieve]\n", "unknown key 'recieve'; did you mean 'receive'?"),
        ("[receive]\nprot = 1\n", "unknown key receive.'prot'; did you mean 'port'?"),
        ("[retain]\nxyzzy = 1\n", "unknown key retain.'xyzzy'; known keys: days, max_gb, min_free_mb"),
        (PACS + "hots = 1\n", "unknown key deliver[0].'hots'; did you mean 'host'?"),
        ('[receive]\nport = "104"\n', "receive.port must be a whole number, not '104'"),
        ("[receive]\nport = true\n", "receive.port must be a whole number, not True"),
        ("[receive]\nport = 104.5\n", "receive.port must be a whole number, not 104.5"),
        ("[receive]\nrequire_called_ae = 1\n", "receive.require_called_ae must be true or false, not 1"),
        ("[retain]\ndays = 'a week'\n", "retain.days must be a number, not 'a week'"),
        ("models = 'models'\n", "models must be a list, written [ … ] or, for tables, [[models]]"),
        ("models = [1]\n", "models[0] must be a text in quotes, not 1"),
        ("receive = 5\n", "receive must be a table"),
        ("[deliver]\nname = 'x'\n", "deliver must be a list"),
        ("[[deliver]]\nhost = 'x'\n", "deliver[0] needs the key 'name'"),
        ("[assemble]\nquiet_by_modality_s = 3\n", "assemble.quiet_by_modality_s must be a table"),
        ("[assemble.quiet_by_modality_s]\nCT = 'x'\n", "assemble.quiet_by_modality_s.CT must be a number, not 'x'"),
        ("[receive]\nae_title = ''\n", "receive.ae_title '' is no AE title: 1 to 16 printable ASCII"),
        ("[receive]\nae_title = 'SEVENTEEN_LETTERS'\n", "receive.ae_title 'SEVENTEEN_LETTERS' is no AE title"),
        ("[receive]\nae_title = 'A\\B'\n", "receive.ae_title 'A\\\\B' is no AE title"),
        ("[receive]\nae_title = 'RÖNTGEN'\n", "receive.ae_title 'RÖNTGEN' is no AE title"),
        ("[[receive.allow]]\nae_title = 'SEVENTEEN_LETTERS'\n", "receive.allow: ae_title 'SEVENTEEN_LETTERS' is no"),
        ("[[receive.allow]]\nnetwork = '10.0.0.5/8'\n", "receive.allow network '10.0.0.5/8': 10.0.0.5/8 has host bits"),
        ("[[receive.allow]]\nnetwork = 'ct1'\n", "receive.allow network 'ct1': "),
        ("[[receive.allow]]\ncertificate = 'ct1'\n", "receive.allow *: a certificate is wanted, but nobody is asked"),
        ("[[receive.allow]]\ncalled_ae = 'STAT'\n", "receive.allow called_ae 'STAT' is not served (served: OVERREAD)"),
        ("[[receive.allow]]\nmax_per_minute = -1\n", "receive.allow *.max_per_minute is -1; it must be at least 0"),
        ("[[receive.called]]\npriority = 'STAT'\n", "receive.called[0] needs the key 'ae_title'"),
        (CALLED + "priority = 'NOW'\n", "receive.called STAT: priority is 'NOW'; it can be STAT or HIGH or ROUTINE"),
        (CALLED + "hint = 'two words'\n", "receive.called STAT: hint 'two words' must be one word"),
        (CALLED + CALLED, "receive.called names 'STAT' twice"),
        ("[receive.tls]\nport = 2762\n", "receive.tls.port is set, so receive.tls.certificate must name a PEM file"),
        (TLS + "client_certificates = 'required'\n", "receive.tls.port is set, so receive.tls.client_ca must name"),
        (TLS + "client_certificates = 'maybe'\n", "receive.tls.client_certificates is 'maybe'; it can be none or"),
        (TLS + "crl = 'x'\n", "receive.tls.crl is for client certificates"),
        (TLS + "profile = 'ssl3'\n", "receive.tls.profile is 'ssl3'; it can be bcp195 or bcp195-modified"),
        (TLS + "handshake_timeout_s = 0\n", "receive.tls.handshake_timeout_s is 0.0; it must be at least 0.1"),
        ("[receive]\nmax_connections = 0\n", "receive.max_connections is 0; it must be at least 1"),
        ("[receive]\nport = 70000\n", "a port is 70000; it must lie between 0 and 65535"),
        ("[observe]\nwork_port = -1\n", "a port is -1; it must lie between 0 and 65535"),
        ("[receive]\nmax_pdu_bytes = 0\n", "receive.max_pdu_bytes is 0; it must be at least 4096"),
        ("[receive]\nnetwork_timeout_s = 0\n", "receive.network_timeout_s is 0.0; it must be at least 0.1"),
        ("[schedule]\ndevice = 'gpu'\n", "schedule.device is 'gpu'; it can be auto, cpu or cuda:N, such as cuda:0"),
        ("[schedule]\nlease_s = nan\n", "schedule.lease_s is nan; it must be at least 1"),
        ("[schedule]\nslots = 0\n", "schedule.slots is 0; it must lie between 1 and 64"),
        ("[schedule]\nlease_s = -1\n", "schedule.lease_s is -1.0; it must be at least 1"),
        ("[retain]\ndays = -1\n", "retain.days is -1.0; it must be at least 0"),
        ("[retain]\nmax_gb = -1\n", "retain.max_gb is -1.0; it must be at least 0"),
        ("[retain]\nmin_free_mb = -1\n", "retain.min_free_mb is -1; it must be at least 0"),
        ("[retain]\nmin_free_mb = 0.5\n", "retain.min_free_mb must be a whole number, not 0.5"),
        ("[receive]\ndurability = 'some'\n", "receive.durability is 'some'; it can be full or none"),
        ("[receive]\nlayers = 'off'\n", "receive.layers must be true or false, not 'off'"),
        ("[observe]\nlog = 'xml'\n", "observe.log is 'xml'; it can be json or text"),
        ("[observe]\nlevel = 'loud'\n", "observe.level is 'loud'; it can be DEBUG or INFO"),
        (PACS + PACS, "two destinations share the name 'pacs'; names must differ"),
        (PACS + "kind = 'fax'\n", "deliver.kind is 'fax'; it can be dimse or stow or folder or object-store"),
        (PACS + "proof = 'honour'\n", "deliver 'pacs': proof for kind 'dimse' is 'honour'; it can be auto or c-find"),
        (PACS + "port = 0\n", "deliver 'pacs': port is 0; it must lie between 1 and 65535"),
        (PACS.replace('host = "10.0.0.5"', ""), "deliver 'pacs' needs a host"),
        (PACS.replace('"PACS"', '"THE_PACS_OF_THE_HOUSE"'), "deliver 'pacs': ae_title 'THE_PACS_OF_THE_HOUSE' is no"),
        ("[[deliver]]\nname = 'f'\nkind = 'folder'\n", "deliver 'f' needs a folder"),
        (PACS + "[canary]\nevery_min = 60\n", "canary.every_min needs a [[deliver]] with canary = true"),
        ("[canary]\nevery_min = -1\n", "canary.every_min is -1.0; it must be at least 0"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, reason: str) -> None:
    assert refusal(tmp_path, text).startswith(reason)


def test_broken_toml_is_told_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"overread\.toml is not valid TOML: .*line 1"):
        read(tmp_path, "data = \n")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "overread.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        read_settings(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the settings file .*none\.toml: No such file"):
        read_settings(tmp_path / "none.toml")


def test_files_of_tls_are_relative_to_the_settings(tmp_path: Path) -> None:
    tls = read(tmp_path, TLS).receive.tls
    assert (tls.certificate, tls.key, tls.client_ca) == (str(tmp_path / "c.pem"), str(tmp_path / "k.pem"), "")
