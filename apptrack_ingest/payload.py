"""The JSON shape of an application, one and the same for every handler that speaks to a program in another language."""

import base64
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from apptrack_ingest.model import Application, Candidate, Document, Hint, Job, Owner, Source

VERSION = 1
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_LISTS = (list, tuple)  # made once: `list | tuple` would be made for every value

Documents = Literal["inline", "names", "none"]


def to_payload(application: Application, documents: Documents = "inline") -> dict[str, Any]:
    """The application as values that `json.dumps` takes and any JSON reader understands; times are ISO 8601 in UTC.

    `documents` says how much of each goes along: `inline` everything with the bytes as base64 in `content`, `names`
    all but the bytes, `none` leaves the key `documents` out. The raw mail is never part of it. `version` grows when a
    key changes its meaning or goes away; a new key is no new version.
    """
    payload: dict[str, Any] = {
        "version": VERSION,
        "account": application.account,
        "applicant_id": application.applicant_id,
        "idempotency_key": application.idempotency_key,
        "attempt": application.attempt,
        "received_at": _time(application.received_at),
        "client_reference": application.client_reference,
        "previous": _previous(application),
        "candidate": _fields(application.candidate)
        | {"hints": [_fields(hint) for hint in application.candidate.hints]},
        "job": _fields(application.job),
        "source": _fields(application.source),
        "owner": _fields(application.owner),
        "subject": application.subject,
        "text": application.text,
        "html": application.html,
        "warnings": application.warnings,
        "headers": application.headers,
    }
    if documents != "none":
        payload["documents"] = [_document(document, documents == "inline") for document in application.documents]
    return {key: _headers(value) if key == "headers" else _json_safe(value) for key, value in payload.items()}


def _fields(record: Candidate | Hint | Job | Source | Owner) -> dict[str, Any]:
    """What `dataclasses.asdict` gives of a record of plain values, which it would copy at five times the price."""
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def _previous(application: Application) -> dict[str, Any] | None:
    previous = application.previous
    if previous is None:
        return None
    return {"remote_id": previous.remote_id, "delivered_at": _time(previous.delivered_at)}


def _document(document: Document, with_content: bool) -> dict[str, Any]:
    shape: dict[str, Any] = {
        "name": document.name,
        "original_name": document.original_name,
        "claimed_type": document.claimed_type,
        "sniffed_type": document.sniffed_type,
        "size": document.size,
        "sha256": document.sha256,
        "role": document.role.value,
        "why": document.why,
        "disposition": document.disposition,
        "inside": document.inside,
        "flags": document.flags,
    }
    return shape | ({"content": base64.b64encode(document.content).decode("ascii")} if with_content else {})


def _time(moment: datetime) -> str:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat()


def _headers(headers: Sequence[tuple[str, str]]) -> Any:
    """As `_json_safe` has them; those of a mail are many, and nearly always of ASCII alone."""
    if "".join(map("".join, headers)).isascii():
        return list(map(list, headers))
    return _json_safe(headers)


def _json_safe(value: Any) -> Any:
    """Lone surrogates (header bytes that were no text) have no UTF-8, and readers refuse them: they become U+FFFD."""
    if isinstance(value, str):
        return value if value.isascii() else _LONE_SURROGATE.sub("\ufffd", value)
    if isinstance(value, dict):
        # Most are nothing, or plain: not asked for each, of some hundred that an application has.
        return {
            key: item if item is None or (type(item) is str and item.isascii()) else _json_safe(item)
            for key, item in value.items()
        }
    if isinstance(value, _LISTS):
        return [_json_safe(item) for item in value]
    return value
