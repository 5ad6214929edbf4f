"""The example ATS over real HTTP: what our webhook handler signs it takes, what anybody else sends it refuses."""

import base64
import importlib.util
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from apptrack_handlers.webhook import Webhook

from apptrack_ingest import Accepted, Application, Duplicate, RetryLater
from apptrack_ingest.testing import a_document, an_application

SOURCE = Path(__file__).resolve().parents[3] / "deploy" / "example-ats" / "ats.py"
SECRET = "whsec_" + base64.b64encode(b"an example key of 32 bytes, yes!").decode()
OTHER = "whsec_" + base64.b64encode(b"some other key of 32 bytes, yes!").decode()


@pytest.fixture(scope="module")
def ats() -> ModuleType:
    spec = importlib.util.spec_from_file_location("example_ats", SOURCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def url(ats: ModuleType, tmp_path: Path) -> Iterator[str]:
    """Where an empty ATS listens that knows SECRET."""
    server = ats.Ats(("127.0.0.1", 0), [ats.key_of(SECRET)], ats.Candidates(tmp_path / "candidates"))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join(10)
    server.server_close()


async def hand_over(url: str, application: Application, *secrets: str, **handler: Any) -> Any:
    webhook = Webhook(
        Webhook.Settings.model_validate(
            {"url": f"{url}/applications", "secrets": secrets or [SECRET], "retry_statuses": [401]}
        ),
        **handler,
    )
    try:
        return await webhook.handle(application)
    finally:
        await webhook.close()


def candidates(url: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{url}/candidates", timeout=10) as answer:
        found: list[dict[str, Any]] = json.load(answer)["candidates"]
    return found


def status_of(url: str, body: bytes, headers: dict[str, str]) -> int:
    request = urllib.request.Request(url, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


async def test_our_handlers_application_is_kept(url: str) -> None:
    assert await hand_over(url, an_application(account="acme")) == Accepted("acme-40809163")
    assert candidates(url) == [
        {
            "remote_id": "acme-40809163",
            "name": "Jane Doe",
            "email": "jane.doe@example.com",
            "job": "Senior .Net Developer",
            "client_reference": "VAC-1042",
            "documents": ["Jane Doe CV.pdf"],
        }
    ]


async def test_the_same_again_is_a_duplicate_and_other_content_an_update(url: str) -> None:
    await hand_over(url, an_application(account="acme"))
    assert await hand_over(url, an_application(account="acme", attempt=2)) == Duplicate("acme-40809163")
    updated = an_application(account="acme", documents=(a_document("New CV.pdf"),), text="Here is my new CV.")
    assert await hand_over(url, updated) == Accepted("acme-40809163")
    assert [candidate["documents"] for candidate in candidates(url)] == [["New CV.pdf"]]


async def test_another_secret_is_refused_and_one_of_two_will_do(url: str) -> None:
    with pytest.raises(RetryLater, match="401"):
        await hand_over(url, an_application(account="acme"), OTHER)
    assert candidates(url) == []
    assert await hand_over(url, an_application(account="acme"), OTHER, SECRET) == Accepted("acme-40809163")


async def test_an_old_request_is_refused(url: str) -> None:
    with pytest.raises(RetryLater, match="too far from our clock"):
        await hand_over(url, an_application(account="acme"), clock=lambda: 1_000_000_000.0)
    assert candidates(url) == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"webhook-id": "a", "webhook-timestamp": "soon", "webhook-signature": "v1,x"}, 401),
        ({"webhook-id": "a", "webhook-timestamp": "1", "webhook-signature": ""}, 401),
        ({"content-length": "99999999999"}, 413),
    ],
)
def test_a_stranger_is_refused(url: str, headers: dict[str, str], status: int) -> None:
    assert status_of(f"{url}/applications", b"{}", headers) == status
    assert candidates(url) == []


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"account": "../up", "applicant_id": 1, "idempotency_key": "k"}'])
def test_signed_nonsense_is_refused(ats: ModuleType, url: str, body: bytes) -> None:
    import time

    from apptrack_handlers.webhook import signed

    headers = signed("message", int(time.time()), [body], [ats.key_of(SECRET)])
    assert status_of(f"{url}/applications", body, headers) == 400
    assert candidates(url) == []


def test_it_is_healthy(url: str) -> None:
    with urllib.request.urlopen(f"{url}/healthz", timeout=10) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_c2hvcnQ=", "not base64!"])
def test_a_weak_secret_stops_the_start(ats: ModuleType, secret: str) -> None:
    with pytest.raises(ValueError, match="24 bytes"):
        ats.key_of(secret)
