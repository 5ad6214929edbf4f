"""What idibu would say to service management: seed-service-management.txt, and docs/sandbox.md where that is silent."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from lxml import etree

from apptrack_ingest.idibu import limits, xml
from apptrack_ingest.idibu.sandbox_answers import Said, Style
from apptrack_ingest.idibu.sandbox_endpoint import Call
from apptrack_ingest.idibu.sandbox_world import Account, Accounts, Change

_MANDATORY = (
    *("username", "password", "firstname", "lastname", "email", "company-name", "address1", "country", "postcode"),
    *("phone", "www"),
)
_KEPT = (
    *("firstname", "lastname", "email", "phone", "company-name", "address", "address1", "address2", "address3"),
    *("country", "postcode", "fax", "www"),
)
"""In the order of accountdetails' answer; user name and password are elsewhere or nowhere."""

_SECRET = ("partner-password", "password", "client-hash")


class Refused(Exception):
    """The request is answered with `failed` and these words."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What the sandbox's partner may do: services there are, credits to give."""

    services: frozenset[str] = frozenset({"aptrack", "posting"})
    credits: int = 1000


@dataclass(frozen=True, slots=True)
class _Asked:
    root: etree._Element
    accounts: Accounts
    rules: Rules
    params: Mapping[str, str]

    def account(self) -> Account:
        found = self.accounts.by_hash(xml.text_of(self.root, "client-hash"))
        if found is None:
            raise Refused("Invalid client-hash")
        return found

    def page(self, items: list[Account]) -> list[Account]:
        count = xml.number_of(self.params.get("count", "10"))
        offset = xml.number_of(self.params.get("offset", "0"))
        if count is None or offset is None or not 1 <= count <= limits.LARGEST_PAGE:
            raise Refused("Invalid count or offset")
        return items[offset : offset + count]


def judge(call: Call, accounts: Accounts, rules: Rules) -> Said:
    """idibu's answer, and what it would change; nothing is changed yet."""
    try:
        return replace(_judged(call, accounts, rules), style=Style.SERVICE)
    except Refused as refused:
        return Said(False, str(refused), style=Style.SERVICE)


def masked(data: str) -> str:
    """The data with its secrets taken out, to be kept; nothing of it where it cannot be read."""
    try:
        root = xml.parse(data.encode(errors="replace"))
    except xml.XmlError:
        return "(no XML)"
    for element in root.iter():
        if xml.name(element) in _SECRET:
            for child in element:
                element.remove(child)
            element.text = "****"
    return etree.tostring(root, encoding="unicode")


def account_of(data: str, accounts: Accounts) -> str:
    """The user name of the account that a request is about; empty where it is about none, or about one there is not."""
    try:
        root = xml.parse(data.encode(errors="replace"))
    except xml.XmlError:
        return ""
    found = accounts.by_hash(xml.text_of(root, "client-hash"))
    found = found or accounts.by_id(xml.number_of(xml.text_of(root, "client-id")))
    return found.username if found else ""


def _judged(call: Call, accounts: Accounts, rules: Rules) -> Said:
    method = _METHODS.get(call.name)
    if method is None or call.method != ("GET" if call.name == "viewCredits" else "POST"):
        raise Refused("Unknown method")
    if not call.data:
        raise Refused("No data")
    try:
        root = xml.parse(call.data.encode(errors="replace"))
    except xml.XmlError:
        raise Refused("The data is no valid XML") from None
    if xml.name(root) != "idibu":
        raise Refused("The data is no query")
    partner = accounts.partner
    if xml.text_of(root, "exempt-id") != str(partner.id):
        raise Refused("Invalid exempt-id")
    if xml.text_of(root, "partner-password") != partner.password.get_secret_value():
        raise Refused("Invalid partner-password")
    return method(_Asked(root, accounts, rules, {**call.params, **call.form}))


def _new_account(asked: _Asked) -> Said:
    missing = [name for name in _MANDATORY if not xml.text_of(asked.root, name)]
    if missing:
        raise Refused(f"Missing: {', '.join(missing)}")
    username = xml.text_of(asked.root, "username")
    _within_limits(asked.root)
    if any(one.username == username for one in asked.accounts.all()):
        raise Refused("The username is already taken")
    account = replace(asked.accounts.new(username), fields=_fields(asked.root))
    hash = asked.accounts.hash_of_new(account.client_id)
    return _changed(account, "New client successfully created", hash)


def _update_account(asked: _Asked) -> Said:
    account = asked.account()
    _within_limits(asked.root)
    account = replace(account, fields={**account.fields, **_fields(asked.root)})
    return _changed(account, "Client successfully updated", asked.accounts.hash_of(account))


def _accounts(asked: _Asked) -> Said:
    clients = etree.Element("clients")
    for account in asked.page(asked.accounts.all()):
        _client(clients, account, asked.accounts)
    return Said(True, content=(clients,), note=f"{len(clients)} accounts")


def _account_details(asked: _Asked) -> Said:
    account = asked.accounts.by_id(xml.number_of(xml.text_of(asked.root, "client-id")))
    if account is None:
        raise Refused("Invalid client-id")
    client = _client(etree.Element("response"), account, asked.accounts)
    for name in _KEPT:
        xml.add(client, name, account.fields.get(name, ""))
    return Said(True, content=(client,), note=f"details of {account.username}")


def _list(asked: _Asked) -> Said:
    """One service as the document shows it, several in the nodes that it tells of."""
    names = asked.account().services
    services = etree.Element("services")
    if len(names) == 1:
        services.text = names[0]
    else:
        for name in names:
            xml.add(services, "service", name)
    return Said(True, content=(services,), note=f"{len(names)} services")


def _add(asked: _Asked) -> Said:
    account, names = asked.account(), _services(asked)
    present = (*account.services, *(name for name in names if name not in account.services))
    return Said(True, "Services added", change=Change((replace(account, services=present),)))


def _remove(asked: _Asked) -> Said:
    account, names = asked.account(), _services(asked)
    left = tuple(name for name in account.services if name not in names)
    return Said(True, "Services removed", change=Change((replace(account, services=left),)))


def _view_credits(asked: _Asked) -> Said:
    everyone = asked.accounts.all()
    allocated = sum(account.credits or 0 for account in everyone)
    info, clients = etree.Element("creditsInfo"), etree.Element("clients")
    xml.add(info, "available", str(asked.rules.credits - allocated))
    xml.add(info, "allocated", str(allocated))
    xml.add(info, "total", str(asked.rules.credits))
    for account in asked.page(everyone):
        xml.add(_client(clients, account, asked.accounts), "credits", str(account.credits or 0))
    return Said(True, content=(info, clients), note=f"credits of {len(clients)} accounts")


def _set_credits(asked: _Asked) -> Said:
    return _credits(asked, asked.account(), _whole(asked), "Credits updated successfully")


def _increment_credits(asked: _Asked) -> Said:
    account = asked.account()
    return _credits(asked, account, (account.credits or 0) + _whole(asked), "Credits incremented successfully")


def _set_cc(asked: _Asked) -> Said:
    account, text = asked.account(), xml.text_of(asked.root, "cc-email")
    addresses = tuple(part.strip() for part in text.split(",")) if text else ()
    for address in addresses:
        _is_address(address)
    change = Change((replace(account, cc=addresses),))
    if not addresses:
        return Said(True, "Client's central CC email removed", change=change)
    return Said(True, "Client's central CC email set", content=(_cc(addresses),), change=change)


def _get_cc(asked: _Asked) -> Said:
    addresses = asked.account().cc
    return Said(True, content=(_cc(addresses),), note=f"{len(addresses)} addresses")


_METHODS: dict[str, Callable[[_Asked], Said]] = {
    "newaccount": _new_account,
    "accounts": _accounts,
    "accountdetails": _account_details,
    "updateaccount": _update_account,
    "list": _list,
    "add": _add,
    "remove": _remove,
    "viewCredits": _view_credits,
    "setCredits": _set_credits,
    "incrementCredits": _increment_credits,
    "setccemail": _set_cc,
    "getccemail": _get_cc,
}


def _changed(account: Account, message: str, hash: str) -> Said:
    response = etree.Element("response")
    content = (
        xml.add(response, "client-hash", hash),
        xml.add(response, "client-id", str(account.client_id)),
        xml.add(response, "member-id", str(account.client_id)),
    )
    return Said(True, message, content=content, change=Change((account,)))


def _client(parent: etree._Element, account: Account, accounts: Accounts) -> etree._Element:
    client = xml.add(parent, "client")
    xml.add(client, "client-hash", accounts.hash_of(account))
    xml.add(client, "client-id", str(account.client_id))
    xml.add(client, "username", account.username)
    return client


def _fields(root: etree._Element) -> dict[str, str]:
    return {name: xml.text_of(root, name) for name in _KEPT if next(xml.children(root, name), None) is not None}


def _within_limits(root: etree._Element) -> None:
    for name in ("username", "password"):
        if len(xml.text_of(root, name)) > limits.LONGEST_LOGIN:
            raise Refused(f"The {name} is longer than {limits.LONGEST_LOGIN} characters")
    if xml.text_of(root, "email"):
        _is_address(xml.text_of(root, "email"))


def _is_address(text: str) -> None:
    try:
        limits.address("", text)
    except ValueError:
        raise Refused("Invalid email address") from None


def _services(asked: _Asked) -> tuple[str, ...]:
    nodes = [node for parent in xml.children(asked.root, "services") for node in xml.children(parent, "service")]
    names = tuple((node.text or "").strip() for node in nodes)
    if not names or any(name not in asked.rules.services for name in names):
        raise Refused("Unknown service" if names else "No services")
    return names


def _whole(asked: _Asked) -> int:
    text = xml.text_of(asked.root, "credits")
    number = xml.number_of(text.removeprefix("-"))
    if number is None:
        raise Refused("Invalid credits")
    return -number if text.startswith("-") else number


def _credits(asked: _Asked, account: Account, credits: int, message: str) -> Said:
    others = sum(one.credits or 0 for one in asked.accounts.all() if one.client_id != account.client_id)
    if credits < 0 or others + credits > asked.rules.credits:
        raise Refused("Not enough credits")
    response = etree.Element("response")
    content = (
        xml.add(response, "client-id", str(account.client_id)),
        xml.add(response, "credits", str(credits)),
    )
    return Said(True, message, content=content, change=Change((replace(account, credits=credits),)))


def _cc(addresses: tuple[str, ...]) -> etree._Element:
    element = etree.Element("cc-email")
    element.text = ",".join(addresses) or None
    return element
