"""The client for idibu's applicant-status service: tell what became of an applicant, and read back what idibu holds.

An HTTP 200 is no success: only `success` in idibu's XML is. Other services of idibu find the same door in http.py and
the same understanding of answers in answers.py.
"""

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

import httpx
from pydantic import SecretStr

from apptrack_ingest.errors import IdibuNotUnderstood, IdibuRefused, IdibuUnauthorized
from apptrack_ingest.idibu import answers, xml
from apptrack_ingest.idibu.answers import Answer, ApplicantStatus
from apptrack_ingest.idibu.http import Http, Reply, redact

PATH = "/ws/rest/v1/applicant-status"
LARGEST_PAGE = 100
DETAIL_LIMIT = 500
"""Characters kept of idibu's own words; they are shown to people in the history."""

_SLOW_DOWN = frozenset({429, 503})
_DENIED = frozenset({401, 403})


class IdibuBusy(IdibuNotUnderstood):
    """HTTP 429 or 503, whatever else it says; `after` is how many seconds it wants us to wait, if it says."""

    code = "busy"

    def __init__(self, detail: str, after: float | None) -> None:
        self.after = after
        super().__init__(detail)


class Client:
    """The applicant-status service for one account.

    `base_url` is idibu's address without path (https://ws.idibu.com), `timeout` the seconds one call may take in all.
    An `http` given is shared and left open; without one the client has its own, closed by `close()` or `async with`.
    Every call raises IdibuRefused, IdibuUnauthorized, IdibuNotUnderstood (IdibuBusy among them) or IdibuUnreachable.
    Neither repr nor errors nor logs hold the hash.
    """

    def __init__(self, base_url: str, hash: SecretStr, timeout: float = 30.0, http: Http | None = None) -> None:
        self._url = _checked(base_url) + PATH
        if not hash.get_secret_value():
            raise ValueError("the hash is empty")
        self._hash = hash
        self._timeout = timeout
        self._http = http or Http()
        self._owned = http is None

    async def post_status(self, applicant_id: int, document: str) -> None:
        """Stores an applicant's status (seed-applicant-status.txt); `document` is the `<applicant>` element.

        Returns only when idibu's XML says success. May be repeated: idibu updates what it holds.
        """
        await self._call("POST", f"{self._url}/{applicant_id:d}", {}, {"data": document})

    async def get_status(self, applicant_id: int) -> ApplicantStatus | None:
        """What idibu holds of one applicant; None when it answers with success and no applicant."""
        listed = _applicants(await self._call("GET", f"{self._url}/{applicant_id:d}", {}))
        return next((one for one in listed if one.id == applicant_id), None)

    def statuses(self, offset: int = 0, page: int = LARGEST_PAGE) -> AsyncIterator[ApplicantStatus]:
        """All applicants of the account from `offset` on, fetched `page` (1 to 100) at a time."""
        return self._pages({}, offset, page)

    def by_remote_id(self, remote_id: str, page: int = LARGEST_PAGE) -> AsyncIterator[ApplicantStatus]:
        """The applicants with this remote id; `*` in it stands for any text."""
        return self._pages({"remote-id": remote_id}, 0, page)

    async def close(self) -> None:
        """Closes the connections, unless they are shared."""
        if self._owned:
            await self._http.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _pages(self, params: dict[str, str], offset: int, page: int) -> AsyncIterator[ApplicantStatus]:
        """Goes on until a page brings nothing new: a service may give fewer than asked for, or the same page for ever.

        The page's size is named twice: `limit` by the older documents, `count` by the later ones.
        """
        seen: set[int] = set()
        while True:
            size = {"offset": str(offset), "count": str(page), "limit": str(page)}
            listed = _applicants(await self._call("GET", self._url, params | size))
            fresh = [one for one in listed if one.id not in seen]
            for one in fresh:
                yield one
            if not fresh:
                return
            seen.update(one.id for one in fresh)
            offset += len(listed)

    async def _call(self, method: str, url: str, params: dict[str, str], form: dict[str, str] | None = None) -> Answer:
        reply = await self._http.exchange(method, url, {**params, "hash": self._hash}, form, self._timeout)
        if reply.status in _SLOW_DOWN:
            raise IdibuBusy(str(reply), reply.retry_after)
        answer = self._understood(reply)
        if not answer.succeeded:
            denied = reply.status in _DENIED or answer.blames_hash
            raise (IdibuUnauthorized if denied else IdibuRefused)(self._words(answer))
        if not 200 <= reply.status < 300:
            raise IdibuNotUnderstood(f"{reply}: says success all the same")
        return answer

    def _words(self, answer: Answer) -> str:
        """Redacted before it is cut, so that no half of the hash stays at the end."""
        said = xml.clean(redact(answer.message, {"hash": self._hash}), DETAIL_LIMIT)
        return said or "failed, without a word why"

    def _understood(self, reply: Reply) -> Answer:
        try:
            return answers.read(reply.body)
        except xml.XmlError as error:
            problem = f"{reply}: {error}"
        if reply.status in _DENIED:
            raise IdibuUnauthorized(problem)
        raise IdibuNotUnderstood(problem)


def _applicants(answer: Answer) -> list[ApplicantStatus]:
    try:
        return answers.applicants(answer)
    except xml.XmlError as error:
        raise IdibuNotUnderstood(str(error)) from None


def _checked(base_url: str) -> str:
    """The base URL without its last slash. Raises ValueError (which does not repeat it) when it is none."""
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment or url.userinfo:
        raise ValueError("idibu's base URL must be http(s)://host[:port], without user, query or fragment")
    return base_url.rstrip("/")
