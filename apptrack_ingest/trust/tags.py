"""The tag=value lists of DKIM: in signatures, in ARC's headers and in key records (RFC 6376, section 3.2)."""

import re
from collections.abc import Mapping

Tags = Mapping[bytes, bytes]

# Honest lists have about a dozen; a stranger's must not keep the reader busy.
_MOST_TAGS = 50
_NAME = re.compile(rb"[A-Za-z][A-Za-z0-9_]*")


def read_tags(text: bytes) -> Tags | None:
    """The tags by name, or None when it is no such list, is too long or names a tag twice.

    Stricter than dkimpy's own reader, and where both read a list they read the same.
    """
    specs = text.strip().split(b";")
    if not specs[-1]:
        specs.pop()
    if len(specs) > _MOST_TAGS:
        return None
    tags: dict[bytes, bytes] = {}
    for spec in specs:
        name, found, value = (part.strip() for part in spec.partition(b"="))
        if not found or not _NAME.fullmatch(name) or name in tags:
            return None
        tags[name] = value
    return tags
