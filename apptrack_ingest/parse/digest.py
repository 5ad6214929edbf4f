"""The content digest: equal for two copies of one application, whatever relays did to their transport."""

import hashlib
from collections.abc import Iterable

VERSION = "v1"


class ContentDigest:
    """SHA-256 over the canonical metadata, the decoded subject and the decoded leaves in order, fed one leaf at a time.

    Each field is preceded by its length, so that no two different contents run together to the same bytes. Headers of
    the transport, boundaries and transfer encodings are not in it, and neither is what was unpacked from a leaf: how much
    of that we can read may change. A change of this rule needs a new VERSION.
    """

    def __init__(self, metadata: Iterable[tuple[str, str]], subject: str | None) -> None:
        texts = [*(text for pair in metadata for text in pair), "subject", " ".join((subject or "").split())]
        self._digest = hashlib.sha256(b"".join([_length(data) + data for data in map(str.encode, texts)]))

    def add_leaf(self, content_type: str, content: bytes) -> None:
        data = canonical_leaf(content_type, content)
        self._digest.update(_length(data))
        self._digest.update(data)

    def __str__(self) -> str:
        return f"{VERSION}:{self._digest.hexdigest()}"


def _length(data: bytes) -> bytes:
    return len(data).to_bytes(8, "big")


def canonical_leaf(content_type: str, content: bytes) -> bytes:
    """A leaf's bytes; of text without what transport changes: line ends and the empty lines after the last one."""
    if not content_type.startswith(("text/", "message/")):
        return content
    return content.replace(b"\r\n", b"\n").rstrip(b"\r\n")
