"""Says who may connect and how often who may send, so that one network cannot take what all have to share."""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from functools import lru_cache

WINDOW = 60.0
"""Seconds: every rate here is so many a minute."""

NETWORKS = 10_000
"""How many networks' rates are remembered each for itself."""

CROWDS = 256
"""How many sets of rates all other networks share."""


class Limit(StrEnum):
    """Every limit of the intake that a peer or a mail can meet: the fixed words of metrics and logs."""

    CONNECTIONS = "connections"
    CONNECTIONS_PER_NETWORK = "connections-per-network"
    CONNECTION_RATE = "connection-rate"
    MESSAGE_RATE = "message-rate"
    UNTRUSTED_RATE = "untrusted-rate"
    UNTRUSTED_SIZE = "untrusted-size"
    UNTRUSTED_BACKLOG = "untrusted-backlog"
    COMMANDS = "commands"
    SESSION_TIME = "session-time"
    IDLE = "idle"
    RECIPIENTS = "recipients"
    MESSAGE_SIZE = "message-size"
    HEADER_BLOCK = "header-block"
    RECEIVED_COUNT = "received-count"
    BYTES_IN_FLIGHT = "bytes-in-flight"
    DISK_BYTES = "disk-bytes"
    DISK_INODES = "disk-inodes"
    BACKLOG = "backlog"
    CREDENTIALS = "credentials"
    AUTH_QUEUE = "auth-queue"
    TLS_HANDSHAKE = "tls-handshake"
    COMMIT_TIME = "commit-time"
    PROXY = "proxy"


@dataclass(frozen=True, slots=True)
class Caps:
    """How many connections there may be, and how many of what a minute.

    `connections` are all that are open at once; `strangers_share` is the part of them (0 to 1) that peers who are not
    listed may take together, so that slow strangers cannot shut out listed peers. All else is for each network of
    strangers (wrong passwords: of listed peers too): the first `ipv4_width` or `ipv6_width` bits of an address. A rate of 0
    lets nothing through.
    """

    connections: int = 1000
    connections_per_network: int = 50
    new_connections_per_minute: int = 120
    messages_per_minute: int = 300
    untrusted_per_minute: int = 30
    wrong_logins_per_minute: int = 10
    strangers_share: float = 0.8
    ipv4_width: int = 24
    ipv6_width: int = 64


class _What(Enum):
    """What is counted by the minute."""

    CONNECTION = auto()
    MESSAGE = auto()
    UNTRUSTED = auto()
    LOGIN = auto()


_Rates = dict[_What, float]
"""For each of them the time at which all of its allowance will be back (the generic cell rate algorithm, ITU-T I.371)."""


class Doorkeeper:
    """Counts connections and mails by network; peers for which `exempt` is true are limited by the total alone.

    A rate is a minute's allowance, to be used at once or evenly: what was used comes back at the rate. Refusals use
    nothing, so an offender is held to its rate and no longer. `clock` gives seconds that only go on (monotonic).

    Memory is bounded whatever comes. Open connections are their own bound. Rates are remembered for `networks` networks
    that still owe something, and none of these is ever dropped for a newer one; a network that finds no place (someone
    sends from more networks at once) shares the rates of one of a few crowds, chosen by a hash with a secret key. So an
    attacker with millions of networks gets the allowance of `networks` + CROWDS of them and no more; strangers who come
    meanwhile may share a crowd with him and be put off until a minute after he stops; listed peers notice nothing.
    """

    def __init__(
        self, caps: Caps, exempt: Callable[[str], bool], clock: Callable[[], float], *, networks: int = NETWORKS
    ) -> None:
        self._caps = caps
        self._exempt = exempt
        self._clock = clock
        self._places = networks
        self._rates: dict[bytes, _Rates] = {}
        self._crowds: tuple[_Rates, ...] = tuple({} for _ in range(CROWDS))
        self._next_sweep = clock()
        self._open = 0
        self._strangers = 0
        # Kept with the network each counts for, which a reload may draw otherwise.
        self._networks_of: dict[str, list[bytes]] = {}
        self._open_by_network: dict[bytes, int] = {}

    def configure(self, caps: Caps, exempt: Callable[[str], bool]) -> None:
        """Use these from now on (a reload); who is in stays in, and what was used stays used."""
        self._caps = caps
        self._exempt = exempt

    @property
    def connections(self) -> int:
        """How many came in and did not leave yet."""
        return self._open

    def enter(self, peer: str) -> Limit | None:
        """Whether a new connection from this IP address may come in: None, and `leave` must be called once for it; else
        the limit that it met."""
        if self._open >= self._caps.connections:
            return Limit.CONNECTIONS
        if not self._exempt(peer):
            network = self._network(peer)
            met = self._stranger_met(network)
            if met is not None:
                return met
            self._strangers += 1
            self._networks_of.setdefault(peer, []).append(network)
            self._open_by_network[network] = self._open_by_network.get(network, 0) + 1
        self._open += 1
        return None

    def leave(self, peer: str) -> None:
        """A connection from this address that had come in is gone.

        Where a reload made a listed peer a stranger or the reverse, its older connections count as what they were.
        """
        self._open -= 1
        if peer not in self._networks_of:
            return
        self._strangers -= 1
        networks = self._networks_of[peer]
        network = networks.pop()
        if not networks:
            del self._networks_of[peer]
        self._open_by_network[network] -= 1
        if not self._open_by_network[network]:
            del self._open_by_network[network]

    def message(self, peer: str) -> Limit | None:
        """Whether this peer may send one more mail now (and that it does), else the limit that it met."""
        if self._exempt(peer) or self._use(_What.MESSAGE, self._network(peer), self._caps.messages_per_minute):
            return None
        return Limit.MESSAGE_RATE

    def untrusted(self, peer: str) -> Limit | None:
        """Whether one more mail that nobody vouches for is taken from this peer (and that it is), else the limit."""
        if self._exempt(peer) or self._use(_What.UNTRUSTED, self._network(peer), self._caps.untrusted_per_minute):
            return None
        return Limit.UNTRUSTED_RATE

    def login(self, peer: str) -> Limit | None:
        """Whether a password of this peer's may be looked at now (and that it is), else the limit that it met. Listed peers
        are no exception: a password is guessed from anywhere."""
        used = self._use(_What.LOGIN, self._network(peer), self._caps.wrong_logins_per_minute)
        return None if used else Limit.CREDENTIALS

    def not_wrong(self, peer: str) -> None:
        """The password last looked at was right, or was not looked at after all: only wrong ones are counted."""
        now = self._clock()
        rates = self._rates_of(self._network(peer), now)
        interval = WINDOW / max(self._caps.wrong_logins_per_minute, 1)
        rates[_What.LOGIN] = max(rates.get(_What.LOGIN, now) - interval, now)

    def network(self, peer: str) -> bytes | None:
        """The network that a stranger counts for; None: a listed peer, who counts for none."""
        return None if self._exempt(peer) else self._network(peer)

    def _stranger_met(self, network: bytes) -> Limit | None:
        caps = self._caps
        if self._strangers >= int(caps.connections * caps.strangers_share):
            return Limit.CONNECTIONS
        if self._open_by_network.get(network, 0) >= caps.connections_per_network:
            return Limit.CONNECTIONS_PER_NETWORK
        used = self._use(_What.CONNECTION, network, caps.new_connections_per_minute)
        return None if used else Limit.CONNECTION_RATE

    def _use(self, what: _What, network: bytes, per_minute: int) -> bool:
        """Take one from the network's allowance; False: there is none left."""
        if per_minute <= 0:
            return False
        interval, now = WINDOW / per_minute, self._clock()
        rates = self._rates_of(network, now)
        owed = max(rates.get(what, now) - now, 0.0)
        if owed > WINDOW + interval:
            owed = WINDOW  # the clock went back
        granted = owed + interval / 2 <= WINDOW
        rates[what] = now + owed + (interval if granted else 0.0)
        return granted

    def _rates_of(self, network: bytes, now: float) -> _Rates:
        known = self._rates.get(network)
        if known is not None:
            return known
        if len(self._rates) >= self._places:
            self._sweep(now)
        if len(self._rates) >= self._places:
            return self._crowds[hash(network) % CROWDS]
        return self._rates.setdefault(network, {})

    def _sweep(self, now: float) -> None:
        """Forget networks whose whole allowance is back: a new one would get the same. At most once a second."""
        if now < self._next_sweep <= now + 1:
            return
        self._next_sweep = now + 1
        self._rates = {network: rates for network, rates in self._rates.items() if _owes(rates, now)}

    def _network(self, peer: str) -> bytes:
        return network_of(peer, self._caps.ipv4_width, self._caps.ipv6_width)


@lru_cache(1024)
def network_of(peer: str, ipv4_width: int = 24, ipv6_width: int = 64) -> bytes:
    """The network an IP address counts for, as a key; IPv4 mapped into IPv6 is IPv4. What is no address is one network."""
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return b""
    address = getattr(address, "ipv4_mapped", None) or address
    dropped = max(0, address.max_prefixlen - (ipv4_width if address.version == 4 else ipv6_width))
    return (int(address) >> dropped << dropped).to_bytes(address.max_prefixlen // 8, "big")


def _owes(rates: _Rates, now: float) -> bool:
    return any(now < full_at <= now + 2 * WINDOW for full_at in rates.values())
