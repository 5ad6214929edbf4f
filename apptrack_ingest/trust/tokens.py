"""Makes the unguessable word of a recipient such as applications+TOKEN@example.com, and the digest it is kept as."""

import base64
import hashlib
import secrets

# 130 bits in 26 characters: beyond guessing even at a million tries a second, with nothing stretched or salted.
_BITS = 130


def new_token() -> str:
    """A new token: 26 characters of lower-case base32 (RFC 4648, section 6), safe in any local part and case-blind."""
    octets = secrets.token_bytes(-(-_BITS // 8))
    return base64.b32encode(octets).decode("ascii")[: _BITS // 5].lower()


def digest_of(token: str) -> str:
    """SHA-256 of the lower-case token, in hex: what the settings keep, so that reading them gives no one the address."""
    return hashlib.sha256(token.lower().encode("utf-8", "surrogateescape")).hexdigest()
