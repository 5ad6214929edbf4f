"""The formats of seed-service-management.txt, filled in and replayed word for word against client and sandbox.

The document shows a query and an answer for each method; what stands in brackets there is filled in here.
"""

import httpx
import pytest
from lxml import etree
from pydantic import SecretStr

from apptrack_ingest.idibu import AccountChanges, Client, IdibuRefused, NewAccount
from apptrack_ingest.idibu.sandbox import Sandbox
from apptrack_ingest.idibu.sandbox_script import Quirk, Step

SERVICE = "/ws/rest/v1/service"
OPENS = '<idibu generator="idibu" version="1.0">'
OTHER = SecretStr("other-hash")

ACCOUNT = NewAccount(
    username="newby",
    password=SecretStr("pa55w0rd"),
    firstname="Ann",
    lastname="O'Neil & Söhne",
    email="ann@example.com",
    company_name="Newby Ltd",
    address1="1 High Street",
    country="UK",
    postcode="X1 1XX",
    phone="+44 1",
    www="https://example.com",
    fax="+44 2",
)
NEW_ACCOUNT = """
<username>newby</username><password>pa55w0rd</password><firstname>Ann</firstname>
<lastname>O'Neil &amp; Söhne</lastname><email>ann@example.com</email><company-name>Newby Ltd</company-name>
<address1>1 High Street</address1><country>UK</country><postcode>X1 1XX</postcode><phone>+44 1</phone><fax>+44 2</fax>
<www>https://example.com</www>"""


def canonical(document: str) -> str:
    return etree.canonicalize(etree.tostring(etree.fromstring(document.encode()), encoding="unicode"), strip_text=True)


def query(fields: str) -> str:
    return (
        "<idibu><partner-password>p4rtner &lt;w0rd&gt; &amp; /+ü</partner-password>"
        f"<exempt-id>77</exempt-id>{fields}</idibu>"
    )


async def answered(sandbox: Sandbox, method: str, fields: str, **params: str) -> str:
    """The sandbox's answer to a query as the document writes it."""
    async with httpx.AsyncClient(base_url=sandbox.base_url, trust_env=False) as http:
        given = {"data": query(fields), **params}
        if method == "viewCredits":
            answer = await http.get(f"{SERVICE}/{method}", params=given)
        else:
            answer = await http.post(f"{SERVICE}/{method}", data=given)
    return canonical(answer.text.partition("\n")[2])


def response(inner: str) -> str:
    return canonical(f"{OPENS}<response>{inner}</response><status>success</status></idibu>")


async def test_newaccount(sandbox: Sandbox, client: Client) -> None:
    created = await client.service.new_account(ACCOUNT)
    assert (created.message, created.client_id) == ("New client successfully created", 2001)
    assert len(created.client_hash.get_secret_value()) == 32
    assert created.client_hash.get_secret_value() in created.xml
    (told,) = sandbox.requests()
    masked = query(NEW_ACCOUNT).replace("pa55w0rd", "****").replace("p4rtner &lt;w0rd&gt; &amp; /+ü", "****")
    assert canonical(told.data or "") == canonical(masked)
    again = NEW_ACCOUNT.replace("newby", "second")
    hash = sandbox._accounts.hash_of_new(2002)
    assert await answered(sandbox, "newaccount", again) == response(
        "<message>New client successfully created</message>"
        f"<client-hash>{hash}</client-hash><client-id>2002</client-id><member-id>2002</member-id>"
    )


async def test_a_new_account_is_one_of_the_accounts(sandbox: Sandbox, client: Client) -> None:
    created = await client.service.new_account(ACCOUNT)
    async with Client(sandbox.base_url, created.client_hash) as theirs:
        await theirs.post_status(1, "<applicant><status>success</status></applicant>")
    assert [told.account for told in sandbox.applicants()] == ["newby"]
    details = await client.service.account_details(created.client_id)
    assert (details.client_hash, details.lastname, details.address) == (created.client_hash, "O'Neil & Söhne", None)
    assert {one.username for one in sandbox.accounts()} == {"acme", "other", "newby"}


async def test_accounts(sandbox: Sandbox, client: Client) -> None:
    listed = [one async for one in client.service.accounts()]
    assert [(one.client_id, one.username, one.client_hash.get_secret_value()) for one in listed] == [
        (1001, "acme", "0123456789abcdef-s3cr3t/+ü"),
        (1002, "other", "other-hash"),
    ]
    assert await answered(sandbox, "accounts", "", count="1", offset="1") == response(
        "<clients><client><client-hash>other-hash</client-hash><client-id>1002</client-id><username>other</username>"
        "</client></clients>"
    )


async def test_accountdetails(sandbox: Sandbox, client: Client) -> None:
    await client.service.update_account(AccountChanges(firstname="Jo", www="https://o.example.com"), OTHER)
    details = await client.service.account_details(1002)
    assert (details.username, details.firstname, details.www, details.fax) == (
        "other",
        "Jo",
        "https://o.example.com",
        None,
    )
    assert await answered(sandbox, "accountdetails", "<client-id>1002</client-id>") == response(
        "<client><client-hash>other-hash</client-hash><client-id>1002</client-id><username>other</username>"
        "<firstname>Jo</firstname><lastname/><email/><phone/><company-name/><address/><address1/><address2/><address3/>"
        "<country/><postcode/><fax/><www>https://o.example.com</www></client>"
    )


async def test_updateaccount(sandbox: Sandbox, client: Client) -> None:
    changed = await client.service.update_account(AccountChanges(password=SecretStr("n3w"), address2=""), OTHER)
    assert (changed.message, changed.client_id, changed.client_hash) == ("Client successfully updated", 1002, OTHER)
    assert canonical(sandbox.requests()[0].data or "") == canonical(
        "<idibu><partner-password>****</partner-password><exempt-id>77</exempt-id><client-hash>****</client-hash>"
        "<password>****</password><address2/></idibu>"
    )
    assert await answered(sandbox, "updateaccount", "<client-hash>other-hash</client-hash><fax>1</fax>") == response(
        "<message>Client successfully updated</message><client-hash>other-hash</client-hash>"
        "<client-id>1002</client-id><member-id>1002</member-id>"
    )


async def test_services(sandbox: Sandbox, client: Client) -> None:
    about = "<client-hash>other-hash</client-hash>"
    assert (await client.service.list_services(OTHER)).names == ()
    assert (await client.service.add_services(["aptrack"], OTHER)).message == "Services added"
    assert await answered(sandbox, "list", about) == response("<services>aptrack</services>")
    assert (await client.service.list_services(OTHER)).names == ("aptrack",)
    both = f"{about}<services><service>posting</service><service>aptrack</service></services>"
    assert await answered(sandbox, "add", both) == response("<message>Services added</message>")
    assert await answered(sandbox, "list", about) == response(
        "<services><service>aptrack</service><service>posting</service></services>"
    )
    assert (await client.service.list_services(OTHER)).names == ("aptrack", "posting")
    assert await answered(sandbox, "remove", both) == response("<message>Services removed</message>")
    assert (await client.service.remove_services(["posting"], OTHER)).message == "Services removed"
    assert (await client.service.list_services(OTHER)).names == ()
    with pytest.raises(IdibuRefused, match="Unknown service"):
        await client.service.add_services(["teleport"], OTHER)


async def test_credits(sandbox: Sandbox, client: Client) -> None:
    about = "<client-hash>other-hash</client-hash>"
    set_to = await client.service.set_credits(30, OTHER)
    assert (set_to.message, set_to.client_id, set_to.credits) == ("Credits updated successfully", 1002, 30)
    fewer = await client.service.increment_credits(-10, OTHER)
    assert (fewer.message, fewer.credits) == ("Credits incremented successfully", 20)
    assert await answered(sandbox, "incrementCredits", f"{about}<credits>5</credits>") == response(
        "<message>Credits incremented successfully</message><client-id>1002</client-id><credits>25</credits>"
    )
    assert await answered(sandbox, "setCredits", f"{about}<credits>7</credits>") == response(
        "<message>Credits updated successfully</message><client-id>1002</client-id><credits>7</credits>"
    )
    assert await answered(sandbox, "viewCredits", "", count="1", offset="1") == response(
        "<creditsInfo><available>993</available><allocated>7</allocated><total>1000</total></creditsInfo>"
        "<clients><client><client-hash>other-hash</client-hash><client-id>1002</client-id><username>other</username>"
        "<credits>7</credits></client></clients>"
    )
    held = await client.service.view_credits(page=1)
    assert (held.available, held.allocated, held.total) == (993, 7, 1000)
    assert [(one.username, one.credits) for one in held.accounts] == [("acme", 0), ("other", 7)]


async def test_global_cc(sandbox: Sandbox, client: Client) -> None:
    about = "<client-hash>other-hash</client-hash>"
    assert await answered(sandbox, "getccemail", about) == response("<cc-email/>")
    assert (await client.service.get_cc_email(OTHER)).addresses == ()
    both = await client.service.set_cc_email(["a@example.com", "b@example.com"], OTHER)
    assert (both.message, both.addresses) == ("Client's central CC email set", ("a@example.com", "b@example.com"))
    assert await answered(sandbox, "getccemail", about) == response("<cc-email>a@example.com,b@example.com</cc-email>")
    assert await answered(sandbox, "setccemail", f"{about}<cc-email>c@example.com</cc-email>") == response(
        "<message>Client's central CC email set</message><cc-email>c@example.com</cc-email>"
    )
    assert (await client.service.get_cc_email(OTHER)).addresses == ("c@example.com",)
    assert await answered(sandbox, "setccemail", f"{about}<cc-email></cc-email>") == response(
        "<message>Client's central CC email removed</message>"
    )
    off = await client.service.set_cc_email([], OTHER)
    assert (off.message, off.addresses) == ("Client's central CC email removed", ())


async def test_without_naming_an_account_the_clients_own_is_meant(sandbox: Sandbox, client: Client) -> None:
    await client.service.set_cc_email(["a@example.com"])
    assert [account.cc for account in sandbox.accounts()] == [("a@example.com",), ()]
    assert sandbox.requests()[0].account == "acme"


@pytest.mark.parametrize("quirk", [Quirk.UPPER_CASE, Quirk.UTF8, Quirk.WHITE_SPACE, Quirk.SINGLE_QUOTES, Quirk.SHORT])
async def test_other_spellings_are_understood_alike(sandbox: Sandbox, client: Client, quirk: Quirk) -> None:
    async def told() -> list[object]:
        service = client.service
        return [
            [one async for one in service.accounts()],
            await service.account_details(1002),
            await service.list_services(OTHER),
            await service.view_credits(),
            await service.set_credits(3, OTHER),
            await service.set_cc_email(["a@example.com"], OTHER),
            await service.get_cc_email(OTHER),
            await service.update_account(AccountChanges(fax="1"), OTHER),
        ]

    await client.service.add_services(["aptrack", "posting"], OTHER)
    await told()
    plain = await told()
    sandbox.misbehave(Step(quirks={quirk}, times=None))
    assert await told() == plain
