"""A call as it would be sent, with its secrets masked: for a person to look at before anything goes to idibu."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NoReturn
from urllib.parse import quote_plus

from lxml import etree
from pydantic import SecretStr

from apptrack_ingest.idibu import xml
from apptrack_ingest.idibu.accounts import Partner
from apptrack_ingest.idibu.client import Client
from apptrack_ingest.idibu.http import Values

MASK = "********"

_DOCUMENTS = ("data", "xml_text")
_SECRET = ("partner-password", "client-hash", "password")
_DECLARATION = re.compile(r"<\?xml[^>]*\?>\s*")


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A request that was not sent: method, URL without query, query and form, secrets masked in all of them."""

    method: str
    url: str
    query: dict[str, str] = field(default_factory=dict)
    form: dict[str, str] = field(default_factory=dict)

    @property
    def document(self) -> str:
        """Its XML, indented for reading; empty where it has none."""
        found = {**self.query, **self.form}
        return next((_indented(found[name]) for name in _DOCUMENTS if name in found), "")

    def __str__(self) -> str:
        query = "&".join(f"{name}={_in_query(name, value)}" for name, value in self.query.items())
        return "\n".join(filter(None, (f"{self.method} {self.url}{query and '?' + query}", self.document)))


async def rehearse(
    call: Callable[[Client], Awaitable[object]],
    base_url: str,
    hash: SecretStr | None,
    *,
    partner: Partner | None = None,
) -> Rehearsal:
    """The first request that `call` would make of a client with these credentials; nothing is sent.

    Raises ValueError as the client does, for what breaks a documented limit or needs a credential that is missing, and
    where `call` asks nothing of idibu.
    """
    try:
        await call(Client(base_url, hash, http=_Stage(), partner=partner))
    except _Stopped as stopped:
        return stopped.rehearsal
    raise ValueError("the call asks nothing of idibu")


class _Stopped(Exception):
    def __init__(self, rehearsal: Rehearsal) -> None:
        self.rehearsal = rehearsal
        super().__init__("not sent")


class _Stage:
    """Stands where the connections are, and stops what comes there."""

    async def exchange(
        self, method: str, url: str | SecretStr, params: Values, form: Values | None, deadline: float
    ) -> NoReturn:
        """Raises the request, masked."""
        raise _Stopped(Rehearsal(method, _without_hash(url), _masked(params), _masked(form or {})))

    async def close(self) -> None:
        """Nothing is open."""


def _without_hash(url: str | SecretStr) -> str:
    """A URL that is wrapped has the hash as its last segment."""
    if isinstance(url, str):
        return url
    return f"{url.get_secret_value().rpartition('/')[0]}/{MASK}"


def _masked(values: Values) -> dict[str, str]:
    """Wrapped values as the mask, but for documents, of which only the secret elements are masked."""
    return {name: _masked_document(value) if name in _DOCUMENTS else _shown(value) for name, value in values.items()}


def _shown(value: str | SecretStr) -> str:
    return MASK if isinstance(value, SecretStr) else value


def _masked_document(value: str | SecretStr) -> str:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    declaration, root = _parsed(text)
    if root is None:
        return _shown(value)
    for element in root.iter(etree.Element):
        if xml.name(element) in _SECRET:
            for child in element:
                element.remove(child)
            element.text = MASK
    return declaration + etree.tostring(root, encoding="unicode")


def _in_query(name: str, value: str) -> str:
    return "…" if name in _DOCUMENTS else quote_plus(value, safe="*")


def _indented(text: str) -> str:
    declaration, root = _parsed(text)
    if root is None:
        return text
    etree.indent(root)
    return declaration + etree.tostring(root, encoding="unicode")


def _parsed(text: str) -> tuple[str, etree._Element | None]:
    """The declaration and the root element, CDATA sections kept as they are; None where it is no XML."""
    declaration = _DECLARATION.match(text)
    head = declaration[0] if declaration else ""
    parser = etree.XMLParser(strip_cdata=False, resolve_entities=False, no_network=True, load_dtd=False)
    try:
        return head, etree.fromstring(text[len(head) :], parser)
    except (etree.XMLSyntaxError, ValueError):
        return "", None
