"""Service management: the accounts a partner keeps at idibu, their services, credits and Global CC.

Every call is a method of seed-service-management.txt; its credentials are the partner's, inside the XML.
"""

import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from lxml import etree
from pydantic import SecretStr

from apptrack_ingest.errors import IdibuError, IdibuUnauthorized
from apptrack_ingest.idibu import limits, service_answers, xml
from apptrack_ingest.idibu.accounts import (
    AccountChanges,
    AccountCredits,
    AccountDetails,
    AccountEntry,
    ChangedAccount,
    ChangedCredits,
    Credits,
    Done,
    EnabledServices,
    Fields,
    GlobalCc,
    NewAccount,
    Partner,
    elements,
)
from apptrack_ingest.idibu.answers import Answer
from apptrack_ingest.idibu.calls import Calls, Request, every, hash_or_refused, understood
from apptrack_ingest.idibu.limits import LARGEST_PAGE

PATH = "/ws/rest/v1/service"

_ABOUT_PARTNER = re.compile(r"\b(partner[- ]?(password|id)|exempt[- ]?id)\b", re.IGNORECASE)

T = TypeVar("T")


class PartnerUnauthorized(IdibuUnauthorized):
    """idibu does not accept the partner's id or password (its words, assumed: the document shows none), or answered
    401 or 403; accounts' own hashes are not in question."""

    code = "partner-unauthorized"


class ServiceManagement:
    """The twelve methods. `account` is the hash of the account that calls are about which name no other.

    All raise ValueError before sending: without a partner, without an account to be about, beyond a documented limit.
    """

    def __init__(self, calls: Calls, partner: Partner | None, account: SecretStr | None) -> None:
        self._calls = calls
        self._partner = partner
        self._account = account

    async def new_account(self, account: NewAccount) -> ChangedAccount:
        """Creates an account (POST /newaccount). Never repeated by itself: a second call might create a second one."""
        return await self._ask("newaccount", elements(account), service_answers.changed_account, safe=False)

    def accounts(self, offset: int = 0, page: int = LARGEST_PAGE) -> AsyncIterator[AccountEntry]:
        """All the partner's accounts from `offset` on, fetched `page` (1 to 100) at a time (POST /accounts).

        `count` and `offset` are sent as form fields and in the query: the document does not say which.
        """
        limits.page(page, offset)

        async def fetch(offset: int) -> list[AccountEntry]:
            size = {"count": str(page), "offset": str(offset)}
            request = self._request("accounts", [])
            request = replace(request, params=size, form={**(request.form or {}), **size})
            return understood(service_answers.entries, await self._calls.call(request))

        return every(fetch, lambda one: one.client_id, offset)

    async def account_details(self, client_id: int) -> AccountDetails:
        """All about one account (POST /accountdetails)."""
        limits.identity("client_id", client_id)
        return await self._ask("accountdetails", [("client-id", str(client_id))], service_answers.details)

    async def update_account(self, changes: AccountChanges, account: SecretStr | None = None) -> ChangedAccount:
        """Changes what is given and leaves the rest (POST /updateaccount)."""
        fields = [self._about(account), *elements(changes)]
        return await self._ask("updateaccount", fields, service_answers.changed_account)

    async def list_services(self, account: SecretStr | None = None) -> EnabledServices:
        """The services an account has (POST /list)."""
        return await self._ask("list", [self._about(account)], service_answers.services)

    async def add_services(self, services: Iterable[str], account: SecretStr | None = None) -> Done:
        """Enables services (POST /add). Which there are is idibu's to judge."""
        return await self._services("add", services, account)

    async def remove_services(self, services: Iterable[str], account: SecretStr | None = None) -> Done:
        """Disables services (POST /remove)."""
        return await self._services("remove", services, account)

    async def view_credits(self, offset: int = 0, page: int = LARGEST_PAGE) -> Credits:
        """The partner's credits, and those of all its accounts from `offset` on (GET /viewCredits).

        idibu wants a GET with the partner's password in its query: the URL is treated as a secret.
        """
        limits.page(page, offset)
        first: list[Credits] = []

        async def fetch(offset: int) -> list[AccountCredits]:
            answer = await self._calls.call(self._view_credits(page, offset))
            first.append(understood(service_answers.all_credits, answer))
            return understood(service_answers.account_credits, answer)

        accounts = [one async for one in every(fetch, lambda one: one.client_id, offset)]
        return replace(first[0], accounts=tuple(accounts))

    async def set_credits(self, credits: int, account: SecretStr | None = None) -> ChangedCredits:
        """Gives an account this many credits (POST /setCredits)."""
        if credits < 0:
            raise ValueError("credits must not be below 0")
        fields: Fields = [self._about(account), ("credits", str(credits))]
        return await self._ask("setCredits", fields, service_answers.changed_credits)

    async def increment_credits(self, by: int, account: SecretStr | None = None) -> ChangedCredits:
        """Gives an account more credits, or fewer where `by` is negative (POST /incrementCredits).

        Never repeated by itself: each call counts.
        """
        fields: Fields = [self._about(account), ("credits", str(by))]
        return await self._ask("incrementCredits", fields, service_answers.changed_credits, safe=False)

    async def set_cc_email(
        self,
        addresses: Sequence[str],
        account: SecretStr | None = None,
        *,
        kept: Sequence[str] = (),
        once: bool = False,
    ) -> GlobalCc:
        """Makes these the account's Global CC, and no others; none at all switches it off (POST /setccemail).

        To add an address, read the present ones first and send them with it: idibu replaces the whole list (`change_cc`
        does so). Those of them in `kept` were idibu's own and are not judged here. With `once` it is never repeated by
        itself: somebody else may have changed the list since.
        """
        if isinstance(addresses, str):
            raise ValueError("addresses must be a list of addresses")
        for address in addresses:
            if address not in kept:
                limits.address("a Global CC address", address)
        fields: Fields = [self._about(account), ("cc-email", ",".join(addresses))]
        return await self._ask("setccemail", fields, service_answers.global_cc, safe=not once)

    async def get_cc_email(self, account: SecretStr | None = None) -> GlobalCc:
        """The account's Global CC (POST /getccemail)."""
        return await self._ask("getccemail", [self._about(account)], service_answers.global_cc)

    async def _services(self, method: str, services: Iterable[str], account: SecretStr | None) -> Done:
        if isinstance(services, str):
            raise ValueError("services must be a list of names")
        names = limits.one_line("services", services)
        return await self._ask(method, [self._about(account)], service_answers.done, services=names)

    async def _ask(
        self,
        method: str,
        fields: Fields,
        read: Callable[[Answer], T],
        safe: bool = True,
        services: Sequence[str] = (),
    ) -> T:
        request = replace(self._request(method, fields, services), repeatable=safe)
        return understood(read, await self._calls.call(request))

    def _request(self, method: str, fields: Fields, services: Sequence[str] = ()) -> Request:
        partner = self._known_partner()
        document = _document(partner, fields, services)
        secrets = {name: value for name, value in fields if isinstance(value, SecretStr)}
        return Request(
            "POST",
            f"{PATH}/{method}",
            form={"data": document},
            secrets=secrets,
            refusal=_refusal,
            denied=PartnerUnauthorized,
        )

    def _view_credits(self, page: int, offset: int) -> Request:
        partner = self._known_partner()
        return Request(
            "GET",
            f"{PATH}/viewCredits",
            {"data": _document(partner, []), "count": str(page), "offset": str(offset)},
            refusal=_refusal,
            denied=PartnerUnauthorized,
        )

    def _known_partner(self) -> Partner:
        if self._partner is None:
            raise ValueError("service management needs the partner's id and password")
        return self._partner

    def _about(self, account: SecretStr | None) -> tuple[str, SecretStr]:
        found = account or self._account
        if found is None or not found.get_secret_value():
            raise ValueError("this call needs the hash of the account it is about")
        return "client-hash", found


def _document(partner: Partner, fields: Fields, services: Sequence[str] = ()) -> SecretStr:
    """The form field `data`, wrapped: secrets stand in it."""
    root = etree.Element("idibu")
    xml.add(root, "partner-password", partner.password.get_secret_value())
    xml.add(root, "exempt-id", str(partner.id))
    for name, value in fields:
        xml.add(root, name, value.get_secret_value() if isinstance(value, SecretStr) else value)
    if services:
        nodes = xml.add(root, "services")
        for service in services:
            xml.add(nodes, "service", service)
    return SecretStr(etree.tostring(root, encoding="unicode"))


def _refusal(answer: Answer) -> type[IdibuError]:
    return PartnerUnauthorized if _ABOUT_PARTNER.search(answer.message) else hash_or_refused(answer)
