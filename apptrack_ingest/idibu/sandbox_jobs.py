"""What idibu would say about jobs: seed-client-reference.html.txt, docs/idibu.md, and docs/sandbox.md beyond them."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from apptrack_ingest.idibu import sandbox_jobs_down, sandbox_jobs_up, xml
from apptrack_ingest.idibu.sandbox_answers import Said, Style
from apptrack_ingest.idibu.sandbox_endpoint import Call
from apptrack_ingest.idibu.sandbox_jobs_asked import Asked, BoardRules, Refused
from apptrack_ingest.idibu.sandbox_world import Account, World

_METHODS: Mapping[str, Callable[[Asked], Said]] = {
    "ADD": sandbox_jobs_up.add,
    "UPDATE": sandbox_jobs_up.change,
    "REPOST": sandbox_jobs_up.change,
    "QUICKREPOST": sandbox_jobs_down.quick_repost,
    "DELETE": sandbox_jobs_down.delete,
    "CANCEL": sandbox_jobs_down.cancel,
}


def method_of(data: str | None) -> str:
    """The method a request names, in capitals; empty where there is none."""
    try:
        return xml.text_of(xml.parse((data or "").encode(errors="replace")), "method").upper()
    except xml.XmlError:
        return ""


def judge(
    call: Call,
    account: Account | None,
    world: World,
    boards: Mapping[int, BoardRules],
    now: float,
) -> Said:
    """idibu's answer, and what it would change; nothing is changed yet."""
    try:
        if account is None:
            raise Refused("Invalid hash")
        if call.method != "POST" or not call.data:
            raise Refused("The payload is missing")
        try:
            root = xml.parse(call.data.encode(errors="replace"))
        except xml.XmlError:
            raise Refused("The payload is no valid XML") from None
        method = _METHODS.get(call.name)
        if method is None or xml.name(root) != "idibu":
            raise Refused("Unknown method")
        return replace(method(Asked(root, account, world, boards, now)), style=Style.JOBS)
    except Refused as refused:
        return Said(False, str(refused), style=Style.JOBS)
