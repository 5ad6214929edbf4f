"""The JSON shape of an application is a public promise: these tests spell it out."""

import base64
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from apptrack_ingest import Previous, to_payload
from apptrack_ingest.testing import A_PDF, a_document, a_hostile_application, an_application


def test_the_shape_in_full() -> None:
    delivered = datetime(2026, 3, 1, 12, 0, tzinfo=timezone(timedelta(hours=2)))
    application = an_application(previous=Previous("ats-1", delivered), idempotency_key="key", warnings=("cut",))
    assert to_payload(application) == {
        "version": 1,
        "account": "default",
        "applicant_id": 40809163,
        "idempotency_key": "key",
        "attempt": 1,
        "received_at": "2026-03-02T09:30:00+00:00",
        "client_reference": "VAC-1042",
        "previous": {"remote_id": "ats-1", "delivered_at": "2026-03-01T10:00:00+00:00"},
        "candidate": {
            "name": "Jane Doe",
            "email": "jane.doe@example.com",
            "source": "From",
            "hints": [{"kind": "phone", "value": "+44 20 7946 0123", "source": "text"}],
        },
        "job": {
            "id": 37068825,
            "title": "Senior .Net Developer",
            "reference": "JO-1502-428583",
            "type": "2 Permanent",
        },
        "source": {"portal_id": 338, "portal_name": "Seek", "post_log_id": 38504886},
        "owner": {
            "id": 3007241,
            "name": "Kara Smith",
            "email": "karas@idibu.com",
            "office": "New Zealand",
            "team": "AUK JS Uploads",
        },
        "subject": "Application for Senior .Net Developer",
        "text": application.text,
        "html": application.html,
        "warnings": ["cut"],
        "headers": [["Subject", "Application for Senior .Net Developer"], ["X-iTrackID", "40809163"]],
        "documents": [
            {
                "name": "Jane Doe CV.pdf",
                "original_name": "Jane Doe CV.pdf",
                "claimed_type": "application/pdf",
                "sniffed_type": "application/pdf",
                "size": len(A_PDF),
                "sha256": a_document().sha256,
                "role": "cv",
                "why": "its name says so",
                "disposition": None,
                "inside": None,
                "flags": [],
                "content": base64.b64encode(A_PDF).decode(),
            }
        ],
    }


def test_what_is_missing_is_null() -> None:
    payload = to_payload(an_application(subject=None, client_reference=None, documents=(), idempotency_key="key"))
    assert payload["subject"] is payload["client_reference"] is payload["previous"] is None
    assert payload["documents"] == []


def test_documents_by_name_or_not_at_all() -> None:
    (named,) = to_payload(an_application(), documents="names")["documents"]
    assert named["name"] == "Jane Doe CV.pdf"
    assert "content" not in named
    assert "documents" not in to_payload(an_application(), documents="none")


def test_hostile_text_stays_json_that_any_reader_takes() -> None:
    payload = to_payload(a_hostile_application())
    assert json.loads(json.dumps(payload, ensure_ascii=False).encode("utf-8")) == payload


def test_a_time_without_a_zone_counts_as_utc() -> None:
    payload = to_payload(an_application(received_at=datetime(2026, 3, 2, 9, 30, tzinfo=UTC).replace(tzinfo=None)))
    assert payload["received_at"] == "2026-03-02T09:30:00+00:00"


@pytest.mark.parametrize(
    ("headers", "shown"),
    [
        ((), []),
        ((("To", "a"), ("To", "b")), [["To", "a"], ["To", "b"]]),
        ((("To", "a"), ("Subject", "für")), [["To", "a"], ["Subject", "für"]]),
        ((("To", "REF\udce9-1"), ("X-\udce9", "b")), [["To", "REF\ufffd-1"], ["X-\ufffd", "b"]]),
    ],
)
def test_headers_are_all_there_in_order_and_are_json(headers: Any, shown: Any) -> None:
    payload = to_payload(an_application(headers=headers), documents="none")
    assert payload["headers"] == shown
    assert list(payload)[-1] == "headers"
