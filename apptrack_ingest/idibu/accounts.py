"""The nouns of service management: partner, account, services, credits, Global CC (seed-service-management.txt).

Each answer keeps idibu's own XML in `xml`. Of the numbers only ids and credits are typed: the document calls user names
integers. Hashes and passwords are wrapped, people's data and the XML are left out of every repr.
"""

from dataclasses import dataclass, field, fields

from pydantic import SecretStr

from apptrack_ingest.idibu import limits

Fields = list[tuple[str, str | SecretStr]]
"""Elements of a request, in order."""


@dataclass(frozen=True, slots=True)
class Partner:
    """Who may manage accounts: the partner's id (`exempt-id`) and password, both given by idibu."""

    id: int
    password: SecretStr

    def __post_init__(self) -> None:
        limits.identity("the partner's id", self.id)
        limits.given("the partner's password", self.password.get_secret_value())


@dataclass(frozen=True, slots=True)
class NewAccount:
    """An account to be created, its fields in the document's order.

    Raises ValueError for a user name or password over 32 characters, a malformed address, a missing mandatory field.
    """

    username: str
    password: SecretStr
    firstname: str = field(repr=False)
    lastname: str = field(repr=False)
    email: str = field(repr=False)
    company_name: str
    address1: str = field(repr=False)
    country: str
    postcode: str = field(repr=False)
    phone: str = field(repr=False)
    www: str
    address: str | None = field(default=None, repr=False)
    address2: str | None = field(default=None, repr=False)
    address3: str | None = field(default=None, repr=False)
    fax: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        limits.login("username", self.username)
        limits.login("password", self.password.get_secret_value())
        limits.address("email", self.email)
        for name in ("firstname", "lastname", "company_name", "address1", "country", "postcode", "phone", "www"):
            limits.given(name, getattr(self, name))


@dataclass(frozen=True, slots=True)
class AccountChanges:
    """What to change of an account; what is None stays as it is. Raises ValueError as NewAccount does, and for no change."""

    password: SecretStr | None = None
    firstname: str | None = field(default=None, repr=False)
    lastname: str | None = field(default=None, repr=False)
    email: str | None = field(default=None, repr=False)
    company_name: str | None = None
    address: str | None = field(default=None, repr=False)
    address1: str | None = field(default=None, repr=False)
    address2: str | None = field(default=None, repr=False)
    address3: str | None = field(default=None, repr=False)
    country: str | None = None
    postcode: str | None = field(default=None, repr=False)
    phone: str | None = field(default=None, repr=False)
    fax: str | None = field(default=None, repr=False)
    www: str | None = None

    def __post_init__(self) -> None:
        if not elements(self):
            raise ValueError("there is nothing to change")
        if self.password is not None:
            limits.login("password", self.password.get_secret_value())
        if self.email is not None:
            limits.address("email", self.email)


_ORDER = (
    *("username", "password", "firstname", "lastname", "email", "company_name", "address", "address1", "address2"),
    *("address3", "country", "postcode", "phone", "fax", "www"),
)


def elements(account: NewAccount | AccountChanges) -> Fields:
    """The fields that were given, under the document's names, in its order."""
    known = {one.name for one in fields(account)}
    values = [(name.replace("_", "-"), getattr(account, name)) for name in _ORDER if name in known]
    return [(name, value) for name, value in values if value is not None]


@dataclass(frozen=True, slots=True)
class Done:
    """A success with nothing but words: of adding or removing services."""

    message: str
    xml: str = field(default="", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ChangedAccount:
    """An account just created or updated. Keep the hash of a new one: it is the account's API secret."""

    message: str
    client_hash: SecretStr
    client_id: int
    xml: str = field(default="", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class AccountEntry:
    """An account in the partner's list."""

    client_hash: SecretStr
    client_id: int
    username: str
    xml: str = field(default="", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class AccountDetails:
    """All that idibu tells of an account; what it leaves out or empty is None."""

    client_hash: SecretStr
    client_id: int
    username: str
    firstname: str | None = field(default=None, repr=False)
    lastname: str | None = field(default=None, repr=False)
    email: str | None = field(default=None, repr=False)
    phone: str | None = field(default=None, repr=False)
    company_name: str | None = None
    address: str | None = field(default=None, repr=False)
    address1: str | None = field(default=None, repr=False)
    address2: str | None = field(default=None, repr=False)
    address3: str | None = field(default=None, repr=False)
    country: str | None = None
    postcode: str | None = field(default=None, repr=False)
    fax: str | None = field(default=None, repr=False)
    www: str | None = None
    xml: str = field(default="", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class EnabledServices:
    """The services an account has."""

    names: tuple[str, ...]
    xml: str = field(default="", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class AccountCredits:
    """An account's Pay Per Post credits in the partner's list."""

    client_hash: SecretStr
    client_id: int
    username: str
    credits: int
    xml: str = field(default="", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Credits:
    """The partner's Pay Per Post credits: those left to give, those given, all; and who has how many."""

    available: int
    allocated: int
    total: int
    accounts: tuple[AccountCredits, ...]
    xml: str = field(default="", repr=False, compare=False)
    """Of the first page."""


@dataclass(frozen=True, slots=True)
class ChangedCredits:
    """An account's credits after a change."""

    message: str
    client_id: int
    credits: int
    xml: str = field(default="", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class GlobalCc:
    """The addresses that idibu copies every forwarded application to; none: it is switched off."""

    addresses: tuple[str, ...]
    message: str = ""
    xml: str = field(default="", repr=False, compare=False)
