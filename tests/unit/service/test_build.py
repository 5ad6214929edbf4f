"""A certificate that is being renewed turns nobody away."""

import ssl

import pytest
import trustme

from apptrack_ingest.service import build
from apptrack_ingest.settings import Settings, Smtp


@pytest.fixture
def certificate(tmp_path):
    issued = trustme.CA().issue_cert("mx.test.example")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "chain.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    return tmp_path


def factory(directory):
    smtp = Smtp(tls_certificate=directory / "chain.pem", tls_key=directory / "key.pem")
    return build.tls_context(Settings(data_dir=directory / "data", smtp=smtp))


def test_while_the_files_cannot_be_used_the_last_good_certificate_is(certificate):
    context = factory(certificate)
    good = context()
    key = (certificate / "key.pem").read_bytes()
    (certificate / "key.pem").write_bytes(key[:100])
    assert context() is good
    (certificate / "key.pem").unlink()
    assert context() is good
    (certificate / "key.pem").write_bytes(key)
    assert context() is not good


def test_at_the_start_there_is_none_to_fall_back_on(certificate):
    (certificate / "key.pem").write_bytes(b"half")
    with pytest.raises(ssl.SSLError):
        factory(certificate)()
