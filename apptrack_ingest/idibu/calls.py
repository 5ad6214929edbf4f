"""One call to idibu: sent through the door, its answer understood, its failure named; repeated only where that is safe."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar
from urllib.parse import quote

import httpx
from pydantic import SecretStr

from apptrack_ingest.errors import IdibuError, IdibuNotUnderstood, IdibuRefused, IdibuUnauthorized
from apptrack_ingest.idibu import answers, xml
from apptrack_ingest.idibu.answers import Answer
from apptrack_ingest.idibu.http import Door, Http, Reply, Values, redact

DETAIL_LIMIT = 500
"""Characters kept of idibu's own words; they are shown to people in the history."""

EXCERPT_LIMIT = 120
"""Characters shown of what came in place of idibu's XML: enough to tell a proxy's page from an error of PHP."""

_SLOW_DOWN = frozenset({429, 503})
_DENIED = frozenset({401, 403})
_PASSING = frozenset({408, 421, 425, 429})
_TAG = re.compile(r"<[^<>]*>")

T = TypeVar("T")
E = TypeVar("E", bound=IdibuError)


class IdibuBusy(IdibuNotUnderstood):
    """HTTP 429 or 503, whatever else it says; `after` is how many seconds it wants us to wait, if it says."""

    code = "busy"

    def __init__(self, detail: str, after: float | None) -> None:
        self.after = after
        super().__init__(detail)


@dataclass(frozen=True, slots=True)
class Retry:
    """When a call that is safe to repeat is made again: after temporary errors alone, up to `attempts` in all.

    The waits in between start at `first` seconds and double; Retry-After is obeyed, and where it asks for more than
    `longest` seconds the call gives up at once. `sleep` is how to wait.
    """

    attempts: int = 3
    first: float = 1.0
    longest: float = 30.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def wait(self, error: IdibuError, attempt: int) -> float | None:
        """Seconds until the next attempt after this many; None: there is none."""
        asked = getattr(error, "after", None)
        wait = self.first * 2 ** (attempt - 1) if asked is None else asked
        return wait if error.temporary and attempt < self.attempts and wait <= self.longest else None


def hash_or_refused(answer: Answer) -> type[IdibuError]:
    """What a `failed` is that may be about the account's hash."""
    return IdibuUnauthorized if answer.blames_hash else IdibuRefused


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask of idibu, `path` below the base URL; secrets in it stay wrapped until it is sent.

    `last_segment` is a secret at the path's end; `secrets` are those that idibu may echo beside the ones in `params`.
    `read` understands the answer, `refusal` names a `failed` one, `denied` an HTTP 401 or 403. `repeatable`: asking
    twice does no harm.
    """

    method: str
    path: str
    params: Values = field(default_factory=dict)
    form: Values | None = field(default=None, repr=False)
    last_segment: SecretStr | None = None
    secrets: Values = field(default_factory=dict)
    repeatable: bool = True
    read: Callable[[bytes], Answer] = answers.read
    refusal: Callable[[Answer], type[IdibuError]] = hash_or_refused
    denied: type[IdibuUnauthorized] = IdibuUnauthorized

    def redacted(self, text: str) -> str:
        """`text` without any secret of this request."""
        return redact(text, self.params, self.secrets)


class Calls:
    """Calls of one client: to `base_url`, each attempt within `timeout` seconds, through connections that may be shared.

    `secrets` are those of all its calls: none of them comes out of any. Raises ValueError when the base URL is none.
    """

    def __init__(self, base_url: str, timeout: float, http: Door | None, retry: Retry | None, secrets: Values) -> None:
        self._base_url = _checked(base_url)
        self._timeout = timeout
        self._http: Door = http or Http()
        self._owned = http is None
        self._retry = retry or Retry(attempts=1)
        self._secrets = secrets

    async def call(self, request: Request) -> Answer:
        """idibu's success. Raises IdibuRefused, IdibuUnauthorized, IdibuNotUnderstood or IdibuUnreachable."""
        unnamed = {name: secret for name, secret in self._secrets.items() if request.params.get(name) is not secret}
        if unnamed:
            request = replace(request, secrets={**unnamed, **request.secrets})
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._once(request)
            except IdibuError as error:
                wait = self._retry.wait(error, attempt) if request.repeatable else None
                if wait is None:
                    raise
            await self._retry.sleep(wait)

    async def close(self) -> None:
        """Closes the connections, unless they are shared."""
        if self._owned:
            await self._http.close()

    async def _once(self, request: Request) -> Answer:
        reply = await self._http.exchange(
            request.method, self._url(request), request.params, request.form, self._timeout
        )
        return judged(request, reply)

    def _url(self, request: Request) -> str | SecretStr:
        url = self._base_url + request.path
        if request.last_segment is None:
            return url
        return SecretStr(url + quote(request.last_segment.get_secret_value(), safe=""))


def judged(request: Request, reply: Reply) -> Answer:
    """The success that came back. Raises an IdibuError for anything else."""
    if reply.status in _SLOW_DOWN:
        raise IdibuBusy(_shown(request, reply), reply.retry_after)
    answer = _understood(request, reply)
    if not answer.succeeded:
        raise _failed(request, reply, answer)
    if not 200 <= reply.status < 300:
        raise _not_understood(reply, f"{_shown(request, reply)}: says success all the same")
    return answer


def _shown(request: Request, reply: Reply) -> str:
    return str(replace(reply, media_type=request.redacted(reply.media_type)))


def understood(read: Callable[[Answer], T], answer: Answer) -> T:
    """What `read` finds in an answer. Raises IdibuNotUnderstood, which hangs on to no frame that held the answer."""
    try:
        return read(answer)
    except xml.XmlError as error:
        problem = str(error)
    raise IdibuNotUnderstood(problem)


PAGES_AT_MOST = 100_000
"""Pages of one list: ten million items where 100 are asked for at a time, more than anybody ever had."""


async def every(
    fetch: Callable[[int], Awaitable[list[T]]], identity: Callable[[T], int], offset: int
) -> AsyncIterator[T]:
    """All items of a list read in pages, from `offset` on, each once.

    Goes on until a page brings nothing new: a service may give fewer than asked for, or the same page for ever. Raises
    IdibuNotUnderstood where there are new ones after PAGES_AT_MOST pages still.
    """
    seen: set[int] = set()
    for _ in range(PAGES_AT_MOST):
        listed = await fetch(offset)
        fresh = {identity(one): one for one in listed if identity(one) not in seen}
        for one in fresh.values():
            yield one
        if not fresh:
            return
        seen.update(fresh)
        offset += len(listed)
    raise _permanent(
        IdibuNotUnderstood(f"a list that does not end: {PAGES_AT_MOST} pages, and each brought something new")
    )


def _understood(request: Request, reply: Reply) -> Answer:
    try:
        return request.read(reply.body)
    except answers.AnswerError as error:
        problem = f"{_shown(request, reply)}: {error}"
    except xml.XmlError as error:
        problem = f"{_shown(request, reply)}: {error}{_excerpt(request, reply)}"
    if reply.status in _DENIED:
        raise _permanent(request.denied(problem))
    raise _not_understood(reply, problem)


def _failed(request: Request, reply: Reply, answer: Answer) -> IdibuError:
    """Redacted before it is cut, so that no half of a secret stays at the end."""
    kind = request.denied if reply.status in _DENIED else request.refusal(answer)
    words = xml.clean(request.redacted(answer.message), DETAIL_LIMIT) or "failed, without a word why"
    return kind(words) if reply.status >= 500 else _permanent(kind(words))


def _not_understood(reply: Reply, problem: str) -> IdibuNotUnderstood:
    """Redirects and most of 4xx will be answered the same way until somebody changes something; the rest may pass."""
    error = IdibuNotUnderstood(problem)
    settled = 300 <= reply.status < 500 and reply.status not in _PASSING
    return _permanent(error) if settled else error


def _permanent(error: E) -> E:
    error.temporary = False
    return error


def _excerpt(request: Request, reply: Reply) -> str:
    """How the text of something else than idibu's XML begins, without secrets and addresses."""
    text = request.redacted(reply.body.decode(errors="replace"))
    words = _TAG.sub(
        " ", text
    ).split()  # word by word: a pattern for addresses takes hours for a megabyte without spaces
    cut = xml.clean(" ".join("(address)" if "@" in word else word for word in words), EXCERPT_LIMIT)
    return f'; it begins "{cut}"' if cut else ""


def _checked(base_url: str) -> str:
    """The base URL without its last slash. Raises ValueError (which does not repeat it) when it is none."""
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment or url.userinfo:
        raise ValueError("idibu's base URL must be http(s)://host[:port], without user, query or fragment")
    return base_url.rstrip("/")
