"""What the sandbox reads of a request: the fields of a form, or JSON for the sandbox itself."""

from collections.abc import Callable

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from apptrack_ingest.idibu import xml

_FORM = "application/x-www-form-urlencoded"


async def taken_up(request: Request, take_up: Callable[[bytes], None]) -> Response | None:
    """Takes up the JSON of a POST, and anything else as nothing; returns what to answer where it cannot be."""
    if request.method != "POST":
        return None
    if _media_type(request) != "application/json":
        return PlainTextResponse("Content-Type must be application/json", 415)
    if not _fits(request):
        return PlainTextResponse("Content-Length must be there, and no more than 1 MB", 413)
    try:
        take_up(await request.body())
    except ValidationError as error:
        return JSONResponse(error.errors(include_url=False, include_input=False, include_context=False), 400)
    return None


async def form(request: Request) -> dict[str, str]:
    """The fields of a form of the documented type; of anything else, none."""
    if request.method != "POST" or _media_type(request) != _FORM or not _fits(request):
        return {}
    return {key: value for key, value in (await request.form()).items() if isinstance(value, str)}


def _media_type(request: Request) -> str:
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _fits(request: Request) -> bool:
    """Whether the body says its length and is not too long (the server holds a client to what it said)."""
    return int(request.headers.get("Content-Length", "-1")) in range(xml.MAX_BYTES + 1)
