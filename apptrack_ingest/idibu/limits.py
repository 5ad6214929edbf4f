"""The limits idibu's documents name, checked before anything is sent; what they leave open is left to idibu to judge."""

from collections.abc import Iterable

from email_validator import EmailNotValidError, validate_email

LARGEST_PAGE = 100
"""Items a page can have (seed-service-management.txt, "count"; later documents of applicant-status)."""

LONGEST_LOGIN = 32
"""Characters of a user name or password (seed-service-management.txt)."""

# Every message names the field and never the value: it may be a secret, or somebody's address.


def page(count: int, offset: int) -> None:
    """Raises ValueError unless `count` is 1 to 100 and `offset` not below 0."""
    if not 1 <= count <= LARGEST_PAGE:
        raise ValueError(f"a page has 1 to {LARGEST_PAGE} items")
    if offset < 0:
        raise ValueError("the offset must not be below 0")


def login(name: str, text: str) -> None:
    """Raises ValueError for a user name or password that is empty or too long."""
    if not 1 <= len(text) <= LONGEST_LOGIN:
        raise ValueError(f"{name} must have 1 to {LONGEST_LOGIN} characters")


def given(name: str, text: str, least: int = 1) -> None:
    """Raises ValueError for a text of fewer than `least` characters, white space around it not counted."""
    if len(text.strip()) < least:
        raise ValueError(f"{name} must have at least {least} character{'s' * (least > 1)}")


def identity(name: str, number: int) -> None:
    """Raises ValueError for an id that is not positive."""
    if number < 1:
        raise ValueError(f"{name} must be a positive number")


def address(name: str, text: str) -> None:
    """Raises ValueError for what is no e-mail address; nothing is looked up."""
    try:
        validate_email(text, check_deliverability=False, test_environment=True)
        valid = True
    except EmailNotValidError:
        valid = False
    if not valid:
        raise ValueError(f"{name} is no e-mail address")


def one_line(name: str, texts: Iterable[str]) -> tuple[str, ...]:
    """The texts, stripped. Raises ValueError when there are none, or one is empty or has a control character."""
    found = tuple(text.strip() for text in texts)
    if not found or not all(text and text.isprintable() for text in found):
        raise ValueError(f"{name} must be given, printable, and not empty")
    return found
