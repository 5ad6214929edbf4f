"""Who may connect and send: every limit bites where it should, nobody else is hurt, and memory stays bounded."""

import ipaddress
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apptrack_ingest.receive.rates import CROWDS, Caps, Doorkeeper, Limit, network_of

LISTED = "10.0.0.1"


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keep(clock):
    """Makes a doorkeeper; caps by keyword. Only LISTED is listed."""

    def make(networks: int = 100, **caps) -> Doorkeeper:
        return Doorkeeper(Caps(**caps), lambda peer: peer == LISTED, clock, networks=networks)

    return make


def strangers():
    """Addresses of strangers, each from a network of its own."""
    return (f"2001:db8:{high:x}:{low:x}::1" for high, low in itertools.product(range(0xFFFF), range(0xFFFF)))


# --- networks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.254", True),
        ("192.0.2.1", "192.0.3.1", False),
        ("192.0.2.1", "::ffff:192.0.2.77", True),
        ("2001:db8::1", "2001:db8::ffff:1:2:3", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("0.0.0.1", "::1", False),
        ("", "not an address", True),
    ],
)
def test_a_network_is_a_24_of_ipv4_and_a_64_of_ipv6(one, other, same):
    assert (network_of(one) == network_of(other)) is same


@pytest.mark.parametrize(("width", "same"), [(8, True), (15, True), (16, False), (32, False), (0, True), (99, False)])
def test_the_width_of_a_network_is_a_parameter(width, same):
    assert (network_of("10.1.0.0", ipv4_width=width) == network_of("10.0.0.0", ipv4_width=width)) is same


@given(st.ip_addresses(), st.ip_addresses())
def test_two_addresses_share_a_key_if_they_share_a_network(one, other):
    def network(address):
        address = getattr(address, "ipv4_mapped", None) or address
        return ipaddress.ip_network((address, 24 if address.version == 4 else 64), strict=False)

    assert (network_of(str(one)) == network_of(str(other))) == (network(one) == network(other))


@given(st.text(max_size=30))
def test_no_peer_makes_it_fail(peer):
    door = Doorkeeper(Caps(), lambda _: False, lambda: 0.0)
    assert door.enter(peer) is None and door.message(peer) is None
    door.leave(peer)
    assert door.connections == 0


# --- connections ------------------------------------------------------------------------------------------------------


def test_no_more_connections_than_in_all(keep):
    door = keep(connections=2)
    assert [door.enter(LISTED) for _ in range(3)] == [None, None, Limit.CONNECTIONS]
    door.leave(LISTED)
    assert door.connections == 1
    assert door.enter(LISTED) is None


def test_strangers_together_leave_room_for_listed_peers(keep):
    door = keep(connections=10, strangers_share=0.8)
    assert [door.enter(peer) for peer in itertools.islice(strangers(), 9)] == [None] * 8 + [Limit.CONNECTIONS]
    assert [door.enter(LISTED) for _ in range(3)] == [None, None, Limit.CONNECTIONS]
    door.leave("2001:db8:0:3::1")
    assert door.enter("198.51.100.1") is None


def test_no_network_of_strangers_has_more_than_its_connections(keep):
    door = keep(connections_per_network=2)
    assert [door.enter(f"192.0.2.{host}") for host in (1, 1, 2)] == [None, None, Limit.CONNECTIONS_PER_NETWORK]
    assert door.enter("192.0.3.1") is None
    door.leave("192.0.2.1")
    assert door.enter("192.0.2.9") is None
    assert [door.enter(LISTED) for _ in range(5)] == [None] * 5


def test_a_listed_peer_beside_strangers_does_not_count_for_their_network(keep):
    door = keep(connections_per_network=1)
    assert door.enter("10.0.0.2") is None
    for _ in range(3):
        assert door.enter(LISTED) is None
        door.leave(LISTED)
    assert door.enter("10.0.0.3") is Limit.CONNECTIONS_PER_NETWORK


def test_new_connections_come_at_their_rate(keep, clock):
    door = keep(new_connections_per_minute=3)

    def come_and_go(peer: str = "192.0.2.1") -> Limit | None:
        met = door.enter(peer)
        if met is None:
            door.leave(peer)
        return met

    assert [come_and_go() for _ in range(4)] == [None, None, None, Limit.CONNECTION_RATE]
    assert door.connections == 0
    assert come_and_go("192.0.3.1") is None
    assert [come_and_go(LISTED) for _ in range(9)] == [None] * 9
    clock.now += 20
    assert [come_and_go() for _ in range(2)] == [None, Limit.CONNECTION_RATE]
    clock.now += 60
    assert [come_and_go() for _ in range(4)] == [None, None, None, Limit.CONNECTION_RATE]


def test_a_connection_refused_for_another_reason_uses_no_rate(keep):
    door = keep(connections_per_network=1, new_connections_per_minute=2)
    assert door.enter("192.0.2.1") is None
    assert {door.enter("192.0.2.1") for _ in range(5)} == {Limit.CONNECTIONS_PER_NETWORK}
    door.leave("192.0.2.1")
    assert door.enter("192.0.2.1") is None


# --- mails ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "cap", "limit"),
    [
        (Doorkeeper.message, "messages_per_minute", Limit.MESSAGE_RATE),
        (Doorkeeper.untrusted, "untrusted_per_minute", Limit.UNTRUSTED_RATE),
    ],
)
def test_mails_come_at_their_rate(keep, clock, ask, cap, limit):
    door = keep(**{cap: 30})
    assert [ask(door, "192.0.2.1") for _ in range(31)] == [None] * 30 + [limit]
    assert ask(door, "192.0.3.1") is None
    assert {ask(door, LISTED) for _ in range(100)} == {None}
    clock.now += 2.001
    assert [ask(door, "192.0.2.200") for _ in range(2)] == [None, limit]


def test_the_rates_of_one_network_do_not_mix(keep):
    door = keep(messages_per_minute=1, untrusted_per_minute=1, new_connections_per_minute=1)
    peer = "192.0.2.1"
    assert [door.enter(peer), door.message(peer), door.untrusted(peer)] == [None, None, None]
    assert [door.enter(peer), door.message(peer), door.untrusted(peer)] == [
        Limit.CONNECTION_RATE,
        Limit.MESSAGE_RATE,
        Limit.UNTRUSTED_RATE,
    ]


def test_a_rate_of_nothing_lets_nothing_through(keep):
    door = keep(untrusted_per_minute=0)
    assert door.untrusted("192.0.2.1") is Limit.UNTRUSTED_RATE
    assert door.untrusted(LISTED) is None


@given(st.integers(1, 60), st.lists(st.floats(0, 30), max_size=20))
def test_never_more_than_a_minutes_allowance_and_what_came_back(rate, pauses):
    clock = Clock()
    door = Doorkeeper(Caps(messages_per_minute=rate), lambda _: False, clock)
    passed = 0
    for pause in pauses:
        clock.now += pause
        while door.message("192.0.2.1") is None:
            passed += 1
            assert passed <= rate + rate * (clock.now - 1000) / 60 + 0.51
    assert passed >= min(1, len(pauses)) * rate


def test_a_clock_that_went_back_shuts_nobody_out_for_long(keep, clock):
    door = keep(messages_per_minute=60)
    assert door.message("192.0.2.1") is None
    clock.now -= 900
    assert door.message("192.0.2.1") is Limit.MESSAGE_RATE
    clock.now += 1
    assert door.message("192.0.2.1") is None


# --- more networks than there are places ------------------------------------------------------------------------------


def test_memory_is_bounded_whatever_comes(keep):
    door = keep(networks=100)
    for peer in itertools.islice(strangers(), 5000):
        door.message(peer)
        if door.enter(peer) is None:
            door.leave(peer)
    assert len(door._rates) == 100 and len(door._crowds) == CROWDS
    assert not door._networks_of and not door._open_by_network


def test_many_networks_together_get_a_bounded_allowance(keep):
    door = keep(networks=10, untrusted_per_minute=2)
    passed = sum(door.untrusted(peer) is None for peer in itertools.islice(strangers(), 20_000))
    assert passed <= 10 + 2 * CROWDS


def test_an_offender_cannot_wash_himself_clean_by_a_flood(keep):
    door = keep(networks=10, messages_per_minute=2)
    assert [door.message("192.0.2.1") for _ in range(3)] == [None, None, Limit.MESSAGE_RATE]
    for peer in itertools.islice(strangers(), 5000):
        door.message(peer)
    assert door.message("192.0.2.1") is Limit.MESSAGE_RATE


def test_a_flood_is_nothing_to_listed_peers(keep):
    door = keep(networks=10, messages_per_minute=1, connections=100)
    for peer in itertools.islice(strangers(), 5000):
        door.message(peer)
        door.enter(peer)
    assert {door.message(LISTED) for _ in range(50)} == {None}
    assert door.enter(LISTED) is None


def test_places_are_free_again_when_the_allowance_is_back(keep, clock):
    door = keep(networks=10, messages_per_minute=2)
    for peer in itertools.islice(strangers(), 5000):
        door.message(peer)
    assert {door.message("192.0.2.1") for _ in range(2)} == {Limit.MESSAGE_RATE}  # its crowd has used all
    clock.now += 61
    assert [door.message("192.0.2.1") for _ in range(3)] == [None, None, Limit.MESSAGE_RATE]
    assert len(door._rates) == 1


# --- a reload ---------------------------------------------------------------------------------------------------------


def test_a_reload_keeps_who_is_in_and_what_was_used(keep):
    door = keep(connections_per_network=5, messages_per_minute=2)
    peers = ["192.0.2.1", "192.0.2.2", LISTED]
    assert [door.enter(peer) for peer in peers] == [None] * 3
    assert [door.message("192.0.2.1") for _ in range(2)] == [None, None]
    door.configure(Caps(connections_per_network=2, messages_per_minute=2, ipv4_width=16), lambda peer: "192" in peer)
    assert door.message("192.0.2.1") is None
    assert door.enter("192.0.2.3") is None
    for peer in [*peers, "192.0.2.3"]:
        door.leave(peer)
    assert door.connections == door._strangers == 0
    assert not door._networks_of and not door._open_by_network
    door.configure(Caps(messages_per_minute=2), lambda _: False)
    assert door.message("192.0.2.1") is Limit.MESSAGE_RATE


def test_the_words_of_the_limits_are_fit_for_metrics():
    assert all(limit.value == limit.name.lower().replace("_", "-") for limit in Limit)
    assert len(Limit) == 23


# --- wrong passwords --------------------------------------------------------------------------------------------------


def test_wrong_passwords_of_a_network_are_counted_a_listed_ones_too(keep, clock):
    door = keep(wrong_logins_per_minute=2)
    for peer, same in (("192.0.2.1", "192.0.2.9"), (LISTED, LISTED)):
        assert [door.login(one) for one in (peer, same, peer)] == [None, None, Limit.CREDENTIALS]
    assert door.login("198.51.100.1") is None
    clock.now += 30
    assert [door.login("192.0.2.1") for _ in range(2)] == [None, Limit.CREDENTIALS]


def test_right_ones_are_not(keep):
    door = keep(wrong_logins_per_minute=1)
    for _ in range(5):
        assert door.login("192.0.2.1") is None
        door.not_wrong("192.0.2.1")
    door.not_wrong("192.0.2.1")
    assert [door.login("192.0.2.1") for _ in range(2)] == [None, Limit.CREDENTIALS]


def test_a_strangers_network_and_that_a_listed_peer_has_none(keep):
    door = keep()
    assert door.network("192.0.2.1") == door.network("192.0.2.77") == network_of("192.0.2.0")
    assert door.network(LISTED) is None
