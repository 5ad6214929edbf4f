"""What in the settings is wrong only in combination, each with the key and what to do."""

from collections.abc import Iterable, Iterator
from ipaddress import ip_address

from apptrack_ingest.errors import Problem
from apptrack_ingest.settings.intake import Listener, Rules
from apptrack_ingest.settings.sections import Settings


def contradictions(settings: Settings) -> Iterator[Problem]:
    """Every mistake that no single value shows."""
    yield from _any_recipient_off_loopback(settings)
    yield from _recipients_twice(settings)
    yield from _accounts_out_of_reach(settings)
    yield from _half_a_partner(settings)
    yield from _listeners(settings)
    for key, rules in _all_rules(settings):
        yield from _rules(settings, key, rules)


def _any_recipient_off_loopback(settings: Settings) -> Iterator[Problem]:
    outside = [one for one in settings.smtp.all_listeners if one.socket or one.proxy_from or not is_loopback(one.host)]
    if settings.any_recipient and outside:
        yield Problem(
            "smtp.listeners" if settings.smtp.listeners else "smtp.host",
            repr(outside[0].socket or outside[0].host),
            "without an account's recipients any recipient is taken, which is allowed on loopback only: add"
            " [accounts.NAME] with recipients, or listen on 127.0.0.1",
        )


def _accounts_out_of_reach(settings: Settings) -> Iterator[Problem]:
    seen: dict[int, str] = {}
    for name, account in settings.accounts.items():
        if not account.recipients and not (account.client_id and settings.recipients) and not settings.any_recipient:
            yield Problem(
                f"accounts.{name}.recipients",
                "",
                "no mail can reach this account: set recipients, or client_id here and shared recipients at the top",
            )
        if account.client_id is not None and (other := seen.setdefault(account.client_id, name)) != name:
            yield Problem(f"accounts.{name}.client_id", str(account.client_id), f"accounts.{other} has the same one")


def _half_a_partner(settings: Settings) -> Iterator[Problem]:
    idibu = settings.idibu
    has_password = idibu.partner_password is not None or idibu.partner_password_file is not None
    if has_password and idibu.partner_id is None:
        yield Problem("idibu.partner_id", "", "the partner's password alone is no use: set the partner's id beside it")
    if idibu.partner_id is not None and not has_password:
        advice = "the partner's id alone is no use: set partner_password_file beside it"
        yield Problem("idibu.partner_password", "", advice)


def _recipients_twice(settings: Settings) -> Iterator[Problem]:
    """One recipient belongs to one account: otherwise one customer's candidate would be handed to another."""
    owners: dict[str, str] = {}
    listed = [("recipients", settings.recipients)]
    listed += [(f"accounts.{name}.recipients", account.recipients) for name, account in settings.accounts.items()]
    for key, recipients in listed:
        for recipient in recipients:
            owner = owners.setdefault(recipient.removeprefix("@").casefold(), key)
            if owner != key:
                advice = (
                    f"stands in {owner} too: list it once, at the top as shared, and tell the accounts by client_id"
                )
                yield Problem(key, repr(recipient), advice)


def is_loopback(host: str) -> bool:
    """Whether an address to listen on can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


# --- the listeners ----------------------------------------------------------------------------------------------------


def _listeners(settings: Settings) -> Iterator[Problem]:
    smtp = settings.smtp
    if smtp.listeners and {"host", "port", "tls"} & smtp.model_fields_set:
        yield Problem("smtp.listeners", "", "host, port and tls in [smtp] are for one listener: leave them out here")
    seen: dict[object, int] = {}
    for number, one in enumerate(smtp.all_listeners):
        key = f"smtp.listeners.{number}" if smtp.listeners else "smtp"
        if one.port or one.socket:
            place = one.socket or (one.host, one.port)
            if seen.setdefault(place, number) != number:
                yield Problem(key, "", f"smtp.listeners.{seen[place]} listens at the same place")
        yield from _listener(settings, key, one)


def _listener(settings: Settings, key: str, one: Listener) -> Iterator[Problem]:
    if settings.smtp.tls_certificate is None:
        if one.tls in ("required", "implicit"):
            yield Problem(f"{key}.tls", repr(one.tls), "needs smtp.tls_certificate and smtp.tls_key")
        if one.client_ca:
            yield Problem(f"{key}.client_ca", repr(str(one.client_ca)), "needs smtp.tls_certificate and smtp.tls_key")
    if one.tls == "off" and (one.client_ca or one.auth_required):
        yield Problem(
            f"{key}.tls", "'off'", "client certificates and AUTH need TLS: write starttls, required or implicit"
        )
    if one.auth_required and not settings.smtp.users:
        yield Problem(f"{key}.auth_required", "True", "nobody could: add users in [smtp.users]")


# --- the rules of trust -------------------------------------------------------------------------------------------------


def _all_rules(settings: Settings) -> Iterable[tuple[str, Rules]]:
    yield "trust", settings.trust
    for name, account in settings.accounts.items():
        yield f"accounts.{name}.trust", account.trust


def _rules(settings: Settings, key: str, rules: Rules) -> Iterator[Problem]:
    if settings.smtp.users and settings.smtp.tls_certificate is None and key == "trust":
        yield Problem("smtp.users", "", "AUTH is offered under TLS alone: set smtp.tls_certificate and smtp.tls_key")
    for user in rules.users:
        if user not in settings.smtp.users:
            yield Problem(f"{key}.users", repr(user), f'no such user: add {user} = "…" to [smtp.users]')
    if rules.client_certificates and not any(one.client_ca for one in settings.smtp.all_listeners):
        yield Problem(
            f"{key}.client_certificates", "", "no listener asks for certificates: set client_ca in [[smtp.listeners]]"
        )
    if (rules.relays or rules.relay_names) and not rules.relay_strips_headers:
        beside = [account.trust for account in settings.accounts.values()] if key == "trust" else [settings.trust]
        if not any(found.dkim or found.tokens for found in (rules, *beside)):
            yield Problem(
                f"{key}.relays",
                "",
                "a relay's network alone lets nothing be believed: add dkim, arc or tokens, or relay_strips_headers ="
                " true where the relay removes X-iTrackID from mail that comes from outside",
            )
