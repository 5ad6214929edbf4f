"""The client for idibu's web services: applicant status here, service management and jobs beside it.

An HTTP 200 is no success: only `success` in idibu's XML is.
"""

from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

from pydantic import SecretStr

from apptrack_ingest.idibu import answers, limits
from apptrack_ingest.idibu.accounts import Partner
from apptrack_ingest.idibu.answers import Answer, ApplicantStatus
from apptrack_ingest.idibu.applicants import Applicants
from apptrack_ingest.idibu.calls import DETAIL_LIMIT, Calls, IdibuBusy, Request, Retry, every, understood
from apptrack_ingest.idibu.http import Door, Values
from apptrack_ingest.idibu.jobs import Jobs
from apptrack_ingest.idibu.limits import LARGEST_PAGE
from apptrack_ingest.idibu.service_management import ServiceManagement
from apptrack_ingest.idibu.statuses import Addressing, StatusUpdate

__all__ = ["DETAIL_LIMIT", "PATH", "Client", "IdibuBusy"]

PATH = "/ws/rest/v1/applicant-status"


class Client:
    """idibu's web services for one account, for one partner, or both.

    `base_url` is idibu's address without path (https://ws.idibu.com), `hash` the account's API secret (None: the client
    is for service management alone), `timeout` the seconds one attempt may take in all. An `http` given is shared and
    left open; without one the client has its own, closed by `close()` or `async with`. `partner` opens
    service management. Nothing is repeated unless `retry` says so, and then only what is safe to repeat.

    Every call raises IdibuRefused, IdibuUnauthorized, IdibuNotUnderstood (IdibuBusy among them) or IdibuUnreachable; their
    `temporary` says whether the same call can help later. After one of the last two the call may have been carried out
    all the same. ValueError: it was not sent, for it breaks a documented limit. Neither repr nor errors nor logs hold
    the hash or the partner's password.
    """

    def __init__(
        self,
        base_url: str,
        hash: SecretStr | None,
        timeout: float = 30.0,
        http: Door | None = None,
        *,
        partner: Partner | None = None,
        retry: Retry | None = None,
    ) -> None:
        secrets = {"hash": hash, "partner-password": partner and partner.password}
        known = {name: secret for name, secret in secrets.items() if secret}
        self._calls = Calls(base_url, timeout, http, retry, known)
        if hash is not None and not hash.get_secret_value():
            raise ValueError("the hash is empty")
        self._hash = hash
        self.service = ServiceManagement(self._calls, partner, hash)
        """Accounts, their services, credits and Global CC (seed-service-management.txt)."""
        self.applicants = Applicants(self._calls, hash)
        """The list of those who applied (later documents alone; not every account may use it)."""
        self.jobs = Jobs(self._calls, hash)
        """Jobs by client reference or id (seed-client-reference.html.txt)."""

    async def post_status(self, applicant_id: int, status: StatusUpdate | str) -> None:
        """Stores an applicant's status (seed-applicant-status.txt); a text is the whole `<applicant>` element.

        Returns only when idibu's XML says success. May be repeated: idibu updates what it holds.
        """
        document = status if isinstance(status, str) else status.to_xml()
        path, form = f"{PATH}/{applicant_id:d}", {"data": document}
        await self._calls.call(self._request("POST", path, form=form, read=answers.read_again))

    async def get_status(self, applicant_id: int, addressing: Addressing = Addressing.PATH) -> ApplicantStatus | None:
        """What idibu holds of one applicant (seed-applicant-status.txt, option 1; the other addressing is of later
        documents); None when it answers with success, but not with this applicant.
        """
        if addressing is Addressing.PATH:
            listed = await self._listed(self._request("GET", f"{PATH}/{applicant_id:d}"))
        else:
            listed = await self._listed(self._request("GET", PATH, {"id": f"{applicant_id:d}"}))
        return next((one for one in listed if one.id == applicant_id), None)

    def statuses(self, offset: int = 0, page: int = LARGEST_PAGE) -> AsyncIterator[ApplicantStatus]:
        """All applicants of the account from `offset` on, each once, fetched `page` (1 to 100) at a time
        (seed-applicant-status.txt, option 2)."""
        return self._pages({}, offset, page)

    def by_remote_id(self, remote_id: str, page: int = LARGEST_PAGE) -> AsyncIterator[ApplicantStatus]:
        """The applicants with this remote id; `*` in it stands for any text (seed-applicant-status.txt, option 3)."""
        return self._pages({"remote-id": remote_id}, 0, page)

    async def close(self) -> None:
        """Closes the connections, unless they are shared."""
        await self._calls.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _pages(self, params: dict[str, str], offset: int, page: int) -> AsyncIterator[ApplicantStatus]:
        """The page's size is named twice: `limit` by the seed, `count` by later documents."""
        limits.page(page, offset)

        async def fetch(offset: int) -> list[ApplicantStatus]:
            size = {"offset": str(offset), "count": str(page), "limit": str(page)}
            return await self._listed(self._request("GET", PATH, params | size))

        return every(fetch, lambda one: one.id, offset)

    async def _listed(self, request: Request) -> list[ApplicantStatus]:
        return understood(answers.applicants, await self._calls.call(request))

    def _request(
        self,
        method: str,
        path: str,
        params: Values | None = None,
        form: Values | None = None,
        read: Callable[[bytes], Answer] = answers.read,
    ) -> Request:
        if self._hash is None:
            raise ValueError("this call needs the account's hash")
        return Request(method, path, {**(params or {}), "hash": self._hash}, form, read=read)
