"""Says what we answer and for whom we take mail: the table of our replies, the limits, recipients and their accounts."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property, lru_cache
from typing import Final, NamedTuple

# --- replies ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
    """One SMTP reply: code (RFC 5321, 4.2), enhanced code (RFC 3463; "" where RFC 2034 wants none) and text; `wire` is the
    same as it is sent, with CRLF."""

    code: int
    enhanced: str
    text: str
    wire: bytes = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "wire", self.render().encode() + b"\r\n")

    def render(self) -> str:
        """The reply's line, without CRLF."""
        if self.enhanced:
            return f"{self.code} {self.enhanced} {self.text}" if self.text else f"{self.code} {self.enhanced}"
        return f"{self.code} {self.text}" if self.text else str(self.code)

    def filled(self, **values: object) -> "Reply":
        """The same reply with the {fields} of its text filled in."""
        return Reply(self.code, self.enhanced, self.text.format(**values))


# The protocol's own (RFC 5321, 3207, 4954, 2034).
GREETING: Final = Reply(220, "", "{hostname} ESMTP apptrack-ingest")
HELLO: Final = Reply(250, "", "{hostname}")
BYE: Final = Reply(221, "2.0.0", "Bye")
AUTHENTICATED: Final = Reply(235, "2.7.0", "Authentication successful")
START_TLS: Final = Reply(220, "2.0.0", "Ready to start TLS")
HELP: Final = Reply(214, "2.0.0", "Commands: EHLO HELO MAIL RCPT DATA RSET NOOP VRFY HELP STARTTLS AUTH QUIT")
OK: Final = Reply(250, "2.0.0", "OK")
SENDER_OK: Final = Reply(250, "2.1.0", "Sender OK")
RECIPIENT_OK: Final = Reply(250, "2.1.5", "Recipient OK")
CANNOT_VERIFY: Final = Reply(252, "2.5.0", "Cannot verify; give it as a recipient and see")
CHALLENGE: Final = Reply(334, "", "{challenge}")
START_DATA: Final = Reply(354, "", "End data with <CR><LF>.<CR><LF>")
TLS_UNAVAILABLE: Final = Reply(454, "4.7.0", "TLS not available")
LINE_TOO_LONG: Final = Reply(500, "5.5.2", "Command line too long")
BAD_SYNTAX: Final = Reply(500, "5.5.2", "Syntax error")
UNKNOWN_COMMAND: Final = Reply(500, "5.5.1", "Command not recognised")
AUTH_LINE_TOO_LONG: Final = Reply(500, "5.5.6", "Authentication exchange line is too long")
BAD_ENCODING: Final = Reply(501, "5.5.2", "Not the base64 or the fields that this mechanism asks for")
BAD_ARGUMENTS: Final = Reply(501, "5.5.4", "Syntax error in the command's arguments")
AUTH_CANCELLED: Final = Reply(501, "5.7.0", "Authentication cancelled")
NOT_IMPLEMENTED: Final = Reply(502, "5.5.1", "Command not implemented")
HELO_FIRST: Final = Reply(503, "5.5.1", "Say EHLO or HELO first")
EHLO_FIRST: Final = Reply(503, "5.5.1", "Say EHLO first")
AUTH_TWICE: Final = Reply(503, "5.5.1", "Authenticated already")
AUTH_IN_MAIL: Final = Reply(503, "5.5.1", "No AUTH while a mail is being given")
MAIL_TWICE: Final = Reply(503, "5.5.1", "A sender was given already")
MAIL_FIRST: Final = Reply(503, "5.5.1", "Give a sender first (MAIL)")
RECIPIENT_FIRST: Final = Reply(503, "5.5.1", "Give an accepted recipient first (RCPT)")
TLS_ACTIVE: Final = Reply(503, "5.5.1", "TLS is active already")
UNKNOWN_MECHANISM: Final = Reply(504, "5.5.4", "Authentication mechanism not supported")
TLS_REQUIRED: Final = Reply(530, "5.7.0", "Must issue a STARTTLS command first")
AUTH_BUSY: Final = Reply(454, "4.7.0", "Temporary authentication failure")
AUTH_REQUIRED: Final = Reply(530, "5.7.0", "Authentication required")
WRONG_CREDENTIALS: Final = Reply(535, "5.7.8", "Authentication credentials invalid")
BAD_ADDRESS: Final = Reply(553, "5.1.3", "Malformed address")
UNKNOWN_PARAMETER: Final = Reply(555, "5.5.4", "Parameter not recognised or not implemented")

# The mail's.
QUEUED: Final = Reply(250, "2.6.0", "Queued as {id}")
IDLE: Final = Reply(421, "4.4.2", "Idle too long, closing")
SHUTTING_DOWN: Final = Reply(421, "4.3.2", "Shutting down, try again later")
TOO_MANY_ERRORS: Final = Reply(421, "4.7.0", "Too many unrecognised commands, closing")
TOO_MANY_LOGINS: Final = Reply(421, "4.7.0", "Too many failed logins, closing")
PROXY_REQUIRED: Final = Reply(421, "4.7.0", "Only by way of the load balancer, with a PROXY header")
SESSION_TOO_LONG: Final = Reply(421, "4.4.2", "Session lasted too long, closing")
TOO_MANY_COMMANDS: Final = Reply(421, "4.7.0", "Too many commands without a mail, closing")
TOO_MANY_CONNECTIONS: Final = Reply(421, "4.7.0", "Too many connections, try again later")
TOO_MANY_MAILS: Final = Reply(421, "4.7.0", "Too many mails from your network, try again later")
TRY_LATER: Final = Reply(451, "4.3.0", "Temporary failure here, try again later")
DNS_FAILED: Final = Reply(451, "4.4.3", "A DNS answer needed to know the sender did not come, try again later")
NO_ROOM: Final = Reply(452, "4.3.1", "No room at the moment, try again later")
TOO_MANY_RECIPIENTS: Final = Reply(452, "4.5.3", "Too many recipients, send the rest separately")
UNKNOWN_RECIPIENT: Final = Reply(550, "5.1.1", "No such recipient here")
UNTRUSTED: Final = Reply(550, "5.7.1", "Mail for this recipient is not taken from you")
TOO_BIG: Final = Reply(552, "5.3.4", "Message too big")
HEADERS_TOO_BIG: Final = Reply(552, "5.3.4", "Header section too big")
LOOP: Final = Reply(554, "5.4.6", "Too many Received headers, this mail loops")
BARE_LINE_ENDS: Final = Reply(554, "5.5.2", "Bare CR or LF in the mail")
NO_APPLICANT_ID: Final = Reply(554, "5.6.0", "No X-iTrackID in the mail")

REPLIES: Final[Mapping[str, Reply]] = {
    name: value for name, value in tuple(globals().items()) if isinstance(value, Reply)
}
"""Every reply we give, by name; docs/replies.md says what each means to a sender."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one session and one mail may take: sizes in bytes, times in seconds.

    `idle_timeout` is the wait for the next command (at least 5 minutes: RFC 5321, 4.5.3.2.7), `data_timeout` the wait
    for the next bytes of a mail, `put_timeout` the wait for the spool's commit before we answer 451. `commands` are
    those of a session since its last accepted mail, `session_time` is the whole of it, `bytes_wait` how long a mail
    waits for its part of the bytes in flight. A mail without X-iTrackID is held, or refused (`refuse_without_id`); one
    with a bare CR or LF is taken and the oddity noted, or refused (`refuse_bare_line_ends`).
    """

    message_size: int = 30 * 1024 * 1024
    header_block: int = 128 * 1024
    recipients: int = 100
    received_headers: int = 50
    idle_timeout: float = 300.0
    data_timeout: float = 180.0
    put_timeout: float = 30.0
    commands: int = 1000
    session_time: float = 3600.0
    bytes_wait: float = 30.0
    refuse_without_id: bool = False
    refuse_bare_line_ends: bool = False


# --- addresses ----------------------------------------------------------------------------------------------------

_LOCAL = r'(?:"(?:[^"\\\x00-\x1f\x7f]|\\[\x20-\x7e])*"|[^\s<>@"\x00-\x1f\x7f]+)'
_DOMAIN = r'(?:\[[^\[\]\s<>\x00-\x1f\x7f]+\]|[^\s<>@"\[\]\x00-\x1f\x7f]+)'
_ADDRESS = rf"{_LOCAL}(?:@{_DOMAIN})?"
_PATH = re.compile(rf"\s*(?:<(?:@[^:<>\s]*:)?(?P<angle>{_ADDRESS})?>|(?P<bare>{_ADDRESS}))(?P<rest>.*)", re.DOTALL)
_DOTS = re.compile("[.\u3002\uff0e\uff61]")

NULL_SENDER: Final = "<>"


def parse_path(text: str) -> tuple[str, str] | None:
    """Split MAIL's or RCPT's argument into address and parameters; None when it holds no usable address.

    RFC 5321, 4.1.2, read leniently (angle brackets may miss, a source route is dropped) because a refusal may cost an
    application; a control character, a space outside quotes or bytes that are not UTF-8 are refused. The null path
    comes back as `NULL_SENDER`.
    """
    match = _PATH.match(text)
    if match is None or not _is_utf8(text):
        return None
    return match["angle"] or match["bare"] or NULL_SENDER, match["rest"].strip()


def _is_utf8(text: str) -> bool:
    """Whether the text came from valid UTF-8: other bytes stand in it as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _domain_key(domain: str) -> str:
    """A domain as it is compared: lower case, each label in Unicode, no dot at the end.

    Unicode form rather than punycode, because IDNA 2003 and 2008 disagree on the punycode of the same label.
    """
    labels = _DOTS.split(domain.rstrip(".").lower())
    return ".".join(_label_key(label) for label in labels)


def _label_key(label: str) -> str:
    if label.startswith("xn--") and len(label) <= 63:
        try:
            label = label[4:].encode("ascii").decode("punycode")
        except UnicodeError:
            return label
    return unicodedata.normalize("NFKC", label).lower()


@lru_cache(1024)
def _split(address: str) -> tuple[str, str]:
    """Local part and domain as they are compared; a quoted local part loses its quotes, `user+tag` stays as it is."""
    if re.fullmatch(_LOCAL, address):
        local, domain = address, ""
    else:
        local, _, domain = address.rpartition("@")
    if local.startswith('"') and local.endswith('"') and len(local) > 1:
        local = re.sub(r"\\(.)", r"\1", local[1:-1])
    return unicodedata.normalize("NFC", local).lower(), _domain_key(domain)


# --- recipients ---------------------------------------------------------------------------------------------------


class Special(Enum):
    """What a recipient can be when it is no account's own."""

    SHARED = "shared"
    POSTMASTER = "postmaster"
    UNKNOWN = "unknown"


class Destination(NamedTuple):
    """How mail finds one account: its recipients (addresses, or domains with or without `@`), its idibu account's id."""

    recipients: frozenset[str]
    client_id: int | None = None


class Way(NamedTuple):
    """Where a mail goes: the accounts that its applications are for (as `route` gives them), the subaddresses of each (as
    `subaddresses`), and whether a recipient is postmaster."""

    accounts: "tuple[str | None, ...]"
    words: "Mapping[str | None, frozenset[str]]"
    for_postmaster: bool


@dataclass(frozen=True)
class Directory:
    """Whom we take mail for: the accounts by name, the recipients they share (told apart by X-iTrackID-ClientID), and
    `any_recipient`, the account that takes every recipient, from loopback only, where none is configured."""

    accounts: Mapping[str, Destination] = field(default_factory=dict)
    shared: frozenset[str] = frozenset()
    any_recipient: str | None = None

    def resolve(self, recipient: str, *, local: bool = True) -> "frozenset[str] | Special":
        """Whose recipient this is; an address goes before its domain, an account before what is shared.

        Local parts compare without regard to case, and without a subaddress (`user+word`, RFC 5233) where the whole is
        not known. `postmaster`, alone or at a domain of ours, is always taken (RFC 5321, 4.5.1). `local` tells whether
        the peer is on loopback, as `any_recipient` asks.
        """
        return self._resolved(recipient, local)

    @cached_property
    def _resolved(self) -> 'Callable[[str, bool], "frozenset[str] | Special"]':
        """Asked five times for each mail; it remembers the newest few."""
        return lru_cache(256)(self._resolve)

    def _resolve(self, recipient: str, local: bool) -> "frozenset[str] | Special":
        mailbox, domain = _split(recipient)
        if found := self._find((mailbox, domain)) or self._find((mailbox.partition("+")[0], domain)):
            return found
        if mailbox == "postmaster" and (not domain or domain in self._domains):
            return Special.POSTMASTER
        if found := self._find(("", domain)):
            return found
        if self.any_recipient is not None and local:
            return frozenset({self.any_recipient})
        return Special.UNKNOWN

    def way(self, recipients: tuple[str, ...], client_id: int | None) -> Way:
        """Where a mail to these recipients goes, by its X-iTrackID-ClientID."""
        return self._way_of_one(recipients, client_id) if len(recipients) == 1 else self._way(recipients, client_id)

    @cached_property
    def _way_of_one(self) -> Callable[[tuple[str, ...], int | None], Way]:
        """Nearly every mail has one recipient; the newest few are remembered."""
        return lru_cache(256)(self._way)

    def _way(self, recipients: tuple[str, ...], client_id: int | None) -> Way:
        accounts = route(recipients, client_id, self)
        for_postmaster = any(self.resolve(recipient) is Special.POSTMASTER for recipient in recipients)
        return Way(accounts, subaddresses(recipients, accounts, self), for_postmaster)

    def owners(self, client_id: int | None) -> frozenset[str]:
        """The accounts configured with this id of an idibu account."""
        if client_id is None:
            return frozenset()
        return frozenset(name for name, account in self.accounts.items() if account.client_id == client_id)

    def _find(self, key: tuple[str, str]) -> "frozenset[str] | Special | None":
        if names := self._owned.get(key):
            return names
        return Special.SHARED if key in self._shared else None

    @cached_property
    def _owned(self) -> Mapping[tuple[str, str], frozenset[str]]:
        found: dict[tuple[str, str], frozenset[str]] = {}
        for name, account in self.accounts.items():
            for key in map(_key, account.recipients):
                found[key] = found.get(key, frozenset()) | {name}
        return found

    @cached_property
    def _shared(self) -> frozenset[tuple[str, str]]:
        return frozenset(_key(spec) for spec in self.shared)

    @cached_property
    def _domains(self) -> frozenset[str]:
        return frozenset(domain for _, domain in (*self._owned, *self._shared))


def _key(spec: str) -> tuple[str, str]:
    """The key of a configured recipient: (local part, domain), or ("", domain) for `domain` and `@domain`."""
    return _split(spec) if "@" in spec.removeprefix("@") else ("", _domain_key(spec.removeprefix("@")))


def route(recipients: Sequence[str], client_id: int | None, directory: Directory) -> tuple[str | None, ...]:
    """The accounts a mail's applications are for, each once, in the order of the recipients; None is "unrouted".

    Shared recipients go by `client_id` (X-iTrackID-ClientID). Where it names another account than the recipient does,
    the mail is unrouted for that recipient, as it is when nothing matches at all.
    """
    names: list[str | None] = []
    for recipient in recipients:
        names.extend(_accounts_of(directory.resolve(recipient), client_id, directory))
    return tuple(dict.fromkeys(names)) or (None,)


def subaddress(recipient: str) -> str:
    """The word after the plus sign of a local part (RFC 5233), in lower case; "" where there is none."""
    return _split(recipient)[0].partition("+")[2]


def subaddresses(
    recipients: Sequence[str], accounts: Iterable[str | None], directory: Directory
) -> dict[str | None, frozenset[str]]:
    """For each of these accounts the subaddresses of its recipients; those of a shared recipient count for all."""
    words = [(directory.resolve(recipient), subaddress(recipient)) for recipient in recipients]
    return {
        account: frozenset(
            word for found, word in words if word and (found is Special.SHARED or _holds(found, account))
        )
        for account in accounts
    }


def _holds(found: "frozenset[str] | Special", account: str | None) -> bool:
    return not isinstance(found, Special) and account in found


def without_secret(recipient: str, is_secret: Callable[[str], bool]) -> str:
    """The recipient as it may be kept and shown: a subaddress that is a secret is replaced by `***`."""
    local, plus, rest = recipient.partition("+")
    if not plus or not is_secret(subaddress(recipient)):
        return recipient
    return f"{local}+***{rest[rest.rfind('@') :] if '@' in rest else ''}"


def _accounts_of(
    found: "frozenset[str] | Special", client_id: int | None, directory: Directory
) -> Iterable[str | None]:
    if found is Special.SHARED:
        return sorted(directory.owners(client_id))
    if isinstance(found, Special):
        return ()
    fitting = sorted(name for name in found if _fits(name, client_id, directory))
    return fitting or (None,)


def _fits(name: str, client_id: int | None, directory: Directory) -> bool:
    """Whether the mail's ClientID leaves room for the account its recipient names."""
    if client_id is None:
        return True
    account = directory.accounts.get(name)
    if account is not None and account.client_id is not None:
        return account.client_id == client_id
    return not directory.owners(client_id)
