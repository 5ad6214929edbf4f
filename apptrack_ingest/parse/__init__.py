"""Bytes of a mail in, `Parsed` out: pure, within limits; `mime` reads, `pool` has it done in a process that can be killed.

Nothing is imported here: the intake needs the header block alone, and a worker's own process reads no mail at all.
"""
