"""The schema as numbered steps; a step once released is never changed, only followed by another."""

import sqlite3
from collections.abc import Iterator

from apptrack_ingest.errors import SpoolError
from apptrack_ingest.spool.sqlite import flat

FIRST = """
CREATE TABLE messages (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    received_at REAL    NOT NULL,
    sender      TEXT    NOT NULL,
    recipients  TEXT    NOT NULL,             -- JSON list, as given at RCPT
    peer        TEXT    NOT NULL,
    helo        TEXT    NOT NULL,
    smtputf8    INTEGER NOT NULL,
    trusted     INTEGER NOT NULL,
    trust_note  TEXT    NOT NULL,
    size        INTEGER NOT NULL,
    sha256      TEXT    NOT NULL,
    warnings    TEXT    NOT NULL DEFAULT '[]',
    erased_at   REAL
);
CREATE INDEX messages_kept ON messages (received_at, id) WHERE erased_at IS NULL;
CREATE TABLE bodies (
    message_id  INTEGER PRIMARY KEY REFERENCES messages (id),
    raw         BLOB    NOT NULL
);
CREATE TABLE applications (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id       INTEGER NOT NULL REFERENCES messages (id),
    account          TEXT,                    -- NULL: unrouted
    applicant_id     INTEGER,                 -- NULL: unknown, or not believed
    state            TEXT    NOT NULL DEFAULT 'received',
    reason           TEXT,                    -- why it is held
    code             TEXT,                    -- how the last attempt ended, for logs and lists
    detail           TEXT,                    -- the same in words, for people
    client_reference TEXT,
    candidate_name   TEXT,
    candidate_email  TEXT,
    job_title        TEXT,
    portal_name      TEXT,
    content_digest   TEXT,
    warnings         TEXT    NOT NULL DEFAULT '[]',
    remote_id        TEXT,
    duplicate_of     INTEGER REFERENCES applications (id),
    received_at      REAL    NOT NULL,
    due_at           REAL,                    -- set while received
    settled_at       REAL,
    delivered_at     REAL,                    -- the last delivery; stays when it is handed over again
    attempts         INTEGER NOT NULL DEFAULT 0,
    series_base      INTEGER NOT NULL DEFAULT 0,  -- attempts before the present series
    series_from      REAL,
    crashes          INTEGER NOT NULL DEFAULT 0,  -- attempts that ended in no verdict, in a row
    in_attempt       INTEGER NOT NULL DEFAULT 0,
    vouched          INTEGER NOT NULL DEFAULT 0,  -- a person routed or released it
    again            INTEGER NOT NULL DEFAULT 0,  -- a person wants it handed over although delivered
    lease_worker     TEXT,
    lease_token      INTEGER NOT NULL DEFAULT 0,  -- fencing token, grows with each claim
    lease_until      REAL
);
CREATE INDEX applications_due ON applications (due_at, id) WHERE state = 'received';
CREATE INDEX applications_in_attempt ON applications (lease_until) WHERE in_attempt = 1;
CREATE INDEX applications_by_applicant ON applications (account, applicant_id, id);
CREATE INDEX applications_by_state ON applications (state, id);
CREATE INDEX applications_by_message ON applications (message_id);
CREATE INDEX applications_by_client_reference ON applications (client_reference, id);
CREATE INDEX applications_counts ON applications (account, state, reason);
CREATE TABLE reports (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    application_id  INTEGER NOT NULL REFERENCES applications (id),
    account         TEXT    NOT NULL,
    applicant_id    INTEGER NOT NULL,
    status          TEXT    NOT NULL,
    remote_id       TEXT,
    error_message   TEXT,
    date_processed  REAL    NOT NULL,
    state           TEXT    NOT NULL DEFAULT 'due',
    code            TEXT,
    detail          TEXT,
    created_at      REAL    NOT NULL,
    due_at          REAL,
    settled_at      REAL,
    refused_since   REAL,
    attempts        INTEGER NOT NULL DEFAULT 0,
    series_base     INTEGER NOT NULL DEFAULT 0,
    series_from     REAL,
    in_attempt      INTEGER NOT NULL DEFAULT 0,
    lease_worker    TEXT,
    lease_token     INTEGER NOT NULL DEFAULT 0,
    lease_until     REAL
);
CREATE INDEX reports_due ON reports (due_at, id) WHERE state = 'due';
CREATE INDEX reports_in_attempt ON reports (lease_until) WHERE in_attempt = 1;
CREATE INDEX reports_by_applicant ON reports (account, applicant_id, id);
CREATE INDEX reports_by_application ON reports (application_id, id);
CREATE INDEX reports_counts ON reports (account, state);
CREATE TABLE attempts (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    application_id  INTEGER NOT NULL REFERENCES applications (id),
    report_id       INTEGER REFERENCES reports (id),
    kind            TEXT    NOT NULL,         -- hand-off or report
    number          INTEGER NOT NULL,
    token           INTEGER NOT NULL,
    worker          TEXT    NOT NULL,
    started_at      REAL    NOT NULL,
    ended_at        REAL,
    code            TEXT,
    detail          TEXT
);
CREATE INDEX attempts_by_application ON attempts (application_id, id);
CREATE TABLE actions (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    application_id  INTEGER NOT NULL REFERENCES applications (id),
    at              REAL    NOT NULL,
    actor           TEXT    NOT NULL,
    action          TEXT    NOT NULL,
    note            TEXT    NOT NULL
);
CREATE INDEX actions_by_application ON actions (application_id, id);
CREATE TABLE pauses (
    account         TEXT    PRIMARY KEY,
    reason          TEXT    NOT NULL,
    since           REAL    NOT NULL,
    until           REAL    NOT NULL,
    fingerprint     TEXT    NOT NULL          -- of the hash that idibu did not accept
);
CREATE TABLE marks (
    key             TEXT    PRIMARY KEY,
    at              REAL    NOT NULL
);
"""

TRUST_BY_ACCOUNT = """
ALTER TABLE applications ADD COLUMN trusted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE applications ADD COLUMN trust_note TEXT NOT NULL DEFAULT '';
ALTER TABLE messages ADD COLUMN evidence TEXT NOT NULL DEFAULT '[]';
UPDATE applications SET (trusted, trust_note) =
    (SELECT m.trusted, m.trust_note FROM messages m WHERE m.id = applications.message_id);
ALTER TABLE messages DROP COLUMN trusted;
ALTER TABLE messages DROP COLUMN trust_note;
CREATE INDEX applications_untrusted ON applications (message_id)
    WHERE trusted = 0 AND vouched = 0 AND state IN ('received', 'held');
"""
"""Two accounts may trust different senders, so that trust is the application's and no longer the message's."""

PEOPLES_DECISIONS = """
CREATE TABLE stage_pauses (
    account         TEXT    NOT NULL,
    stage           TEXT    NOT NULL,             -- hand-off or report
    reason          TEXT    NOT NULL,
    since           REAL    NOT NULL,
    until           REAL,                         -- NULL: until told
    fingerprint     TEXT    NOT NULL DEFAULT '',  -- of the hash that idibu did not accept
    actor           TEXT    NOT NULL DEFAULT '',  -- '': apptrack-ingest itself
    PRIMARY KEY (account, stage)
);
INSERT INTO stage_pauses (account, stage, reason, since, until, fingerprint)
    SELECT account, 'report', reason, since, until, fingerprint FROM pauses;
DROP TABLE pauses;
ALTER TABLE stage_pauses RENAME TO pauses;
CREATE TABLE orders (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    at              REAL    NOT NULL,
    actor           TEXT    NOT NULL,
    action          TEXT    NOT NULL,
    account         TEXT,                         -- NULL: of no account in particular
    subject         TEXT    NOT NULL,             -- the stage, the filter, or who was forgotten (a digest)
    note            TEXT    NOT NULL,
    done            INTEGER NOT NULL DEFAULT 0,   -- applications for which it was carried out
    refused         INTEGER NOT NULL DEFAULT 0,
    ended_at        REAL
);
ALTER TABLE actions ADD COLUMN order_id INTEGER;
CREATE TABLE forgotten (
    digest          TEXT    NOT NULL,             -- SHA-256 over salt and address
    salt            TEXT    NOT NULL,
    at              REAL    NOT NULL,
    actor           TEXT    NOT NULL,
    applications    INTEGER NOT NULL
);
CREATE INDEX messages_erased ON messages (received_at, id) WHERE erased_at IS NOT NULL;
CREATE INDEX applications_duplicate_of ON applications (duplicate_of) WHERE duplicate_of IS NOT NULL;
CREATE INDEX attempts_by_report ON attempts (report_id) WHERE report_id IS NOT NULL;
"""
"""Pauses of either stage by people, what they order about more than one application, and whom they had forgotten."""

BODIES_BESIDE = """
ALTER TABLE messages ADD COLUMN crc32 INTEGER;    -- of the raw bytes; NULL where sha256 was computed at once
CREATE TABLE stored (                             -- bodies in segments beside the database
    message_id  INTEGER PRIMARY KEY REFERENCES messages (id),
    segment     INTEGER NOT NULL,
    start       INTEGER NOT NULL,
    size        INTEGER NOT NULL
);
CREATE UNIQUE INDEX stored_places ON stored (segment, start);
CREATE TABLE emptied (                            -- places whose bytes have still to be removed
    segment     INTEGER NOT NULL,
    start       INTEGER NOT NULL,
    size        INTEGER NOT NULL,
    PRIMARY KEY (segment, start)
) WITHOUT ROWID;
CREATE TABLE swept (                              -- segments in which no crash has left anything
    segment     INTEGER PRIMARY KEY
);
CREATE TABLE bodies_directory (                   -- where the segments are
    name        TEXT    NOT NULL
);
INSERT INTO bodies_directory (name) VALUES (lower(hex(randomblob(8))));
"""
"""Large bodies are appended to files, which takes a third of the time; those in the database stay there."""

PUTS = """
CREATE TABLE puts (                               -- mails as they were put; ids are those of messages
    id           INTEGER PRIMARY KEY,
    received_at  REAL    NOT NULL,
    sender       TEXT    NOT NULL,
    recipients   TEXT    NOT NULL,
    peer         TEXT    NOT NULL,
    helo         TEXT    NOT NULL,
    smtputf8     INTEGER NOT NULL,
    size         INTEGER NOT NULL,
    evidence     TEXT    NOT NULL,
    warnings     TEXT    NOT NULL,
    crc32        INTEGER NOT NULL,
    applications TEXT    NOT NULL,                -- JSON, of each: account, applicant id, trusted, trust note
    raw          BLOB                             -- NULL: in a segment
);
CREATE TABLE stored_puts (
    message_id  INTEGER PRIMARY KEY,              -- of a put, which is no row of messages yet
    segment     INTEGER NOT NULL,
    start       INTEGER NOT NULL,
    size        INTEGER NOT NULL
);
-- An earlier release beside this one would take the id of a put for its own message, and the put would pass for entered.
CREATE TRIGGER messages_not_another AFTER INSERT ON messages
WHEN EXISTS (SELECT 1 FROM puts p WHERE p.id = NEW.id
             AND (p.crc32 IS NOT NEW.crc32 OR p.size <> NEW.size OR p.received_at <> NEW.received_at))
BEGIN
    SELECT raise(ABORT, 'another mail was put under this id');
END;
-- Erased is erased, whoever does it.
CREATE TRIGGER messages_erased_puts AFTER UPDATE OF erased_at ON messages WHEN NEW.erased_at IS NOT NULL
BEGIN
    DELETE FROM puts WHERE id = NEW.id;
END;
CREATE TRIGGER messages_removed_puts AFTER DELETE ON messages
BEGIN
    DELETE FROM puts WHERE id = OLD.id;
END;
INSERT INTO stored_puts SELECT message_id, segment, start, size FROM stored;
DROP TABLE stored;
ALTER TABLE stored_puts RENAME TO stored;
CREATE UNIQUE INDEX stored_places ON stored (segment, start);
"""
"""A put is one row, and entered in the ledger later, with others; small mails' bytes stay in it."""

MIGRATIONS: tuple[str, ...] = (
    FIRST,
    TRUST_BY_ACCOUNT,
    PEOPLES_DECISIONS,
    flat.LINES,
    flat.TALLIES,
    BODIES_BESIDE,
    flat.LISTS,
    flat.FINISHED,
    flat.EARLY,
    flat.PLAINLY,
    PUTS,
)


def version_of(connection: sqlite3.Connection) -> int:
    """The number of the last step the database has taken; 0 for a new one."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def statements(step: str) -> Iterator[str]:
    """A step's statements, one by one: `executescript` would commit before the first. A trigger holds statements itself."""
    statement = ""
    for line in step.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def migrate(connection: sqlite3.Connection) -> tuple[int, int]:
    """Takes the missing steps, each in a transaction of its own; returns the version before and after.

    Two processes may do so at once: the second waits for the lock and finds nothing left. A database newer than this
    program is refused, for its rows could mean what we do not know.
    """
    before = version = version_of(connection)
    if version > len(MIGRATIONS):
        raise SpoolError(
            f"the spool has schema {version}, this program knows {len(MIGRATIONS)}: run the newer release again"
        )
    while version < len(MIGRATIONS):
        connection.execute("BEGIN IMMEDIATE")
        try:
            version = version_of(connection)
            if version < len(MIGRATIONS):
                for statement in statements(MIGRATIONS[version]):
                    connection.execute(statement)
                version += 1
                connection.execute(f"PRAGMA user_version = {version}")
            connection.execute("COMMIT")
        except BaseException:
            # A full disk has rolled back already; what it said is what a person must read.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    return before, version
