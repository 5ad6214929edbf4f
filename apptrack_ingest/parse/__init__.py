"""Bytes of a mail in, `Parsed` out: pure, within limits; `parse.pool` runs it in a process that can be killed."""

from apptrack_ingest.parse.mime import DEFAULT_LIMITS, Limits, parse

__all__ = ["DEFAULT_LIMITS", "Limits", "parse"]
