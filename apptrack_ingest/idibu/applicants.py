"""idibu's list of an account's applicants: those its job boards sent it, whether their mail ever reached anybody or not.

No seed shows it: it follows idibu's later public documentation (docs/idibu.md, Applicants), what that leaves open is marked
as assumed, and not every account may use it.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime

from lxml import etree
from pydantic import SecretStr

from apptrack_ingest.idibu import limits, xml
from apptrack_ingest.idibu.answers import Answer, date_of
from apptrack_ingest.idibu.calls import Calls, Request, every, understood
from apptrack_ingest.idibu.limits import LARGEST_PAGE

PATH = "/ws/rest/v1/applicants"
CALL = "applicants"
"""What the sandbox's script calls it."""


@dataclass(frozen=True, slots=True)
class ListedApplicant:
    """An applicant as idibu lists it. `date` is when it reached idibu, as idibu writes it: it names no time zone. `name` is
    the address where idibu knows none; an erased applicant's address is `deleted@idibu.com`. `xml` is all that idibu said
    of it: rank, parsed address and files among it."""

    id: int
    date: datetime | None = None
    status: str | None = None
    job_id: int | None = None
    job_reference: str | None = None
    portal_id: int | None = None
    portal_name: str | None = None
    email: str | None = field(default=None, repr=False)
    name: str | None = field(default=None, repr=False)
    xml: str = field(default="", repr=False)


class Applicants:
    """The list of applicants, for the account with this hash. Raises ValueError before sending without one."""

    def __init__(self, calls: Calls, hash: SecretStr | None) -> None:
        self._calls = calls
        self._hash = hash

    def listed(
        self, after: datetime | None = None, before: datetime | None = None, offset: int = 0, page: int = LARGEST_PAGE
    ) -> AsyncIterator[ListedApplicant]:
        """The applicants that reached idibu after and before these times, each once, fetched `page` (1 to 100) at a time
        (GET /applicants, later documents). The times are sent as their own clock shows them.

        Raises IdibuRefused, IdibuUnauthorized or IdibuNotUnderstood where the account may not use it; which of them is
        assumed, for no document shows such an answer.
        """
        limits.page(page, offset)
        bounds = {"after_date": after, "before_date": before}
        given = {name: f"{time:%Y-%m-%d %H:%M:%S}" for name, time in bounds.items() if time is not None}

        async def fetch(offset: int) -> list[ListedApplicant]:
            request = self._request({**given, "count": str(page), "offset": str(offset)})
            return understood(_applicants, await self._calls.call(request))

        return every(fetch, lambda one: one.id, offset)

    def _request(self, params: dict[str, str]) -> Request:
        if self._hash is None:
            raise ValueError("this call needs the account's hash")
        return Request("GET", PATH, {**params, "hash": self._hash})


def _applicants(answer: Answer) -> list[ListedApplicant]:
    """The applicants of a page. Raises xml.XmlError when one of them has no id; nothing else is relied on. (Assumed: a list
    that is empty may lack its `applicants` element, or stand directly in the response.)"""
    if answer.response is None:
        return []
    around = next(xml.children(answer.response, "applicants"), answer.response)
    return [_applicant(element) for element in xml.children(around, "applicant")]


def _applicant(element: etree._Element) -> ListedApplicant:
    number = xml.number_of(xml.text_of(element, "id"))
    if number is None:
        raise xml.XmlError("an applicant without id")
    job = next(xml.children(element, "job"), None)
    return ListedApplicant(
        id=number,
        date=date_of(xml.text_of(element, "date")),
        status=xml.text_of(element, "status") or None,
        job_id=None if job is None else xml.number_of(xml.text_of(job, "id")),
        job_reference=None if job is None else xml.text_of(job, "reference") or None,
        portal_id=xml.number_of(xml.text_of(element, "portal-id")),
        portal_name=xml.text_of(element, "portal-name") or None,
        email=xml.text_of(element, "email") or None,
        name=xml.text_of(element, "name") or None,
        xml=etree.tostring(element, encoding="unicode", with_tail=False),
    )
