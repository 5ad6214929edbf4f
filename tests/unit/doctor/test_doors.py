"""Addresses on real sockets, and certificates that are too old, of nobody, of another, or half a chain."""

import datetime
import errno
import socket

import pytest
import trustme

from apptrack_ingest.doctor.doors import certificate, listens
from apptrack_ingest.doctor.finding import Level
from apptrack_ingest.service import lock
from apptrack_ingest.settings import Settings

HOST = "mx.test.example"


@pytest.fixture
def taken():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def at(tmp_path, port, host="127.0.0.1"):
    return listens(Settings(data_dir=tmp_path), "address", "intake", host, port)


def test_a_free_address_can_be_had(tmp_path, taken):
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    assert at(tmp_path, free).level is Level.OK
    assert at(tmp_path, 0).level is Level.OK


def test_one_that_another_program_holds_fails(tmp_path, taken):
    finding = at(tmp_path, taken)
    assert finding.level is Level.FAIL and str(taken) in finding.advice
    assert list(tmp_path.iterdir()) == [], "looking makes no lock"


def test_where_the_lock_may_not_be_seen_nothing_is_said_of_who_holds_it(tmp_path, taken, monkeypatch):
    def refused(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(lock.os, "open", refused)  # as root one may everything
    finding = at(tmp_path, taken)
    assert finding.level is Level.WARN and "cannot be seen" in finding.found and "serve" in finding.advice


def test_one_that_our_own_service_holds_is_well_and_looking_does_not_disturb(tmp_path, taken):
    descriptor = lock.take(tmp_path, "intake", wait=0)
    try:
        assert at(tmp_path, taken).level is Level.OK
        with pytest.raises(lock.AlreadyRunning):
            lock.take(tmp_path, "intake", wait=0)
    finally:
        lock.os.close(descriptor)
    assert at(tmp_path, taken).level is Level.FAIL
    lock.os.close(lock.take(tmp_path, "intake", wait=0))


def test_those_who_look_do_not_see_each_other(tmp_path):
    lock.os.close(lock.take(tmp_path, "intake", wait=0))
    looking = lock.os.open(tmp_path / "intake.lock", lock.os.O_RDWR)
    try:
        assert lock._locked(looking, lock.fcntl.LOCK_SH)
        assert not lock.is_held(tmp_path, "intake")
    finally:
        lock.os.close(looking)


@pytest.mark.parametrize(("number", "words"), [(errno.EACCES, "may not"), (errno.EADDRNOTAVAIL, "cannot be listened")])
def test_one_that_the_system_refuses_fails(tmp_path, monkeypatch, number, words):
    def refused(*_):
        raise OSError(number, "no")

    monkeypatch.setattr("apptrack_ingest.doctor.doors.listening_sockets", refused)
    finding = at(tmp_path, 25)
    assert finding.level is Level.FAIL and words in finding.found


def test_an_address_of_another_machine_fails(tmp_path):
    assert at(tmp_path, 2525, "192.0.2.1").level is Level.FAIL


# --- certificates ----------------------------------------------------------------------------------------------------


class Made:
    """Settings with a certificate of an authority that this machine believes."""

    def __init__(self, directory, monkeypatch):
        self.directory, self.authority = directory, trustme.CA()
        self.authority.cert_pem.write_to_path(directory / "authority.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(directory / "authority.pem"))
        monkeypatch.setenv("SSL_CERT_DIR", str(directory / "none"))

    def found(self, *names, by=None, whole=True, **more):
        made = (by or self.authority).issue_cert(*names, **more)
        chain = made.cert_chain_pems if whole else made.cert_chain_pems[:1]
        (self.directory / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in chain))
        made.private_key_pem.write_to_path(self.directory / "key.pem")
        return self.look()

    def look(self):
        files = {"tls_certificate": self.directory / "cert.pem", "tls_key": self.directory / "key.pem"}
        return certificate(Settings(smtp={"hostname": HOST, "host": "0.0.0.0", **files}))


@pytest.fixture
def made(tmp_path, monkeypatch):
    return Made(tmp_path, monkeypatch)


def test_a_whole_chain_for_our_name_is_well(made):
    [finding] = made.found(HOST)
    assert finding.level is Level.OK and HOST in finding.found
    [finding] = made.found(HOST, by=made.authority.create_child_ca())
    assert finding.level is Level.OK


def test_half_a_chain_is_warned_of(made):
    [finding] = made.found(HOST, by=made.authority.create_child_ca(), whole=False)
    assert finding.level is Level.WARN and "issuer" in finding.found and "fullchain" in finding.advice


def test_one_of_an_authority_that_nobody_knows_is_warned_of(made):
    [finding] = made.found(HOST, by=trustme.CA())
    assert finding.level is Level.WARN


def test_one_for_another_name_is_warned_of(made):
    [finding] = made.found("mail.other.example")
    assert finding.level is Level.WARN and HOST in finding.found and "smtp.hostname" in finding.advice


@pytest.mark.parametrize(("days", "level"), [(-1, Level.FAIL), (3, Level.WARN), (40, Level.OK)])
def test_its_end(made, days, level):
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days, hours=1)
    begin = end - datetime.timedelta(days=90)
    [finding] = made.found(HOST, not_before=begin, not_after=end)
    assert finding.level is level and ("expire" in finding.found)


def test_a_key_of_another_certificate_fails(made, tmp_path):
    made.found(HOST)
    trustme.CA().issue_cert(HOST).private_key_pem.write_to_path(tmp_path / "key.pem")
    [finding] = made.look()
    assert finding.level is Level.FAIL and "the key is not this certificate's" in finding.found


@pytest.mark.parametrize("spoil", ["missing", "empty"])
def test_files_that_cannot_be_read_fail(made, tmp_path, spoil):
    made.found(HOST)
    (tmp_path / "cert.pem").unlink()
    if spoil == "empty":
        (tmp_path / "cert.pem").write_text("")
    [finding] = made.look()
    assert finding.level is Level.FAIL and "cert.pem" in finding.found


def test_none_at_all_is_warned_of_where_mail_crosses_a_network():
    assert [one.level for one in certificate(Settings(smtp={"host": "0.0.0.0"}))] == [Level.WARN]
    assert [one.level for one in certificate(Settings())] == [Level.OK]
