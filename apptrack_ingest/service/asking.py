"""From settings to a client for idibu's web services, for what asks idibu beside the reporter."""

from pydantic import SecretStr

from apptrack_ingest.idibu import Client, Partner, Retry
from apptrack_ingest.idibu.http import Http
from apptrack_ingest.settings import Settings


def partner_of(found: Settings) -> Partner | None:
    """Who may use service management; None where the settings name no partner."""
    if found.idibu.partner_id is None or found.idibu.partner_password is None:
        return None
    return Partner(found.idibu.partner_id, found.idibu.partner_password)


def client_of(found: Settings, hash: SecretStr | None, http: Http | None = None) -> Client:
    """A client for the account with this hash and for the partner. It repeats what is safe to repeat (`idibu.attempts`)."""
    return Client(
        str(found.idibu.base_url),
        hash,
        found.idibu.timeout,
        http,
        partner=partner_of(found),
        retry=Retry(found.idibu.attempts),
    )
