"""The way out where a proxy is in between: httpx with its own connections, for it knows proxies."""

from http.cookiejar import DefaultCookiePolicy

import httpx

from apptrack_ingest.idibu.plain import Headers
from apptrack_ingest.idibu.wire import AT_ONCE, KEPT

_LIMITS = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=KEPT)
_DIRECT = {f"all://{host}": None for host in ("localhost", "127.0.0.1", "[::1]")}


class Proxied:
    """As `wire.Wire`, through the proxies that the environment names."""

    def __init__(self) -> None:
        self._client = httpx.AsyncClient(
            limits=_LIMITS,
            timeout=None,  # noqa: S113 - each exchange has a deadline for all its parts, waiting for a connection too
            follow_redirects=False,
            trust_env=True,
            mounts=_DIRECT,
        )
        self._client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))

    async def ask(self, method: str, url: str, query: str = "", headers: Headers = (), body: bytes = b"") -> "Answer":
        """As `wire.Wire.ask`."""
        target = f"{url}?{query}" if query else url
        request = self._client.build_request(method, target, headers=list(headers), content=body or None)
        return Answer(await self._client.send(request, stream=True))

    async def close(self) -> None:
        """As `wire.Wire.close`."""
        await self._client.aclose()


class Answer:
    """As `wire.Answer`."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.headers: Headers = response.headers.raw

    async def body(self, most: int) -> bytes | None:
        """As `wire.Answer.body`."""
        found = bytearray()
        async for chunk in self._response.aiter_raw():
            found += chunk
            if len(found) > most:
                return None
        return bytes(found)

    async def close(self) -> None:
        """As `wire.Answer.close`."""
        await self._response.aclose()
