"""The narrow door to the raw bytes of messages: always rows of the database, which is all that the machines share."""

from apptrack_ingest.spool.postgres.door import Statements
from apptrack_ingest.spool.rows import no_raw


async def fetch(statements: Statements, message_id: int) -> bytes:
    """The exact bytes as kept; NotFound where there is no such message or its bytes were erased."""
    row = await statements.one("SELECT raw FROM bodies WHERE message_id = :id", id=message_id)
    if row is None:
        raise no_raw(message_id)
    return bytes(row["raw"])


async def erase(statements: Statements, message_ids: list[int]) -> None:
    """Removes the bytes in the caller's transaction."""
    await statements.run("DELETE FROM bodies WHERE message_id = ANY(:ids)", ids=message_ids)
