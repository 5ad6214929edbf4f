"""The steps of the schema by which every question costs the same however much the spool holds (docs/spool.md, "Flat")."""

# ruff: noqa: S608 - statements are made of our own constants alone

LINES = """
-- 1: an older one of its applicant is still received. What stands behind another is in no claimer's way.
ALTER TABLE applications ADD COLUMN behind INTEGER NOT NULL DEFAULT 0;
CREATE INDEX applications_waiting ON applications (account, applicant_id, id) WHERE state = 'received';
UPDATE applications SET behind = 1 WHERE state = 'received' AND EXISTS (
    SELECT 1 FROM applications o INDEXED BY applications_waiting
    WHERE o.account = applications.account AND o.applicant_id = applications.applicant_id AND o.state = 'received'
      AND o.id < applications.id);
DROP INDEX applications_due;
CREATE INDEX applications_front
    ON applications (coalesce(account, ''), min(crashes, 1), (trusted OR vouched), due_at, id)
    WHERE state = 'received' AND in_attempt = 0 AND behind = 0;
DROP INDEX applications_in_attempt;
CREATE INDEX applications_in_attempt ON applications (account, applicant_id, lease_until) WHERE in_attempt = 1;
DROP INDEX applications_by_applicant;
CREATE INDEX applications_by_applicant ON applications (applicant_id, id) WHERE applicant_id IS NOT NULL;
CREATE INDEX applications_delivered ON applications (account, applicant_id, delivered_at, id)
    WHERE delivered_at IS NOT NULL;
DROP INDEX reports_due;
CREATE INDEX reports_due ON reports (account, due_at, id) WHERE state = 'due' AND in_attempt = 0;
DROP INDEX reports_in_attempt;
CREATE INDEX reports_in_attempt ON reports (account, applicant_id, lease_until) WHERE in_attempt = 1;
DROP INDEX reports_by_applicant;
CREATE INDEX reports_open ON reports (account, applicant_id) WHERE state IN ('due', 'refused', 'failed');
CREATE TRIGGER applications_join_line AFTER INSERT ON applications
WHEN NEW.behind OR (NEW.state = 'received' AND EXISTS (
    SELECT 1 FROM applications o INDEXED BY applications_waiting
    WHERE o.account = NEW.account AND o.applicant_id = NEW.applicant_id AND o.state = 'received' AND o.id <> NEW.id))
BEGIN
    UPDATE applications SET behind = EXISTS (
        SELECT 1 FROM applications o INDEXED BY applications_waiting
        WHERE o.account = NEW.account AND o.applicant_id = NEW.applicant_id AND o.state = 'received' AND o.id < NEW.id)
    WHERE id = NEW.id;
    UPDATE applications SET behind = 1 WHERE id = (
        SELECT min(o.id) FROM applications o INDEXED BY applications_waiting
        WHERE o.account = NEW.account AND o.applicant_id = NEW.applicant_id AND o.state = 'received' AND o.id > NEW.id);
END;
CREATE TRIGGER applications_leave_line AFTER UPDATE OF state, account, applicant_id ON applications
WHEN OLD.state = 'received'
    AND (NEW.state <> 'received' OR NEW.account IS NOT OLD.account OR NEW.applicant_id IS NOT OLD.applicant_id)
BEGIN
    UPDATE applications SET behind = 0 WHERE id = (
        SELECT min(o.id) FROM applications o INDEXED BY applications_waiting
        WHERE o.account = OLD.account AND o.applicant_id = OLD.applicant_id AND o.state = 'received');
END;
CREATE TRIGGER applications_enter_line AFTER UPDATE OF state, account, applicant_id ON applications
WHEN NEW.state = 'received'
    AND (OLD.state <> 'received' OR NEW.account IS NOT OLD.account OR NEW.applicant_id IS NOT OLD.applicant_id)
BEGIN
    UPDATE applications SET behind = EXISTS (
        SELECT 1 FROM applications o INDEXED BY applications_waiting
        WHERE o.account = NEW.account AND o.applicant_id = NEW.applicant_id AND o.state = 'received' AND o.id < NEW.id)
    WHERE id = NEW.id;
    UPDATE applications SET behind = 1 WHERE id = (
        SELECT min(o.id) FROM applications o INDEXED BY applications_waiting
        WHERE o.account = NEW.account AND o.applicant_id = NEW.applicant_id AND o.state = 'received' AND o.id > NEW.id);
END;
CREATE TRIGGER applications_end_line AFTER DELETE ON applications WHEN OLD.state = 'received'
BEGIN
    UPDATE applications SET behind = 0 WHERE id = (
        SELECT min(o.id) FROM applications o INDEXED BY applications_waiting
        WHERE o.account = OLD.account AND o.applicant_id = OLD.applicant_id AND o.state = 'received');
END;
"""
"""The applications of one applicant stand in line, the oldest in front; triggers see to it, whoever changes a state."""

_TALLIED = """\
INSERT INTO tallies (subject, account, state, reason, number)
    SELECT 'applications', coalesce(account, ''), state, coalesce(reason, ''), count(*) FROM applications
    GROUP BY 2, 3, 4;
INSERT INTO tallies (subject, account, state, number)
    SELECT 'reports', account, state, count(*) FROM reports GROUP BY 2, 3;
INSERT INTO tallies (subject, number, bytes) SELECT 'messages', count(*), coalesce(sum(size), 0) FROM messages
    WHERE id IN (SELECT message_id FROM applications
                 WHERE trusted = 0 AND vouched = 0 AND state IN ('received', 'held'));
"""
"""All tallies, counted."""

TALLIES = (
    """
CREATE TABLE tallies (
    subject     TEXT    NOT NULL,             -- applications, reports, or messages: those kept for untrusted applications
    account     TEXT    NOT NULL DEFAULT '',
    state       TEXT    NOT NULL DEFAULT '',
    reason      TEXT    NOT NULL DEFAULT '',
    number      INTEGER NOT NULL,
    bytes       INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (subject, account, state, reason)
) WITHOUT ROWID;
"""
    + _TALLIED
    + """\
DROP INDEX applications_counts;
CREATE INDEX applications_by_account ON applications (account, state, id);
CREATE INDEX applications_oldest ON applications (coalesce(account, ''), received_at) WHERE state = 'received';
CREATE INDEX reports_oldest ON reports (account, created_at) WHERE state = 'due';
CREATE INDEX applications_expiring ON applications (received_at, id) WHERE trusted = 0 AND vouched = 0
    AND state = 'held' AND reason IN ('untrusted', 'no-applicant-id', 'invalid-applicant-id');
CREATE TRIGGER applications_counted AFTER INSERT ON applications
BEGIN
    INSERT INTO tallies (subject, account, state, reason, number)
        VALUES ('applications', coalesce(NEW.account, ''), NEW.state, coalesce(NEW.reason, ''), 1)
        ON CONFLICT (subject, account, state, reason) DO UPDATE SET number = number + 1;
END;
CREATE TRIGGER applications_counted_anew AFTER UPDATE OF account, state, reason ON applications
WHEN NEW.account IS NOT OLD.account OR NEW.state <> OLD.state OR NEW.reason IS NOT OLD.reason
BEGIN
    UPDATE tallies SET number = number - 1 WHERE subject = 'applications' AND account = coalesce(OLD.account, '')
        AND state = OLD.state AND reason = coalesce(OLD.reason, '');
    INSERT INTO tallies (subject, account, state, reason, number)
        VALUES ('applications', coalesce(NEW.account, ''), NEW.state, coalesce(NEW.reason, ''), 1)
        ON CONFLICT (subject, account, state, reason) DO UPDATE SET number = number + 1;
END;
CREATE TRIGGER applications_counted_out AFTER DELETE ON applications
BEGIN
    UPDATE tallies SET number = number - 1 WHERE subject = 'applications' AND account = coalesce(OLD.account, '')
        AND state = OLD.state AND reason = coalesce(OLD.reason, '');
END;
CREATE TRIGGER reports_counted AFTER INSERT ON reports
BEGIN
    INSERT INTO tallies (subject, account, state, number) VALUES ('reports', NEW.account, NEW.state, 1)
        ON CONFLICT (subject, account, state, reason) DO UPDATE SET number = number + 1;
END;
CREATE TRIGGER reports_counted_anew AFTER UPDATE OF account, state ON reports
WHEN NEW.account <> OLD.account OR NEW.state <> OLD.state
BEGIN
    UPDATE tallies SET number = number - 1
        WHERE subject = 'reports' AND account = OLD.account AND state = OLD.state AND reason = '';
    INSERT INTO tallies (subject, account, state, number) VALUES ('reports', NEW.account, NEW.state, 1)
        ON CONFLICT (subject, account, state, reason) DO UPDATE SET number = number + 1;
END;
CREATE TRIGGER reports_counted_out AFTER DELETE ON reports
BEGIN
    UPDATE tallies SET number = number - 1
        WHERE subject = 'reports' AND account = OLD.account AND state = OLD.state AND reason = '';
END;
-- A message counts while any application of it is untrusted and waits: the first counts it, the last takes it out.
CREATE TRIGGER messages_untrusted AFTER INSERT ON applications
WHEN NEW.trusted = 0 AND NEW.vouched = 0 AND NEW.state IN ('received', 'held')
BEGIN
    UPDATE tallies SET number = number + 1, bytes = bytes + (SELECT size FROM messages WHERE id = NEW.message_id)
        WHERE subject = 'messages' AND account = '' AND state = '' AND reason = '' AND NOT EXISTS (
            SELECT 1 FROM applications o INDEXED BY applications_untrusted WHERE o.message_id = NEW.message_id
              AND o.trusted = 0 AND o.vouched = 0 AND o.state IN ('received', 'held') AND o.id <> NEW.id);
END;
CREATE TRIGGER messages_untrusted_anew AFTER UPDATE OF trusted, vouched, state ON applications
WHEN (NEW.trusted = 0 AND NEW.vouched = 0 AND NEW.state IN ('received', 'held'))
    AND NOT (OLD.trusted = 0 AND OLD.vouched = 0 AND OLD.state IN ('received', 'held'))
BEGIN
    UPDATE tallies SET number = number + 1, bytes = bytes + (SELECT size FROM messages WHERE id = NEW.message_id)
        WHERE subject = 'messages' AND account = '' AND state = '' AND reason = '' AND NOT EXISTS (
            SELECT 1 FROM applications o INDEXED BY applications_untrusted WHERE o.message_id = NEW.message_id
              AND o.trusted = 0 AND o.vouched = 0 AND o.state IN ('received', 'held') AND o.id <> NEW.id);
END;
CREATE TRIGGER messages_untrusted_no_more AFTER UPDATE OF trusted, vouched, state ON applications
WHEN (OLD.trusted = 0 AND OLD.vouched = 0 AND OLD.state IN ('received', 'held'))
    AND NOT (NEW.trusted = 0 AND NEW.vouched = 0 AND NEW.state IN ('received', 'held'))
BEGIN
    UPDATE tallies SET number = number - 1, bytes = bytes - (SELECT size FROM messages WHERE id = OLD.message_id)
        WHERE subject = 'messages' AND account = '' AND state = '' AND reason = '' AND NOT EXISTS (
            SELECT 1 FROM applications o INDEXED BY applications_untrusted WHERE o.message_id = OLD.message_id
              AND o.trusted = 0 AND o.vouched = 0 AND o.state IN ('received', 'held'));
END;
CREATE TRIGGER messages_untrusted_out AFTER DELETE ON applications
WHEN OLD.trusted = 0 AND OLD.vouched = 0 AND OLD.state IN ('received', 'held')
BEGIN
    UPDATE tallies SET number = number - 1, bytes = bytes - (SELECT size FROM messages WHERE id = OLD.message_id)
        WHERE subject = 'messages' AND account = '' AND state = '' AND reason = '' AND NOT EXISTS (
            SELECT 1 FROM applications o INDEXED BY applications_untrusted WHERE o.message_id = OLD.message_id
              AND o.trusted = 0 AND o.vouched = 0 AND o.state IN ('received', 'held'));
END;
"""
)
"""What is asked again and again is counted as it changes, by triggers, in the same transaction."""

_REROUTED = """\
INSERT INTO rerouted (application_id)
    SELECT DISTINCT r.application_id FROM reports r JOIN applications a ON a.id = r.application_id
    WHERE a.account IS NOT r.account;
"""
"""All that were routed elsewhere."""

_HOURS = """\
INSERT INTO hours (hour, low, high)
    SELECT hour, low, CASE WHEN high > lead(low) OVER (ORDER BY hour) THEN high ELSE 0 END FROM (
        SELECT hour, min(first) OVER (ORDER BY hour ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS low,
            max(last) OVER (ORDER BY hour) AS high
        FROM (SELECT CAST(received_at / 3600 AS INTEGER) AS hour, min(id) AS first, max(id) AS last FROM applications
              GROUP BY 1));
"""
"""Between which ids the mail of each hour lies."""

LISTS = (
    """
DROP INDEX applications_by_client_reference;
CREATE INDEX applications_by_client_reference ON applications (client_reference, id) WHERE client_reference IS NOT NULL;
CREATE INDEX applications_by_portal ON applications (portal_name, state, id) WHERE portal_name IS NOT NULL;
CREATE INDEX applications_by_reason ON applications (reason, id) WHERE reason IS NOT NULL;
CREATE INDEX applications_by_account_and_reason ON applications (account, reason, id) WHERE reason IS NOT NULL;
CREATE INDEX reports_by_state ON reports (state, application_id, id);
CREATE INDEX reports_by_account ON reports (account, state, application_id, id);
-- Applications that a person routed to another account than one that idibu was told of for it.
CREATE TABLE rerouted (
    application_id INTEGER PRIMARY KEY
);
"""
    + _REROUTED
    + """\
CREATE TRIGGER applications_rerouted AFTER UPDATE OF account ON applications
WHEN NEW.account IS NOT OLD.account AND EXISTS (SELECT 1 FROM reports r WHERE r.application_id = NEW.id)
BEGIN
    INSERT INTO rerouted (application_id) VALUES (NEW.id) ON CONFLICT (application_id) DO NOTHING;
END;
CREATE TRIGGER reports_rerouted AFTER INSERT ON reports
WHEN NEW.account IS NOT (SELECT a.account FROM applications a WHERE a.id = NEW.application_id)
BEGIN
    INSERT INTO rerouted (application_id) VALUES (NEW.application_id) ON CONFLICT (application_id) DO NOTHING;
END;
-- No application received in the hour (since 1970) or later has an id below `low`; none received in it or earlier has one
-- above both `high` + 1000 and the next hour's `low`: clocks differ.
CREATE TABLE hours (
    hour        INTEGER PRIMARY KEY,
    low         INTEGER NOT NULL,
    high        INTEGER NOT NULL              -- written only for what comes when a later hour has begun
);
"""
    + _HOURS
    + """\
CREATE TRIGGER hours_begin AFTER INSERT ON hours
BEGIN
    UPDATE hours SET low = NEW.low WHERE hour < NEW.hour AND low > NEW.low;
END;
CREATE TRIGGER hours_lower AFTER UPDATE OF low ON hours
BEGIN
    UPDATE hours SET low = NEW.low WHERE hour < NEW.hour AND low > NEW.low;
END;
CREATE TRIGGER applications_hours AFTER INSERT ON applications
WHEN NOT EXISTS (SELECT 1 FROM hours h WHERE h.hour = CAST(NEW.received_at / 3600 AS INTEGER) AND h.low <= NEW.id)
    OR EXISTS (SELECT 1 FROM hours l WHERE l.hour > CAST(NEW.received_at / 3600 AS INTEGER))
BEGIN
    INSERT INTO hours (hour, low, high)
        SELECT CAST(NEW.received_at / 3600 AS INTEGER),
            min(NEW.id, coalesce((SELECT n.low FROM hours n WHERE n.hour > CAST(NEW.received_at / 3600 AS INTEGER)
                                  ORDER BY n.hour LIMIT 1), NEW.id)),
            coalesce((SELECT p.high FROM hours p WHERE p.hour < CAST(NEW.received_at / 3600 AS INTEGER)
                      ORDER BY p.hour DESC LIMIT 1), 0)
        WHERE NOT EXISTS (SELECT 1 FROM hours h WHERE h.hour = CAST(NEW.received_at / 3600 AS INTEGER));
    UPDATE hours SET low = NEW.id WHERE hour = CAST(NEW.received_at / 3600 AS INTEGER) AND low > NEW.id;
    UPDATE hours SET high = NEW.id WHERE hour >= CAST(NEW.received_at / 3600 AS INTEGER) AND high + 1000 < NEW.id
        AND EXISTS (SELECT 1 FROM hours l WHERE l.hour > CAST(NEW.received_at / 3600 AS INTEGER));
END;
"""
)
"""What people look for is found by an index that goes on with the id, or by the hour (finding.py)."""

_FINISHED_AT = """
CASE WHEN NOT EXISTS (SELECT 1 FROM applications a INDEXED BY applications_by_message WHERE a.message_id = messages.id
                        AND a.state NOT IN ('delivered', 'discarded', 'duplicate'))
      AND NOT EXISTS (SELECT 1 FROM applications a INDEXED BY applications_by_message
                      CROSS JOIN reports r INDEXED BY reports_by_application
                      WHERE a.message_id = messages.id AND r.application_id = a.id
                        AND r.state IN ('due', 'refused', 'failed'))
     THEN (SELECT max(a.settled_at) FROM applications a INDEXED BY applications_by_message
           WHERE a.message_id = messages.id) END
"""

FINISHED = f"""
-- When the last of its applications was finished; NULL while one of them waits, or a report of them is not at its end.
ALTER TABLE messages ADD COLUMN finished_at REAL;
UPDATE messages SET finished_at = {_FINISHED_AT} WHERE erased_at IS NULL;
DROP INDEX messages_kept;
CREATE INDEX messages_finished ON messages (finished_at, id) WHERE erased_at IS NULL AND finished_at IS NOT NULL;
CREATE TRIGGER messages_come_finished AFTER INSERT ON applications
WHEN NEW.state IN ('delivered', 'discarded', 'duplicate')
BEGIN
    UPDATE messages SET finished_at = {_FINISHED_AT} WHERE id = NEW.message_id;
END;
CREATE TRIGGER messages_finished AFTER UPDATE OF state, settled_at ON applications
WHEN (NEW.state <> OLD.state OR NEW.settled_at IS NOT OLD.settled_at)
    AND (NEW.state IN ('delivered', 'discarded', 'duplicate') OR OLD.state IN ('delivered', 'discarded', 'duplicate'))
BEGIN
    UPDATE messages SET finished_at = {_FINISHED_AT} WHERE id = NEW.message_id;
END;
CREATE TRIGGER messages_told AFTER UPDATE OF state ON reports
WHEN (NEW.state IN ('due', 'refused', 'failed')) <> (OLD.state IN ('due', 'refused', 'failed'))
BEGIN
    UPDATE messages SET finished_at = {_FINISHED_AT}
        WHERE id = (SELECT a.message_id FROM applications a WHERE a.id = NEW.application_id);
END;
CREATE TRIGGER messages_owe AFTER INSERT ON reports WHEN NEW.state IN ('due', 'refused', 'failed')
BEGIN
    UPDATE messages SET finished_at = NULL WHERE finished_at IS NOT NULL
        AND id = (SELECT a.message_id FROM applications a WHERE a.id = NEW.application_id);
END;
"""
"""Retention looks at what is finished, and not at all that waits to be."""


def _is(state: str, *among: str) -> str:
    """Whether a state is one of these. SQLite makes a table in memory for IN of more than two, each time it is asked."""
    return "(" + " OR ".join(f"{state} = '{one}'" for one in among) + ")"


_ENDS = ("delivered", "discarded", "duplicate")
_OWED = ("due", "refused", "failed")
_ENDED_AT = f"""
CASE WHEN NOT EXISTS (SELECT 1 FROM applications a INDEXED BY applications_by_message WHERE a.message_id = messages.id
                        AND NOT {_is("a.state", *_ENDS)})
      AND NOT EXISTS (SELECT 1 FROM applications a INDEXED BY applications_by_message
                      CROSS JOIN reports r INDEXED BY reports_by_application
                      WHERE a.message_id = messages.id AND r.application_id = a.id AND {_is("r.state", *_OWED)})
     THEN (SELECT max(a.settled_at) FROM applications a INDEXED BY applications_by_message
           WHERE a.message_id = messages.id) END
"""

PLAINLY = f"""
DROP TRIGGER messages_finished;
CREATE TRIGGER messages_finished AFTER UPDATE OF state, settled_at ON applications
WHEN (NEW.state <> OLD.state OR NEW.settled_at IS NOT OLD.settled_at)
    AND ({_is("NEW.state", *_ENDS)} OR {_is("OLD.state", *_ENDS)})
BEGIN
    UPDATE messages SET finished_at = {_ENDED_AT} WHERE id = NEW.message_id;
END;
DROP TRIGGER messages_told;
CREATE TRIGGER messages_told AFTER UPDATE OF state ON reports
WHEN {_is("NEW.state", *_OWED)} <> {_is("OLD.state", *_OWED)}
BEGIN
    UPDATE messages SET finished_at = {_ENDED_AT}
        WHERE id = (SELECT a.message_id FROM applications a WHERE a.id = NEW.application_id);
END;
DROP TRIGGER messages_owe;
CREATE TRIGGER messages_owe AFTER INSERT ON reports WHEN {_is("NEW.state", *_OWED)}
BEGIN
    UPDATE messages SET finished_at = NULL WHERE finished_at IS NOT NULL
        AND id = (SELECT a.message_id FROM applications a WHERE a.id = NEW.application_id);
END;
"""
"""The same rules in words that take a quarter less of each settlement."""

ANEW = f"""
UPDATE applications SET behind = NOT behind WHERE state = 'received' AND behind <> EXISTS (
    SELECT 1 FROM applications o INDEXED BY applications_waiting
    WHERE o.account = applications.account AND o.applicant_id = applications.applicant_id AND o.state = 'received'
      AND o.id < applications.id);
DELETE FROM tallies;
{_TALLIED}
DELETE FROM rerouted;
{_REROUTED}
DELETE FROM hours;
{_HOURS}
UPDATE messages SET finished_at = {_ENDED_AT} WHERE erased_at IS NULL AND finished_at IS NOT {_ENDED_AT};
"""
"""Makes all of this again, should it ever be wrong."""

TALLIED = "SELECT * FROM tallies"
HOUR = "CAST(a.received_at / 3600 AS INTEGER)"
"""The words in which the rules differ (derived.py)."""


EARLY = """
-- Until when idibu was told that it is tried; NULL: it was told nothing since the last time a person intervened.
ALTER TABLE applications ADD COLUMN announced_until REAL;
ALTER TABLE applications ADD COLUMN waits_since REAL;  -- when a person last intervened; NULL: since it was received
CREATE INDEX applications_unannounced ON applications (account, coalesce(waits_since, received_at), id)
    WHERE state = 'received' AND behind = 0 AND applicant_id IS NOT NULL AND (trusted OR vouched)
      AND announced_until IS NULL;
CREATE INDEX applications_announced ON applications (account, announced_until, id)
    WHERE state = 'received' AND announced_until IS NOT NULL;
"""
"""What waits is found by when idibu is to be told of it; what idibu was told of, by when that is over."""
