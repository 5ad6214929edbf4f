"""Forgetting a person: what every database of the spool has in common, most of all the digest that is left of an address."""

import hashlib
import secrets
from collections.abc import Collection, Iterable

from apptrack_ingest.errors import BeingWorkedOn, NotAllowed
from apptrack_ingest.lifecycle import WAITING
from apptrack_ingest.model import HeldReason, State
from apptrack_ingest.spool.records import Forgotten, Trace
from apptrack_ingest.spool.rows import Row


def folded(address: str) -> str:
    """The address as it is compared: capitals do not matter, nor do blanks around it."""
    return address.strip().casefold()


def whole_names(names: Iterable[str | None]) -> list[str]:
    """Those by which a person is found in words of others: a single word may mean anything."""
    return sorted({folded(name) for name in names if name and len(name.split()) > 1})


def digest_of(address: str, salt: str) -> str:
    """SHA-256 over salt and folded address. Without the address it tells nothing that could be looked up elsewhere."""
    return hashlib.sha256(f"{salt}\n{folded(address)}".encode("utf-8", "surrogatepass")).hexdigest()


def new_salt() -> str:
    """One for each spool, made when it first has to forget somebody."""
    return secrets.token_hex(16)


def trace_in(row: Row) -> Trace:
    """The trace an application's row is, with its message's `erased_at` and whether a report of it is `reporting`."""
    return Trace(
        application_id=row["id"],
        message_id=row["message_id"],
        account=row["account"],
        applicant_id=row["applicant_id"],
        state=State(row["state"]),
        reason=HeldReason(row["reason"]) if row["reason"] else None,
        believed=bool(row["trusted"] or row["vouched"]),
        in_work=bool(row["in_attempt"] or row["reporting"]),
        attempted=row["attempts"] > 0,
        erased=row["erased_at"] is not None,
        remote_id=row["remote_id"],
    )


def must_be_at_rest(traces: Collection[Trace]) -> None:
    """NotAllowed where one of them would still be handed over, BeingWorkedOn where a report of one is on its way."""
    for trace in traces:
        if trace.state in WAITING:
            raise NotAllowed(f"application {trace.application_id} still waits ({trace.state}); try again")
    for trace in traces:
        if trace.in_work:
            raise BeingWorkedOn(f"application {trace.application_id} is being worked on at this moment; try again soon")


def forgotten_in(row: Row) -> Forgotten:
    """What is left of a person."""
    return Forgotten(row["digest"], row["at"], row["actor"], row["applications"])
