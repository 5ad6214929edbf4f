"""Lists end, whatever a server makes of `offset`, `count` and `limit`."""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from apptrack_ingest.idibu import Client, IdibuNotUnderstood, Partner, calls
from apptrack_ingest.idibu.sandbox_server import serving

TOTAL = 23
Params = Mapping[str, str]


def window(offset: str | None, size: str | None, usual: int = 10) -> list[int]:
    start = int(offset or 0)
    return list(range(1, TOTAL + 1))[start : start + int(size or usual)]


SERVERS: dict[str, Callable[[Params], list[int]]] = {
    "the seed's": lambda given: window(given.get("offset"), given.get("limit")),
    "the later documents'": lambda given: window(given.get("offset"), given.get("count")),
    "always ten": lambda given: window(given.get("offset"), None),
    "no offset": lambda given: window(None, given.get("count")),
    "no paging": lambda given: window(None, str(TOTAL)),
    "overlapping": lambda given: window(str(max(0, int(given.get("offset", 0)) - 1)), "5"),
    "twice the same in a page": lambda given: window(given.get("offset"), "4") * 2,
}
COMPLETE = set(SERVERS) - {"no offset", "twice the same in a page"}


@contextlib.asynccontextmanager
async def answering(page: Callable[[Params], list[int]], form: bool) -> AsyncIterator[tuple[str, list[Params]]]:
    asked: list[Params] = []

    async def statuses(request: Request) -> Response:
        given = request.query_params if not form else {k: str(v) for k, v in (await request.form()).items()}
        asked.append(given)
        applicants = "".join(f"<applicant><id>{n}</id><status>success</status></applicant>" for n in page(given))
        clients = "".join(
            f"<client><client-hash>h{n}</client-hash><client-id>{n}</client-id><username>7</username></client>"
            for n in page(given)
        )
        body = f"<response>{applicants}<clients>{clients}</clients></response><status>success</status>"
        return Response(f"<idibu>{body}</idibu>")

    app = Starlette(routes=[Route("/{path:path}", statuses, methods=["GET", "POST"])])
    async with serving(app, "127.0.0.1", 0, lambda: None) as url:
        yield url, asked


@pytest.mark.parametrize("server", SERVERS)
async def test_every_list_ends_and_gives_each_item_once(server: str) -> None:
    async with answering(SERVERS[server], form=False) as (url, asked), Client(url, SecretStr("h")) as client:
        found = [one.id async for one in client.statuses(page=5)]
    assert found == sorted(set(found))
    assert len(asked) <= TOTAL
    assert found == list(range(1, TOTAL + 1)) or server not in COMPLETE


@pytest.mark.parametrize("form", [True, False])
async def test_accounts_are_paged_by_form_or_by_query(form: bool) -> None:
    """The document does not say where it wants `count` and `offset`."""
    partner = Partner(1, SecretStr("p"))
    page = SERVERS["the later documents'"]
    async with answering(page, form) as (url, asked), Client(url, None, partner=partner) as client:
        found = [one.client_id async for one in client.service.accounts(page=10)]
    assert found == list(range(1, TOTAL + 1))
    assert [(given["offset"], given["count"]) for given in asked] == [
        ("0", "10"),
        ("10", "10"),
        ("20", "10"),
        ("23", "10"),
    ]


@pytest.mark.parametrize(("offset", "page"), [(0, 0), (0, 101), (-1, 10)])
async def test_limits_of_a_page(client: Client, offset: int, page: int) -> None:
    for wrong in (client.statuses, client.service.accounts):
        with pytest.raises(ValueError, match=r"page|offset"):
            wrong(offset, page)
    with pytest.raises(ValueError, match=r"page|offset"):
        await client.service.view_credits(offset, page)


async def test_a_list_that_always_brings_something_new_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "PAGES_AT_MOST", 4)

    def anew(given: Params) -> list[int]:
        return [int(given.get("offset", 0)) + 1]

    async with answering(anew, form=False) as (url, asked), Client(url, SecretStr("h")) as client:
        with pytest.raises(IdibuNotUnderstood, match="does not end: 4 pages"):
            async for _ in client.statuses(page=1):
                pass
    assert len(asked) == 4
