"""What idibu would say when it is asked for its list of applicants, as far as its documents tell (docs/sandbox.md)."""

from collections.abc import Mapping
from datetime import UTC, datetime

from lxml import etree
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from apptrack_ingest.idibu import xml
from apptrack_ingest.idibu.sandbox_answers import Said, date
from apptrack_ingest.idibu.sandbox_endpoint import Call
from apptrack_ingest.idibu.sandbox_store import Store
from apptrack_ingest.idibu.sandbox_world import Arrived

USUAL_PAGE = 10
LARGEST_PAGE = 100


class NewApplicant(BaseModel):
    """An applicant that reaches idibu, as the sandbox is told of it; `date` None: now (epoch seconds)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    account: str
    id: int = Field(ge=1, lt=10**18)
    date: float | None = None
    email: str = Field(default="jane.doe@example.com", max_length=320)
    name: str = Field(default="Jane Doe", max_length=200)
    reference: str = Field(default="REF-1", max_length=200)


NEW_APPLICANTS = TypeAdapter(list[NewApplicant])
"""Reads several as JSON."""


def judge(call: Call, store: Store) -> Said:
    """idibu's answer; nothing is changed by it."""
    if call.account is None:
        return Said(False, "Invalid hash")
    if call.method != "GET":
        return Said(False, "Unknown method")
    try:
        after, before = (_epoch(call.params.get(name)) for name in ("after_date", "before_date"))
    except ValueError:
        return Said(False, "Invalid after_date or before_date")
    found = [
        one
        for one in known(store, call.account)
        if (after is None or one.date >= after) and (before is None or one.date <= before)
    ]
    return _page(found, call.params)


def known(store: Store, account: str) -> list[Arrived]:
    """The account's applicants: those the sandbox was told of, and those that anybody told it a status of."""
    told = {one.id: one for one in store.world.arrived.values() if one.account == account}
    for held in store.applicants(account):
        told.setdefault(held.id, Arrived(account, held.id, held.created, "", "", ""))
    return list(told.values())


def _page(found: list[Arrived], params: Mapping[str, str]) -> Said:
    offset = xml.number_of(params.get("offset", "")) or 0
    asked = xml.number_of(params.get("count", ""))
    count = USUAL_PAGE if asked is None else min(max(asked, 1), LARGEST_PAGE)
    applicants, total = etree.Element("applicants"), etree.Element("total")
    for one in found[offset : offset + count]:
        _applicant(applicants, one)
    total.text = str(len(found))
    return Said(True, content=(applicants, total), note=f"{len(applicants)} of {len(found)} applicants")


def _applicant(around: etree._Element, one: Arrived) -> None:
    element = xml.add(around, "applicant")
    xml.add(element, "id", str(one.id))
    xml.add(element, "email", one.email)
    xml.add(element, "parsed_email")
    xml.add(element, "name", one.name or one.email)
    job = xml.add(element, "job")
    xml.add(job, "id")
    xml.add(job, "reference", one.reference)
    for name in ("portal-id", "portal-name"):
        xml.add(element, name)
    xml.add(element, "date", date(one.date))
    for name in ("rank", "status", "files"):
        xml.add(element, name)


def _epoch(text: str | None) -> float | None:
    """A day or a time, in UTC. Raises ValueError for anything else."""
    if not text:
        return None
    form = "%Y-%m-%d" if len(text) == len("2026-03-02") else "%Y-%m-%d %H:%M:%S"
    return datetime.strptime(text, form).replace(tzinfo=UTC).timestamp()
