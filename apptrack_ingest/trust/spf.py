"""The door to SPF (pyspf): runs its check on answers fetched beforehand, again and again until none is missing."""

import asyncio
from dataclasses import dataclass
from typing import Any

import spf  # type: ignore[import-untyped]

from apptrack_ingest.trust.dns import Resolver, TemporaryDns, is_busy
from apptrack_ingest.trust.names import Address, domain_name, plain

# Only told to people, so nobody waits long for it (RFC 7208, section 4.6.4, would allow 20 seconds).
_TIME_LIMIT = 3.0
# Questions for one mail; the RFC's limits allow 111, honest policies need a few.
_MOST_QUESTIONS = 40
# Bytes of a policy worth reading: section 3.4 wants it to fit into a datagram, pyspf's expressions want it short.
_LONGEST_POLICY = 2048

_Question = tuple[str, str]
_Answer = list[Any] | None  # None: DNS gave no answer


@dataclass(frozen=True, slots=True)
class SpfResult:
    """The word of RFC 7208, section 2.6, the domain it is about, and whether that was the HELO name."""

    word: str
    domain: str
    helo: bool = False

    def __str__(self) -> str:
        return f"SPF for {'HELO' if self.helo else 'mail from'} {plain(self.domain)}: {self.word}"


async def check(resolver: Resolver, address: Address, sender: str, helo: str) -> SpfResult | None:
    """Whether the sender's domain (the HELO name for the null sender) lets this address send; None without a domain.

    It decides nothing, so it is the first to give way where the resolver is busy: None before the first question,
    "temperror" later.
    """
    domain = domain_name(sender.rpartition("@")[2] if sender else helo)
    if domain is None or is_busy(resolver):
        return None
    local = sender.rpartition("@")[0] or "postmaster"
    try:
        async with asyncio.timeout(_TIME_LIMIT):
            word = await _settle(resolver, str(address), f"{local}@{domain}", domain_name(helo) or "unknown")
    except TimeoutError:
        word = "temperror"
    return SpfResult(word, domain, helo=not sender)


async def _settle(resolver: Resolver, address: str, sender: str, helo: str) -> str:
    """Each round runs the whole check, in a thread, as far as the answers go, then fetches the one it missed."""
    answers: dict[_Question, _Answer] = {}
    while len(answers) <= _MOST_QUESTIONS:
        outcome = await asyncio.to_thread(_run, address, sender, helo, answers)
        if isinstance(outcome, str):
            return outcome
        answers[outcome] = await _fetch(resolver, *outcome)
    return "permerror"


def _run(address: str, sender: str, helo: str, answers: dict[_Question, _Answer]) -> str | _Question:
    try:
        return str(_Query(address, sender, helo, answers).check()[0])
    except _Missing as missing:
        return missing.question
    except Exception:  # noqa: BLE001 - pyspf on a stranger's policy: whatever it trips over is that policy's error
        return "permerror"


async def _fetch(resolver: Resolver, name: str, kind: str) -> _Answer:
    if is_busy(resolver):
        return None
    try:
        match kind:
            case "TXT":
                return [(text,) for text in await resolver.txt(name) if len(text) <= _LONGEST_POLICY]
            case "MX":
                return list(await resolver.mx(name))
            case "PTR":
                return [text for text in await resolver.pointers(_address_of(name)) if domain_name(text)]
            case _:
                return list(await resolver.addresses(name, 4 if kind == "A" else 6))
    except TemporaryDns:
        return None


def _address_of(reverse: str) -> str:
    """The address in a name below in-addr.arpa or ip6.arpa, as pyspf asks for its names."""
    labels = reverse.lower().split(".")
    if labels[-2:] == ["in-addr", "arpa"]:
        return ".".join(reversed(labels[:-2]))
    digits = "".join(reversed(labels[:-2]))
    return ":".join(digits[start : start + 4] for start in range(0, len(digits), 4))


class _Missing(Exception):
    """The check needs an answer that nobody has fetched yet."""

    def __init__(self, question: _Question) -> None:
        self.question = question
        super().__init__()


class _Query(spf.query):  # type: ignore[misc]
    """pyspf's check with the answers at hand; it asks nobody itself."""

    def __init__(self, address: str, sender: str, helo: str, answers: dict[_Question, _Answer]) -> None:
        super().__init__(address, sender, helo, strict=True)
        self._answers = answers

    def dns(self, name: str, qtype: str, cnames: object = None, ignore_void: bool = False) -> list[Any]:
        """In place of pyspf's own look-up, with its count of empty answers (RFC 7208, section 4.6.4)."""
        if qtype == "SPF":  # the record type that section 3.1 gave up
            return []
        question = (str(name).lower().removesuffix("."), qtype)
        if question not in self._answers:
            raise _Missing(question)
        answer = self._answers[question]
        if answer is None:
            raise spf.TempError("DNS gave no answer")
        if not answer and not ignore_void:
            self._count_void()
        return list(answer)

    def get_explanation(self, spec: str) -> None:
        """The domain's own words on a failure (exp=) go nowhere, so nobody asks for them."""

    def _count_void(self) -> None:
        self.void_lookups += 1
        if self.void_lookups > spf.MAX_VOID_LOOKUPS:
            raise spf.PermError("too many empty answers")
