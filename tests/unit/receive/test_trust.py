"""Which peers are believed."""

import pytest

from apptrack_ingest.receive.trust import judge


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.255.0.9", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_trusted(peer):
    assert judge(peer).trusted


@pytest.mark.parametrize(
    "peer",
    ["192.0.2.1", "10.0.0.1", "172.17.0.1", "2001:db8::1", "::ffff:10.0.0.1", "fe80::1%eth0", "", "localhost", "::"],
)
def test_all_else_is_not(peer):
    verdict = judge(peer)
    assert not verdict.trusted
    assert verdict.note
