"""What service management answers, read into its nouns (seed-service-management.txt)."""

import re

from lxml import etree
from pydantic import SecretStr

from apptrack_ingest.idibu import xml
from apptrack_ingest.idibu.accounts import (
    AccountCredits,
    AccountDetails,
    AccountEntry,
    ChangedAccount,
    ChangedCredits,
    Credits,
    Done,
    EnabledServices,
    GlobalCc,
)
from apptrack_ingest.idibu.answers import Answer, named

# Every reader raises xml.XmlError where an id, a hash or a number of credits is missing or malformed.

_SEPARATORS = re.compile(r"[,;\s]+")
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")
_DETAILS = (
    *("firstname", "lastname", "email", "phone", "company-name", "address", "address1", "address2", "address3"),
    *("country", "postcode", "fax", "www"),
)


def done(answer: Answer) -> Done:
    """Words alone."""
    return Done(answer.message, answer.xml)


def changed_account(answer: Answer) -> ChangedAccount:
    """The answer of newaccount and updateaccount."""
    response = _response(answer)
    return ChangedAccount(_message(response), _hash(response), _number(response, "client-id"), answer.xml)


def entries(answer: Answer) -> list[AccountEntry]:
    """A page of accounts."""
    return [
        AccountEntry(_hash(one), _number(one, "client-id"), xml.text_of(one, "username"), _source(one))
        for one in _clients(answer)
    ]


def details(answer: Answer) -> AccountDetails:
    """The one account of accountdetails."""
    client = next(xml.children(_response(answer), "client"), None)
    if client is None:
        raise xml.XmlError("no account in the answer")
    told = {name.replace("-", "_"): xml.text_of(client, name) or None for name in _DETAILS}
    return AccountDetails(
        _hash(client), _number(client, "client-id"), xml.text_of(client, "username"), **told, xml=answer.xml
    )


def services(answer: Answer) -> EnabledServices:
    """The names in `<services>` or in `<service>` nodes, in it or beside it: the document shows the one and tells of
    the other. Several names in one node are taken to be separated by commas (assumed)."""
    response = _response(answer)
    nodes = [*xml.children(response, "service")]
    for node in xml.children(response, "services"):
        nodes += [*xml.children(node, "service")] or [node]
    names = [name.strip() for node in nodes for name in (node.text or "").split(",")]
    return EnabledServices(tuple(dict.fromkeys(name for name in names if name)), answer.xml)


def account_credits(answer: Answer) -> list[AccountCredits]:
    """A page of accounts with their credits."""
    return [
        AccountCredits(
            *(_hash(one), _number(one, "client-id"), xml.text_of(one, "username"), _number(one, "credits")),
            xml=_source(one),
        )
        for one in _clients(answer)
    ]


def all_credits(answer: Answer) -> Credits:
    """The partner's numbers, without the accounts."""
    info = next(xml.children(_response(answer), "creditsinfo"), None)
    if info is None:
        raise xml.XmlError("no credits in the answer")
    return Credits(_number(info, "available"), _number(info, "allocated"), _number(info, "total"), (), answer.xml)


def changed_credits(answer: Answer) -> ChangedCredits:
    """The answer of setCredits and incrementCredits."""
    response = _response(answer)
    return ChangedCredits(
        _message(response), _number(response, "client-id"), _number(response, "credits"), xml=answer.xml
    )


def global_cc(answer: Answer) -> GlobalCc:
    """The addresses of all `<cc-email>` nodes, however they are separated; an answer without any node has none.

    Wherever in the response, and in whatever they wrap the addresses: one overlooked would be lost with the next change.
    """
    response = _response(answer)
    listed = " ".join(str(text) for node in named(response, "cc-email") for text in node.itertext())
    return GlobalCc(tuple(filter(None, _SEPARATORS.split(listed))), _message(response), answer.xml)


def _response(answer: Answer) -> etree._Element:
    if answer.response is None:
        raise xml.XmlError("success without a response")
    return answer.response


def _clients(answer: Answer) -> list[etree._Element]:
    lists = xml.children(_response(answer), "clients")
    return [client for listed in lists for client in xml.children(listed, "client")]


def _message(response: etree._Element) -> str:
    return " ".join(xml.text_of(response, "message").split())


def _hash(element: etree._Element) -> SecretStr:
    text = xml.text_of(element, "client-hash")
    if not text:
        raise xml.XmlError("an account without its hash")
    return SecretStr(text)


def _number(element: etree._Element, name: str) -> int:
    text = xml.text_of(element, name)
    if not _NUMBER.fullmatch(text):
        raise xml.XmlError(f"no number in {name}")
    return int(text)


def _source(element: etree._Element) -> str:
    return etree.tostring(element, encoding="unicode", with_tail=False)
