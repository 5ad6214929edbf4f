"""Settings: nothing at all is valid, the environment wins, every mistake is named, no secret is shown."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from apptrack_ingest.errors import ConfigError, Problem
from apptrack_ingest.settings import (
    MASK,
    Account,
    Settings,
    accounts_without_hash,
    is_loopback,
    load,
    masked,
)

SECRET = "s3cr3t-never-to-be-shown"
Configure = Callable[..., Settings]


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Loads settings from the text of a file and from variables (given without APPTRACK_)."""

    def configured(toml: str | None = None, **variables: str) -> Settings:
        for name, value in variables.items():
            monkeypatch.setenv(f"APPTRACK_{name}", value)
        path = None
        if toml is not None:
            path = tmp_path / "settings.toml"
            path.write_text(toml, encoding="utf-8")
        return load(path)

    return configured


@pytest.fixture
def mistakes(configure: Configure) -> Callable[..., dict[str, Problem]]:
    """The mistakes found, by key."""

    def found(toml: str | None = None, **variables: str) -> dict[str, Problem]:
        with pytest.raises(ConfigError) as refused:
            configure(toml, **variables)
        problems = refused.value.problems
        assert str(refused.value).splitlines() == [str(problem) for problem in problems]
        return {problem.key: problem for problem in problems}

    return found


Mistakes = Callable[..., dict[str, Problem]]

# --- what is valid ------------------------------------------------------------------------------------------------


def test_no_file_and_no_variable_is_a_valid_configuration(configure: Configure) -> None:
    settings = configure()
    assert is_loopback(settings.smtp.host)
    assert is_loopback(settings.web.host)
    assert settings.database == Path("apptrack-data/spool.sqlite3")
    assert {name: account.handler for name, account in settings.known_accounts.items()} == {"default": "folder"}
    assert settings.any_recipient == "default"
    assert accounts_without_hash(settings) == ["default"]
    assert not settings.digest.wanted


def test_an_account_in_full(configure: Configure) -> None:
    settings = configure("""
        [accounts.acme-uk_2]
        hash = "h"
        client_id = 5
        recipients = ["cv@acme.example", "@jobs.example", "careers.example", "cv@mail.acme.local"]
        handler = "mine.ats:Handler"
        handler_timeout = "2m"
        retry = "1m, 5m*2"
        reporting = false
        [accounts.acme-uk_2.handler_settings]
        url = "https://ats.example"
        nested = { deep = [1, 2] }
    """)
    account = settings.accounts["acme-uk_2"]
    assert account.recipients == ("cv@acme.example", "@jobs.example", "careers.example", "cv@mail.acme.local")
    assert account.handler_settings == {"url": "https://ats.example", "nested": {"deep": [1, 2]}}
    assert (account.handler_timeout, account.schedule.waits) == (120.0, (60, 300, 300))
    assert settings.any_recipient is None


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90", 90), ("90.5", 90.5), ('"90"', 90), ('"90s"', 90), ('"5m"', 300), ('"1.5 h"', 5400), ('" 7d "', 604800)],
)
def test_a_duration_is_a_number_of_seconds_or_has_a_unit(configure: Configure, written: str, seconds: float) -> None:
    assert configure(f"retention = {written}").retention == seconds


@pytest.mark.parametrize(
    ("written", "size"), [("1000", 1000), ('"10MB"', 10_000_000), ('"10 MiB"', 10 * 1024**2), ('"2k"', 2000)]
)
def test_a_size_is_a_number_of_bytes_or_has_a_unit(configure: Configure, written: str, size: int) -> None:
    assert configure(f"[smtp]\nmax_size = {written}").smtp.max_size == size


def test_settings_cannot_be_changed_afterwards(configure: Configure) -> None:
    with pytest.raises(ValidationError):
        configure().smtp.port = 25  # type: ignore[misc]


# --- file, environment, secret files ------------------------------------------------------------------------------


def test_the_environment_wins_over_the_file_setting_by_setting(configure: Configure) -> None:
    file = """
        [smtp]
        port = 1111
        hostname = "mx.acme.example"
        [accounts.acme]
        recipients = "acme.example"
        client_id = 1
        hash = "from the file"
    """
    settings = configure(file, SMTP__PORT="2222", ACCOUNTS__ACME__HASH="from the environment")
    assert (settings.smtp.port, settings.smtp.hostname) == (2222, "mx.acme.example")
    account = settings.accounts["acme"]
    assert account.hash is not None
    assert account.hash.get_secret_value() == "from the environment"
    assert (account.client_id, account.recipients) == (1, ("acme.example",))


@pytest.mark.parametrize("value", ["0123456789", "1e5", "true", "null", '{"a": 1}', '"quoted"', "a,b"])
def test_a_hash_from_the_environment_is_taken_to_the_letter(configure: Configure, value: str) -> None:
    settings = configure(ACCOUNTS__ACME__HASH=value, ACCOUNTS__ACME__RECIPIENTS="acme.example")
    hash_ = settings.accounts["acme"].hash
    assert hash_ is not None
    assert hash_.get_secret_value() == value


def test_every_kind_of_setting_can_come_from_the_environment(configure: Configure, tmp_path: Path) -> None:
    settings = configure(
        DATA_DIR=str(tmp_path),
        RECIPIENTS="shared.example, cv@more.example,",
        RETENTION="7d",
        LOG__LEVEL="debug",
        DIGEST__SMTP_HOST="mail.acme.example",
        DIGEST__MAIL_TO="a@acme.example,b@acme.example",
        ACCOUNTS__ACME__RECIPIENTS="cv@acme.example, jobs.example",
        ACCOUNTS__ACME__REPORTING="off",
        ACCOUNTS__ACME__HANDLER_SETTINGS__DIRECTORY="/srv/cv",
        ACCOUNTS__BLUE__HANDLER_SETTINGS='{"url": "https://ats.example"}',
        ACCOUNTS__BLUE__RECIPIENTS="blue.example",
    )
    assert settings.recipients == ("shared.example", "cv@more.example")
    assert (settings.data_dir, settings.retention, settings.log.level) == (tmp_path, 7 * 86400, "debug")
    assert settings.digest.mail_to == ("a@acme.example", "b@acme.example")
    acme, blue = settings.accounts["acme"], settings.accounts["blue"]
    assert acme.recipients == ("cv@acme.example", "jobs.example")
    assert not acme.reporting
    assert acme.handler_settings == {"directory": "/srv/cv"}
    assert blue.handler_settings == {"url": "https://ats.example"}


def test_a_comma_separated_list_in_the_file_is_a_list_too(configure: Configure) -> None:
    assert configure('recipients = "a.example, b.example"').recipients == ("a.example", "b.example")


def test_secrets_come_from_files_and_are_read_anew_each_time(configure: Configure, tmp_path: Path) -> None:
    hash_file, url_file = tmp_path / "hash", tmp_path / "url"
    hash_file.write_text("one\n")
    url_file.write_text("https://chat.example/x\n")
    variables = {
        "ACCOUNTS__ACME__HASH_FILE": str(hash_file),
        "DIGEST__WEBHOOK_URL_FILE": str(url_file),
        "IDIBU__PARTNER_ID": "77",
        "IDIBU__PARTNER_PASSWORD_FILE": str(hash_file),
    }
    file = '[accounts.acme]\nrecipients = "acme.example"'
    settings = configure(file, **variables)
    assert settings.accounts["acme"].hash is not None
    assert settings.accounts["acme"].hash.get_secret_value() == "one"
    assert settings.digest.webhook_url is not None
    assert settings.digest.webhook_url.get_secret_value() == "https://chat.example/x"
    assert settings.digest.wanted
    assert settings.idibu.partner_password is not None
    assert settings.idibu.partner_password.get_secret_value() == "one"
    hash_file.write_text("two")
    again = configure(file).accounts["acme"].hash
    assert again is not None
    assert again.get_secret_value() == "two"


def test_accounts_whose_outcomes_have_to_wait_are_named(configure: Configure) -> None:
    settings = configure("""
        [accounts.with]
        recipients = "a.example"
        hash = "h"
        [accounts.without]
        recipients = "b.example"
        [accounts.silent]
        recipients = "c.example"
        reporting = false
    """)
    assert accounts_without_hash(settings) == ["without"]


# --- mistakes -----------------------------------------------------------------------------------------------------

ACCOUNT = '[accounts.acme]\nrecipients = "acme.example"\n'
PARTNER = "[idibu]\npartner_id = 7\n"


@pytest.mark.parametrize(
    ("toml", "key", "value", "advice"),
    [
        ("[smtp]\nport = 70000", "smtp.port", "70000", "less than or equal to 65535"),
        ('[smtp]\nport = "x"', "smtp.port", "'x'", "valid integer"),
        ("[smtp]\nport = true", "smtp.port", "True", "true and false"),
        ("[smtp]\nmax_recipients = 0", "smtp.max_recipients", "0", "greater than or equal to 1"),
        ('[smtp]\nmax_size = "big"', "smtp.max_size", "'big'", "byte string"),
        ("[smtp]\nmax_size = 0", "smtp.max_size", "0", "greater than 0"),
        ('[smtp]\nidle_timeout = "soon"', "smtp.idle_timeout", "'soon'", "like 30s or 5m"),
        ("[smtp]\nidle_timeout = 0", "smtp.idle_timeout", "0", "greater than 0"),
        ("retention = inf", "retention", "inf", "finite"),
        ("retention = nan", "retention", "nan", ""),
        ("retention = true", "retention", "True", "true and false"),
        ("[idibu]\ntimeout = 301", "idibu.timeout", "301", "300"),
        ('[idibu]\ntimezone = "Mars/Olympus"', "idibu.timezone", "'Mars/Olympus'", "Europe/London"),
        ('[idibu]\nbase_url = "ws.idibu.com"', "idibu.base_url", "'ws.idibu.com'", "URL"),
        ('[idibu]\nretry = "5x"', "idibu.retry", "'5x'", "like 5m or 5m*2"),
        ("[worker]\nlease = 1", "worker.lease", "1", "greater than or equal to 5"),
        ('[log]\nlevel = "loud"', "log.level", "'loud'", "'warning'"),
        ('recipients = ["no domain"]', "recipients.0", "'no domain'", "no address and no domain"),
        ("recipients = 5", "recipients", "5", "tuple"),
        (ACCOUNT + 'retry = ""', "accounts.acme.retry", "''", "is no step"),
        (ACCOUNT + "client_id = 0", "accounts.acme.client_id", "0", "greater than 0"),
        (ACCOUNT + 'handler = ""', "accounts.acme.handler", "''", "at least 1 character"),
        (ACCOUNT + "concurrency = 0", "accounts.acme.concurrency", "0", "greater than or equal to 1"),
        (ACCOUNT + 'reporting = "maybe"', "accounts.acme.reporting", "'maybe'", "boolean"),
        (ACCOUNT + 'hash = "a"\nhash_file = "b"', "accounts.acme", "", "not both"),
        (ACCOUNT + 'hash = " "', "accounts.acme", "", "hash is empty"),
        ('[smtp]\ntls_key = "key.pem"', "smtp", "", "tls_certificate"),
        ('[digest]\nsmtp_host = "m"', "digest", "", "mail_to"),
        ('[digest]\nwebhook_url = "https://a.example/x"\nwebhook_url_file = "b"', "digest", "", "not both"),
        (PARTNER + 'partner_password = "a"\npartner_password_file = "b"', "idibu", "", "not both"),
        (PARTNER + 'partner_password = " "', "idibu", "", "partner_password is empty"),
        (PARTNER, "idibu.partner_password", "", "id alone"),
        ('[idibu]\npartner_password = "a"', "idibu.partner_id", "", "password alone"),
        ('[idibu]\npartner_id = 0\npartner_password = "a"', "idibu.partner_id", "0", "greater than 0"),
        ("[idibu]\nattempts = 0", "idibu.attempts", "0", "greater than or equal to 1"),
        ("colour = 1", "colour", "", "known are data_dir"),
        ("[smtp]\nprot = 25", "smtp.prot", "", "known are host, port"),
        (ACCOUNT + 'hahs = "x"', "accounts.acme.hahs", "", "known are hash, hash_file"),
        ("smtp = 5", "smtp", MASK, "[smtp]"),
        ("accounts = 5", "accounts", MASK, "[accounts]"),
    ],
)
def test_a_mistake_is_named_with_key_value_and_what_would_be_right(
    mistakes: Mistakes, toml: str, key: str, value: str, advice: str
) -> None:
    found = mistakes(toml)
    assert set(found) == {key}
    assert found[key].value == value
    assert advice in found[key].advice
    assert str(found[key]).startswith(key)


def test_every_mistake_is_named_at_once(mistakes: Mistakes) -> None:
    found = mistakes("[smtp]\nport = -1\n[web]\nport = -1\ncolour = 1", SMTP_PORT="1", RETENTION="never")
    assert set(found) == {"smtp.port", "web.port", "web.colour", "APPTRACK_SMTP_PORT", "retention"}


@pytest.mark.parametrize("name", ["Acme", "acme uk", "ä", "-acme", "_acme", "", "a" * 65, "a.b", "a/b"])
def test_an_account_name_must_fit_variables_folders_and_metrics(mistakes: Mistakes, name: str) -> None:
    found = mistakes(f'[accounts.{json.dumps(name)}]\nrecipients = "acme.example"')
    assert repr(name) in found["accounts"].advice


@pytest.mark.parametrize("name", ["a", "0", "acme-uk_2", "a" * 64])
def test_a_plain_account_name_is_fine(configure: Configure, name: str) -> None:
    assert list(configure(f'[accounts.{name}]\nrecipients = "acme.example"').accounts) == [name]


def test_a_file_that_cannot_be_used_is_named_with_the_reason(tmp_path: Path) -> None:
    broken, binary = tmp_path / "broken.toml", tmp_path / "binary.toml"
    broken.write_text("port 25")
    binary.write_bytes(b"\xff\xfe")
    for path, reason in (
        (broken, "not valid TOML"),
        (binary, "UTF-8"),
        (tmp_path / "missing.toml", "No such file"),
        (tmp_path, "directory"),
    ):
        with pytest.raises(ConfigError) as refused:
            load(path)
        (problem,) = refused.value.problems
        assert problem.key == str(path)
        assert reason in problem.advice


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff"], ids=["missing", "empty", "blank", "not-text"])
def test_a_secret_file_that_holds_no_secret_is_a_mistake(
    mistakes: Mistakes, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    named = {"DIGEST__WEBHOOK_URL_FILE": str(file), "IDIBU__PARTNER_PASSWORD_FILE": str(file)}
    found = mistakes(ACCOUNT, ACCOUNTS__ACME__HASH_FILE=str(file), IDIBU__PARTNER_ID="7", **named)
    assert set(found) == {"accounts.acme.hash_file", "digest.webhook_url_file", "idibu.partner_password_file"}
    assert all(str(file) in problem.value for problem in found.values())


# --- variables ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SMTP_PORT", "25"),
        ("HASH", SECRET),
        ("ACCOUNT__ACME__HASH", SECRET),
        ("RETENTION__DAYS", "5"),
        ("DATA_DIR__X", "5"),
        ("SMTP", SECRET),
        ("ACCOUNTS", SECRET),
        ("ACCOUNTS", '["a"]'),
        ("ACCOUNTS__ACME", SECRET),
        ("ACCOUNTS__ACME__HANDLER_SETTINGS", SECRET),
        ("PORT", "25"),
        ("SERVICE", "x"),
    ],
)
def test_a_variable_that_sets_nothing_is_a_mistake(mistakes: Mistakes, name: str, value: str) -> None:
    found = mistakes(**{name: value})
    assert f"APPTRACK_{name}" in found
    assert SECRET not in repr(found)


def test_an_unknown_part_of_a_variable_is_a_mistake(mistakes: Mistakes) -> None:
    assert "smtp.prot" in mistakes(SMTP__PROT="25", ACCOUNTS__ACME__HAHS=SECRET)


def test_the_path_of_the_file_is_no_setting(configure: Configure) -> None:
    configure(CONFIG="/etc/apptrack-ingest.toml")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("INGEST_SERVICE_HOST", "10.0.0.1"),
        ("INGEST_SERVICE_PORT", "25"),
        ("INGEST_SERVICE_PORT_SMTP", "25"),
        ("INGEST_PORT", "tcp://10.0.0.1:25"),
        ("INGEST_PORT_25_TCP", "tcp://10.0.0.1:25"),
        ("INGEST_PORT_25_TCP_ADDR", "10.0.0.1"),
        ("INGEST_PORT_25_TCP_PROTO", "tcp"),
        ("INGEST_SMTP_PORT_2525_TCP_PORT", "2525"),
        ("SERVICE_HOST", "10.0.0.1"),
        ("PORT", "tcp://10.0.0.1:25"),
    ],
)
def test_what_kubernetes_injects_for_a_service_of_our_name_is_no_mistake(
    configure: Configure, name: str, value: str
) -> None:
    assert configure(**{name: value}) == Settings()


def test_rates_and_the_breaker_are_read(configure: Configure) -> None:
    breaker = '[accounts.acme.breaker]\nfailures = 3\nwait = "5s, 1m"\n'
    toml = f'[accounts.acme]\nrecipients = "acme.example"\nrate = "100/1m, 5000/d"\n{breaker}'
    account = configure(toml).accounts["acme"]
    assert [(rate.count, rate.seconds) for rate in account.rates] == [(100, 60.0), (5000, 86400.0)]
    assert (account.breaker.failures, account.breaker.schedule.waits) == (3, (5.0, 60.0))


def test_a_rate_that_is_none_is_named(mistakes: Callable[..., dict[str, Problem]]) -> None:
    problem = mistakes('[accounts.acme]\nrate = "100 per minute"\n')["accounts.acme.rate"]
    assert "like 100/1m or 5000/d" in problem.advice


# --- what is wrong only together ----------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "mx.acme.example"])
def test_any_recipient_is_taken_on_loopback_only(mistakes: Mistakes, host: str) -> None:
    found = mistakes(SMTP__HOST=host)
    assert set(found) == {"smtp.host"}
    assert "loopback" in found["smtp.host"].advice


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_any_recipient_is_taken_on_loopback(configure: Configure, host: str) -> None:
    assert configure(SMTP__HOST=host).any_recipient == "default"


@pytest.mark.parametrize(
    "toml",
    [
        '[accounts.default]\nrecipients = "acme.example"',
        'recipients = "shared.example"\n[accounts.default]\nclient_id = 5',
        '[accounts.default]\n[accounts.acme]\nrecipients = "acme.example"\nclient_id = 5',
    ],
    ids=["own", "by-client-id", "one-of-two"],
)
def test_who_says_what_is_its_own_takes_nothing_else(configure: Configure, toml: str) -> None:
    try:
        settings = configure(toml, SMTP__HOST="0.0.0.0")
    except ConfigError as error:
        assert [problem.key for problem in error.problems] == ["accounts.default.recipients"]
    else:
        assert settings.any_recipient is None


def test_an_account_that_no_mail_can_reach_is_a_mistake(mistakes: Mistakes) -> None:
    found = mistakes('recipients = "shared.example"\n[accounts.acme]\n[accounts.blue]\nclient_id = 5')
    assert set(found) == {"accounts.acme.recipients"}
    assert set(mistakes("[accounts.acme]\nclient_id = 5")) == {"accounts.acme.recipients"}


def test_two_accounts_cannot_have_one_client_id(mistakes: Mistakes) -> None:
    toml = (
        '[accounts.a]\nrecipients = "a.example"\nclient_id = 5\n[accounts.b]\nrecipients = "b.example"\nclient_id = 5'
    )
    problem = mistakes(toml)["accounts.b.client_id"]
    assert problem.value == "5"
    assert "accounts.a" in problem.advice


# --- secrets ------------------------------------------------------------------------------------------------------

WITH_SECRETS = f"""
    [digest]
    webhook_url = "https://chat.example/{SECRET}"
    [accounts.acme]
    recipients = "acme.example"
    hash = "{SECRET}"
    handler_settings = {{ token = "{SECRET}", nested = {{ password = "{SECRET}" }} }}
"""


def test_no_secret_is_shown(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "hash").write_text(SECRET)
    file = WITH_SECRETS + '[accounts.blue]\nrecipients = "blue.example"'
    settings = configure(file, ACCOUNTS__BLUE__HASH_FILE=str(tmp_path / "hash"))
    shown: Any = masked(settings)
    for text in (repr(settings), str(settings), repr(settings.accounts["acme"]), json.dumps(shown)):
        assert SECRET not in text
    acme = shown["accounts"]["acme"]
    assert (acme["hash"], shown["accounts"]["blue"]["hash"], shown["digest"]["webhook_url"]) == (MASK, MASK, MASK)
    assert acme["handler_settings"] == {"token": MASK, "nested": MASK}
    assert acme["recipients"] == ["acme.example"]


def test_what_is_shown_is_complete_and_names_the_account_there_is_without_any(configure: Configure) -> None:
    shown = masked(configure())
    assert set(shown) == set(Settings.model_fields)
    assert set(shown["accounts"]["default"]) == set(Account.model_fields)
    assert shown["accounts"]["default"]["hash"] is None
    assert shown["idibu"]["base_url"] == "https://ws.idibu.com/"
    json.dumps(shown)


@pytest.mark.parametrize(
    "toml",
    [
        f'[accounts]\nacme = "{SECRET}"',
        f'accounts = ["{SECRET}"]',
        f'digest = "{SECRET}"',
        f'[accounts.acme]\nhash = ["{SECRET}"]',
        f'[accounts.acme]\nhash = {{ value = "{SECRET}" }}',
        f'[accounts.acme]\nhash = "{SECRET}"\nhash_file = "x"',
        f'[accounts.acme]\nhash = "{SECRET}"\ncolour = "{SECRET}"',
        f'[accounts.acme]\nhash_file = ["{SECRET}"]',
        f'[accounts.acme]\nhandler_settings = "{SECRET}"',
        f'[digest]\nwebhook_url = ["{SECRET}"]',
        f'[digest]\nwebhook_url = "{SECRET}"\nwebhook_url_file = "x"',
        f'[idibu]\npartner_password = ["{SECRET}"]',
        f'[idibu]\npartner_id = 7\npartner_password = "{SECRET}"\npartner_password_file = "x"',
        f'[idibu]\npartner_id = 7\npartner_password_file = "{SECRET}"',
        f'{SECRET} = "{SECRET}"\n'.replace(f"{SECRET} =", "hash =", 1),
        f'[accounts.acme]\nhash = "{SECRET}',
    ],
)
def test_no_secret_is_shown_where_it_was_written_wrongly(mistakes: Mistakes, toml: str) -> None:
    found = mistakes(toml)
    assert found
    assert SECRET not in repr(found)
    assert SECRET not in "\n".join(map(str, found.values()))


# --- found by an audit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["CV@acme.example", "cv@ACME.example"])
def test_one_recipient_belongs_to_one_account(mistakes: Mistakes, other: str) -> None:
    found = mistakes(f"""
        [accounts.acme]
        recipients = ["cv@acme.example"]
        [accounts.beta]
        recipients = [{json.dumps(other)}]
    """)
    assert "accounts.acme.recipients" in found["accounts.beta.recipients"].advice


def test_a_recipient_is_shared_or_an_accounts_own(mistakes: Mistakes) -> None:
    found = mistakes("""
        recipients = ["@jobs.example"]
        [accounts.acme]
        recipients = ["jobs.example"]
    """)
    assert list(found) == ["accounts.acme.recipients"]


def test_mistakes_of_all_kinds_are_named_at_once(mistakes: Mistakes) -> None:
    found = mistakes("""
        retention = "soon"
        unknown = 1
        [worker]
        lease = "x"
        parse_memory = "10B"
        [accounts.acme]
        recipients = ["not an address"]
        [accounts.beta]
        client_id = 3
        [accounts.gamma]
        recipients = ["gamma.example"]
        client_id = 3
        hash_file = "/no/such/file"
    """)
    assert set(found) == {
        "retention",
        "unknown",
        "worker.lease",
        "worker.parse_memory",
        "accounts.acme.recipients.0",
        "accounts.beta.recipients",
        "accounts.gamma.client_id",
        "accounts.gamma.hash_file",
    }


@pytest.mark.parametrize(
    ("key", "toml"),
    [
        ("smtp.hostname", '[smtp]\nhostname = "mx bad\\r\\nX-Evil: 1"'),
        ("digest.webhook_url", '[digest]\nwebhook_url = "not a url"'),
        ("digest.mail_from", '[digest]\nmail_from = "nonsense\\nX: y"'),
        ("digest.mail_to.0", '[digest]\nsmtp_host = "localhost"\nmail_to = ["x@y.example\\nBcc: z@y.example"]'),
        ("digest.smtp_host", '[digest]\nsmtp_host = "a b"\nmail_to = ["x@y.example"]'),
        ("idibu.base_url", '[idibu]\nbase_url = "https://user:pw@ws.idibu.com"'),
    ],
)
def test_what_goes_into_replies_mails_and_urls_is_checked(mistakes: Mistakes, key: str, toml: str) -> None:
    assert key in mistakes(toml)


def test_credentials_in_a_url_and_a_hash_in_place_of_its_file_are_not_echoed(mistakes: Mistakes) -> None:
    found = mistakes(f"""
        [idibu]
        base_url = "https://user:{SECRET}@ws.idibu.com"
        [accounts.default]
        hash_file = "{SECRET}"
    """)
    assert set(found) == {"idibu.base_url", "accounts.default.hash_file"}
    assert not any(SECRET in str(problem) for problem in found.values())


def test_a_byte_order_mark_is_no_mistake(configure: Configure) -> None:
    assert configure("\ufeff[smtp]\nport = 26").smtp.port == 26


def test_a_digest_url_from_a_file_is_checked_too(mistakes: Mistakes, tmp_path: Path) -> None:
    (tmp_path / "url").write_text(f"no-url-{SECRET}")
    found = mistakes(f"[digest]\nwebhook_url_file = {json.dumps(str(tmp_path / 'url'))}")
    assert "http" in found["digest.webhook_url_file"].advice
    assert SECRET not in str(found)


# --- where the spool is ---------------------------------------------------------------------------------------------

URL = f"postgresql://jo:{SECRET}@db.example:5432/apptrack"


def test_the_spool_is_in_sqlite_unless_told_otherwise(configure: Configure) -> None:
    for settings in (configure(), configure('spool = "sqlite"')):
        assert settings.spool_url is None
        assert settings.spool_shown == "apptrack-data/spool.sqlite3"
        assert masked(settings)["spool"] == "sqlite"


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_a_url_puts_it_into_postgresql(configure: Configure, scheme: str) -> None:
    url = f"{scheme}://jo:{SECRET}@db.example:5432/apptrack?sslmode=require&application_name={SECRET}"
    for settings in (configure(f'spool = "{url}"'), configure(SPOOL=url)):
        assert settings.spool_url == url
        shown = f"{scheme}://{MASK}@db.example:5432/apptrack?sslmode=require"
        assert masked(settings)["spool"] == settings.spool_shown == str(settings.spool) == shown
        assert SECRET not in repr(settings) and SECRET not in settings.model_dump_json()


def test_its_url_may_be_in_a_file(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "url").write_text(f"{URL}\n")
    settings = configure(f'spool_file = "{tmp_path}/url"')
    assert settings.spool_url == URL
    assert masked(settings)["spool_file"] == f"{tmp_path}/url"
    assert SECRET not in json.dumps(masked(settings))


def test_a_spool_said_twice_is_a_mistake(mistakes: Mistakes, tmp_path: Path) -> None:
    (tmp_path / "url").write_text(URL)
    for spool in ("sqlite", URL):
        found = mistakes(f'spool = "{spool}"\nspool_file = "{tmp_path}/url"')
        assert "not both" in found["spool_file"].advice


NO_PLACES = [
    (f"mysql://jo:{SECRET}@db.example/x", f"mysql://{MASK}@db.example/x", "write postgresql://"),
    (f"postgresql://jo:{SECRET}@[db.example/x", f"postgresql://{MASK}", "write postgresql://"),
    (f"postgresql://jo:{SECRET}/@db.example:port/x", f"postgresql://{MASK}", "write postgresql://"),
    (f"postgresql://jo:{SECRET}", f"postgresql://{MASK}", "write postgresql://"),
    (f"{URL}?sslmode={SECRET}", f"postgresql://{MASK}@db.example:5432/apptrack", "sslmode in the URL must be one of"),
    (f"{URL}?target_session_attrs=x", f"postgresql://{MASK}@db.example:5432/apptrack", "target_session_attrs"),
    (f"{URL}?sslrootcert=/no/{SECRET}", f"postgresql://{MASK}@db.example:5432/apptrack", "sslrootcert in the URL"),
    ("/srv/spool.sqlite3", MASK, 'write "sqlite"'),
    (SECRET, MASK, 'write "sqlite"'),
]


@pytest.mark.parametrize(("written", "shown", "advice"), NO_PLACES)
def test_what_can_be_no_spool_is_a_mistake_and_shows_no_password(
    mistakes: Mistakes, tmp_path: Path, written: str, shown: str, advice: str
) -> None:
    problem = mistakes(f'spool = "{written}"')["spool"]
    assert problem.value.startswith(f"'{shown}") and problem.advice.startswith(advice)
    (tmp_path / "url").write_text(written)
    in_file = mistakes(f'spool_file = "{tmp_path}/url"')["spool_file"]
    assert in_file.value.startswith(f"'{shown}") and in_file.advice.startswith(advice)
    assert SECRET not in f"{problem} {in_file}"


def test_a_certificate_must_be_there_to_verify_with(
    mistakes: Mistakes, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PGSSLROOTCERT", raising=False)
    assert "sslrootcert" in mistakes(f'spool = "{URL}?sslmode=verify-full"')["spool"].advice
    (tmp_path / "ca.pem").touch()
    assert configure(f'spool = "{URL}?sslmode=verify-full&sslrootcert={tmp_path}/ca.pem"').spool_url
    (tmp_path / ".postgresql").mkdir()
    (tmp_path / ".postgresql" / "root.crt").touch()
    assert configure(f'spool = "{URL}?sslmode=verify-ca"').spool_url
