"""What the sandbox holds of accounts and jobs, and every change to it as a value that a file can keep."""

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from apptrack_ingest.idibu.accounts import Partner

FIRST_ACCOUNT = 1001
"""Client id of the first account the sandbox was given."""

FIRST_NEW_ACCOUNT = 2001
FIRST_JOB = 31003390
"""The ids of the seed's example, so that it can be replayed word for word."""
FIRST_QUEUE = 1802
FIRST_POSTING = 235


@dataclass(frozen=True, slots=True)
class Account:
    """An account, without its hash and password, which are never kept. `credits` None: not Pay Per Post."""

    client_id: int
    username: str
    fields: Mapping[str, str] = field(default_factory=dict)
    services: tuple[str, ...] = ()
    credits: int | None = None
    cc: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class QueuedPost:
    """A post in idibu's queue: `kind` add or del; `status` pending, cancelled, or replaced by a later one."""

    queue: int
    board: int
    kind: str
    publish: str
    duration: int
    status: str = "pending"

    @property
    def live(self) -> bool:
        """Whether the advert is, or will be, on the board."""
        return self.kind == "add" and self.status == "pending"


@dataclass(frozen=True, slots=True)
class Job:
    """A job of an account (by user name). `posting` is set while a person has to complete it."""

    id: int
    account: str
    client_reference: str
    reference: str
    title: str
    posts: tuple[QueuedPost, ...] = ()
    posting: int | None = None


@dataclass(frozen=True, slots=True)
class Arrived:
    """An applicant of an account (by user name) that reached idibu at `date` (epoch seconds)."""

    account: str
    id: int
    date: float
    email: str
    name: str
    reference: str


@dataclass(frozen=True, slots=True)
class Change:
    """What a request changed: accounts and jobs as they are afterwards, applicants that reached idibu, and the last numbers
    given out."""

    accounts: tuple[Account, ...] = ()
    jobs: tuple[Job, ...] = ()
    queue: int = 0
    posting: int = 0
    arrived: tuple[Arrived, ...] = ()


def change_from(values: Mapping[str, Any]) -> Change:
    """A change as it was before it went through JSON."""
    accounts = tuple(
        Account(**{**one, "services": tuple(one["services"]), "cc": tuple(one["cc"])}) for one in values["accounts"]
    )
    jobs = tuple(Job(**{**one, "posts": tuple(QueuedPost(**post) for post in one["posts"])}) for one in values["jobs"])
    arrived = tuple(Arrived(**one) for one in values.get("arrived", ()))  # older files know of none
    return Change(accounts, jobs, values["queue"], values["posting"], arrived)


class World:
    """All accounts, jobs and applicants that changes have left."""

    def __init__(self) -> None:
        self.accounts: dict[int, Account] = {}
        self.jobs: dict[int, Job] = {}
        self.arrived: dict[tuple[str, int], Arrived] = {}
        self.queue = FIRST_QUEUE - 1
        self.posting = FIRST_POSTING - 1

    def apply(self, change: Change) -> None:
        """Makes a change."""
        self.accounts.update({one.client_id: one for one in change.accounts})
        self.jobs.update({one.id: one for one in change.jobs})
        self.arrived.update({(one.account, one.id): one for one in change.arrived})
        self.queue = max(self.queue, change.queue)
        self.posting = max(self.posting, change.posting)

    def next_job(self) -> int:
        """The id of the next job."""
        return max(self.jobs, default=FIRST_JOB - 1) + 1

    def jobs_of(self, account: str) -> list[Job]:
        """An account's jobs, oldest first."""
        return [job for job in self.jobs.values() if job.account == account]


class Accounts:
    """The accounts the sandbox was given by their hashes, and those created since.

    A created account's hash follows from its id and the partner's password: it need not be kept anywhere.
    """

    def __init__(self, world: World, given: Mapping[str, str], partner: Partner) -> None:
        self.partner = partner
        self._world = world
        self._given = given

    def all(self) -> list[Account]:
        """Every account, in the order of their ids."""
        return sorted((account for _, account in self._hashed()), key=lambda account: account.client_id)

    def by_hash(self, hash: str) -> Account | None:
        """The account with this hash."""
        return next((account for known, account in self._hashed() if known == hash), None)

    def by_id(self, client_id: int | None) -> Account | None:
        """The account with this client id."""
        return next((account for account in self.all() if account.client_id == client_id), None)

    def hash_of(self, account: Account) -> str:
        """An account's hash; the first where it was given several."""
        return next(known for known, other in self._hashed() if other.client_id == account.client_id)

    def new(self, username: str) -> Account:
        """An account that could be created now."""
        number = max([FIRST_NEW_ACCOUNT - 1, *self._world.accounts]) + 1
        return Account(number, username)

    def hash_of_new(self, client_id: int) -> str:
        """The hash of an account that was, or would be, created with this id."""
        key = self.partner.password.get_secret_value().encode()
        return hmac.new(key, f"account {client_id}".encode(), hashlib.sha256).hexdigest()[:32]

    def _hashed(self) -> Iterator[tuple[str, Account]]:
        names = list(dict.fromkeys(self._given.values()))
        for known, name in self._given.items():
            number = FIRST_ACCOUNT + names.index(name)
            yield known, self._world.accounts.get(number) or Account(number, name)
        for number, account in self._world.accounts.items():
            if number >= FIRST_NEW_ACCOUNT:
                yield self.hash_of_new(number), account


def without_posts(job: Job, status: str) -> Job:
    """The job with all its live posts taken away."""
    return replace(job, posts=tuple(replace(post, status=status) if post.live else post for post in job.posts))
