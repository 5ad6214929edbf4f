"""The steps of the schema by which every question costs the same however much the spool holds (docs/spool.md, "Flat")."""

# ruff: noqa: S608 - statements are made of our own constants alone

LINES = """
-- An older one of its applicant is still received. What stands behind another is in no claimer's way.
ALTER TABLE applications ADD COLUMN behind boolean NOT NULL DEFAULT false;
-- Who joins a line must see who leaves it at the same moment, or nobody would be in front; who joins shares the lock.
CREATE FUNCTION line_of(account text, applicant_id bigint) RETURNS integer LANGUAGE sql IMMUTABLE AS $$
    SELECT (hashtextextended(applicant_id::text || ' ' || account, 0) & 4095)::integer $$;
CREATE FUNCTION applications_enter_line() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.behind := false;
    IF NEW.account IS NOT NULL AND NEW.applicant_id IS NOT NULL AND NEW.state = 'received' THEN
        IF TG_OP = 'INSERT' THEN
            PERFORM pg_advisory_xact_lock_shared(1634758764, line_of(NEW.account, NEW.applicant_id));
        ELSE
            PERFORM pg_advisory_xact_lock(1634758764, line_of(NEW.account, NEW.applicant_id));
        END IF;
        NEW.behind := EXISTS (
            SELECT 1 FROM applications o WHERE o.account = NEW.account AND o.applicant_id = NEW.applicant_id
              AND o.state = 'received' AND o.id < NEW.id);
    END IF;
    RETURN NEW;
END $$;
CREATE FUNCTION applications_leave_line() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.account IS NOT NULL AND OLD.applicant_id IS NOT NULL AND OLD.state = 'received' THEN
        PERFORM pg_advisory_xact_lock(1634758764, line_of(OLD.account, OLD.applicant_id));
        UPDATE applications SET behind = false WHERE behind AND id = (
            SELECT min(o.id) FROM applications o WHERE o.account = OLD.account AND o.applicant_id = OLD.applicant_id
              AND o.state = 'received');
    END IF;
    IF TG_OP = 'UPDATE' AND NEW.account IS NOT NULL AND NEW.applicant_id IS NOT NULL AND NEW.state = 'received' THEN
        -- Not waited for: one that is being claimed is in nobody's way.
        UPDATE applications SET behind = true WHERE id = (
            SELECT n.id FROM applications n WHERE NOT n.behind AND n.id = (
                SELECT min(o.id) FROM applications o WHERE o.account = NEW.account
                  AND o.applicant_id = NEW.applicant_id AND o.state = 'received' AND o.id > NEW.id)
            FOR UPDATE SKIP LOCKED);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER applications_join_line BEFORE INSERT ON applications
    FOR EACH ROW EXECUTE FUNCTION applications_enter_line();
CREATE TRIGGER applications_enter_line BEFORE UPDATE OF state, account, applicant_id ON applications
    FOR EACH ROW WHEN (NEW.state = 'received' AND (OLD.state <> 'received' OR OLD.account IS DISTINCT FROM NEW.account
                       OR OLD.applicant_id IS DISTINCT FROM NEW.applicant_id))
    EXECUTE FUNCTION applications_enter_line();
CREATE TRIGGER applications_leave_line AFTER UPDATE OF state, account, applicant_id ON applications
    FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state OR OLD.account IS DISTINCT FROM NEW.account
                       OR OLD.applicant_id IS DISTINCT FROM NEW.applicant_id)
    EXECUTE FUNCTION applications_leave_line();
CREATE TRIGGER applications_end_line AFTER DELETE ON applications
    FOR EACH ROW WHEN (OLD.state = 'received') EXECUTE FUNCTION applications_leave_line();
UPDATE applications a SET behind = true WHERE a.state = 'received' AND EXISTS (
    SELECT 1 FROM applications o WHERE o.account = a.account AND o.applicant_id = a.applicant_id
      AND o.state = 'received' AND o.id < a.id);
DROP INDEX applications_due;
CREATE INDEX applications_front
    ON applications (coalesce(account, ''), least(crashes, 1), ((trusted OR vouched)::integer), due_at, id)
    WHERE state = 'received' AND NOT in_attempt AND NOT behind;
DROP INDEX applications_in_attempt;
CREATE INDEX applications_in_attempt ON applications (account, applicant_id, lease_until) WHERE in_attempt;
"""
"""The applications of one applicant stand in line, the oldest in front; triggers see to it, whoever changes a state. (A
trigger's statements each see what was committed before they began: it is volatile, and we read committed.)"""

_TALLIED = """\
INSERT INTO tallies (subject, account, state, reason, number)
    SELECT 'applications', coalesce(account, ''), state, coalesce(reason, ''), count(*) FROM applications
    GROUP BY 2, 3, 4;
INSERT INTO tallies (subject, account, state, number)
    SELECT 'reports', account, state, count(*) FROM reports GROUP BY 2, 3;
UPDATE messages SET untrusted = true WHERE id IN (
    SELECT message_id FROM applications WHERE NOT trusted AND NOT vouched AND state IN ('received', 'held'));
INSERT INTO tallies (subject, number, bytes)
    SELECT 'messages', count(*), coalesce(sum(size), 0) FROM messages WHERE untrusted;
"""
"""All tallies, counted."""

TALLIES = (
    """
CREATE TABLE tallies (
    subject     text    NOT NULL,             -- applications, reports, or messages: those kept for untrusted applications
    account     text    COLLATE "C" NOT NULL DEFAULT '',
    state       text    NOT NULL DEFAULT '',
    reason      text    NOT NULL DEFAULT '',
    number      bigint  NOT NULL,
    bytes       bigint  NOT NULL DEFAULT 0,
    PRIMARY KEY (subject, account, state, reason)
);
-- What has changed since; only ever added to, so that nobody waits for another's count, and summed up now and then.
CREATE TABLE tally_changes (LIKE tallies INCLUDING DEFAULTS);
ALTER TABLE tally_changes SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
ALTER TABLE messages ADD COLUMN untrusted boolean NOT NULL DEFAULT false;  -- counted as kept for untrusted applications
CREATE FUNCTION applications_tally() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO tally_changes (subject, account, state, reason, number)
            VALUES ('applications', coalesce(OLD.account, ''), OLD.state, coalesce(OLD.reason, ''), -1);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO tally_changes (subject, account, state, reason, number)
            VALUES ('applications', coalesce(NEW.account, ''), NEW.state, coalesce(NEW.reason, ''), 1);
    END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION reports_tally() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO tally_changes (subject, account, state, number) VALUES ('reports', OLD.account, OLD.state, -1);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO tally_changes (subject, account, state, number) VALUES ('reports', NEW.account, NEW.state, 1);
    END IF;
    RETURN NULL;
END $$;
-- A message counts while any application of it is untrusted and waits. The lock is for two of them that change at once: each
-- would take the other for still waiting.
CREATE FUNCTION messages_tally() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    message bigint := CASE WHEN TG_OP = 'DELETE' THEN OLD.message_id ELSE NEW.message_id END;
    was boolean;
    waits boolean;
    weight bigint;
BEGIN
    SELECT m.untrusted, m.size INTO was, weight FROM messages m WHERE m.id = message FOR NO KEY UPDATE;
    waits := EXISTS (SELECT 1 FROM applications a WHERE a.message_id = message
                       AND NOT a.trusted AND NOT a.vouched AND a.state IN ('received', 'held'));
    IF waits <> was THEN
        UPDATE messages SET untrusted = waits WHERE id = message;
        INSERT INTO tally_changes (subject, number, bytes)
            VALUES ('messages', CASE WHEN waits THEN 1 ELSE -1 END, CASE WHEN waits THEN weight ELSE -weight END);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER applications_counted AFTER INSERT OR DELETE ON applications
    FOR EACH ROW EXECUTE FUNCTION applications_tally();
CREATE TRIGGER applications_counted_anew AFTER UPDATE OF account, state, reason ON applications
    FOR EACH ROW WHEN (OLD.account IS DISTINCT FROM NEW.account OR OLD.state IS DISTINCT FROM NEW.state
                       OR OLD.reason IS DISTINCT FROM NEW.reason)
    EXECUTE FUNCTION applications_tally();
CREATE TRIGGER reports_counted AFTER INSERT OR DELETE ON reports FOR EACH ROW EXECUTE FUNCTION reports_tally();
CREATE TRIGGER reports_counted_anew AFTER UPDATE OF account, state ON reports
    FOR EACH ROW WHEN (OLD.account IS DISTINCT FROM NEW.account OR OLD.state IS DISTINCT FROM NEW.state)
    EXECUTE FUNCTION reports_tally();
CREATE TRIGGER messages_counted AFTER INSERT ON applications
    FOR EACH ROW WHEN (NOT NEW.trusted AND NOT NEW.vouched AND NEW.state IN ('received', 'held'))
    EXECUTE FUNCTION messages_tally();
CREATE TRIGGER messages_counted_anew AFTER UPDATE OF trusted, vouched, state ON applications
    FOR EACH ROW WHEN ((NOT OLD.trusted AND NOT OLD.vouched AND OLD.state IN ('received', 'held'))
                       <> (NOT NEW.trusted AND NOT NEW.vouched AND NEW.state IN ('received', 'held')))
    EXECUTE FUNCTION messages_tally();
CREATE TRIGGER messages_counted_out AFTER DELETE ON applications
    FOR EACH ROW WHEN (NOT OLD.trusted AND NOT OLD.vouched AND OLD.state IN ('received', 'held'))
    EXECUTE FUNCTION messages_tally();
"""
    + _TALLIED
    + """\
DROP INDEX applications_counts;
CREATE INDEX applications_oldest ON applications (coalesce(account, ''), received_at) WHERE state = 'received';
CREATE INDEX reports_oldest ON reports (account, created_at) WHERE state = 'due';
CREATE INDEX applications_expiring ON applications (received_at, id) WHERE NOT trusted AND NOT vouched
    AND state = 'held' AND reason IN ('untrusted', 'no-applicant-id', 'invalid-applicant-id');
"""
)
"""What is asked again and again is counted as it changes, by triggers, in the same transaction."""

_REROUTED = """\
INSERT INTO rerouted (application_id)
    SELECT DISTINCT r.application_id FROM reports r JOIN applications a ON a.id = r.application_id
    WHERE a.account IS DISTINCT FROM r.account;
"""
"""All that were routed elsewhere."""

_HOURS = """\
INSERT INTO hours (hour, low, high)
    SELECT hour, low, CASE WHEN high > lead(low) OVER (ORDER BY hour) THEN high ELSE 0 END FROM (
        SELECT hour, min(first) OVER (ORDER BY hour ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS low,
            max(last) OVER (ORDER BY hour) AS high
        FROM (SELECT floor(received_at / 3600)::bigint AS hour, min(id) AS first, max(id) AS last FROM applications
              GROUP BY 1) every) known;
"""
"""Between which ids the mail of each hour lies."""

LISTS = (
    """
-- Each is sorted by an expression of its own, which a list asks for (people.py): else the planner would rather go through
-- another, or through the ids themselves, until enough match; and if none does, through all.
CREATE INDEX applications_by_account ON applications (account, state, (1 - id));
DROP INDEX applications_by_state;
CREATE INDEX applications_by_state ON applications (state, (2 - id));
CREATE INDEX applications_by_portal ON applications (portal_name, state, (3 - id)) WHERE portal_name IS NOT NULL;
CREATE INDEX applications_by_reason ON applications (reason, (4 - id)) WHERE reason IS NOT NULL;
CREATE INDEX applications_by_account_and_reason ON applications (account, reason, (5 - id)) WHERE reason IS NOT NULL;
DROP INDEX applications_by_client_reference;
CREATE INDEX applications_by_client_reference ON applications (client_reference, (6 - id))
    WHERE client_reference IS NOT NULL;
CREATE INDEX reports_by_account ON reports (account, state, (1 - application_id));
CREATE INDEX reports_by_state ON reports (state, (2 - application_id));
-- Applications that a person routed to another account than one that idibu was told of for it.
CREATE TABLE rerouted (
    application_id bigint PRIMARY KEY
);
CREATE FUNCTION keep_rerouted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_TABLE_NAME = 'reports' THEN
        INSERT INTO rerouted (application_id) SELECT a.id FROM applications a
            WHERE a.id = NEW.application_id AND a.account IS DISTINCT FROM NEW.account ON CONFLICT DO NOTHING;
    ELSE
        INSERT INTO rerouted (application_id) SELECT NEW.id
            WHERE EXISTS (SELECT 1 FROM reports r WHERE r.application_id = NEW.id) ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER applications_rerouted AFTER UPDATE OF account ON applications
    FOR EACH ROW WHEN (NEW.account IS DISTINCT FROM OLD.account) EXECUTE FUNCTION keep_rerouted();
CREATE TRIGGER reports_rerouted AFTER INSERT ON reports FOR EACH ROW EXECUTE FUNCTION keep_rerouted();
"""
    + _REROUTED
    + """\
-- No application received in the hour (since 1970) or later has an id below `low`; none received in it or earlier has one
-- above both `high` + 1000 and the next hour's `low` + 1000: ids are given a little before the commit, and clocks differ.
-- A row is written when its hour begins and hardly ever again, so that nobody waits for it.
CREATE TABLE hours (
    hour        bigint  PRIMARY KEY,
    low         bigint  NOT NULL,
    high        bigint  NOT NULL              -- written only for what comes when a later hour has begun
);
CREATE FUNCTION keep_hours() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    received bigint := floor(NEW.received_at / 3600);
    known bigint := (SELECT h.low FROM hours h WHERE h.hour = received);
BEGIN
    IF known IS NULL OR known > NEW.id THEN
        -- Two hours that begin at once must see each other's row.
        PERFORM pg_advisory_xact_lock(1634758764, 4096);
        INSERT INTO hours AS h (hour, low, high) SELECT received,
                least(NEW.id, (SELECT n.low FROM hours n WHERE n.hour > received ORDER BY n.hour LIMIT 1)),
                coalesce((SELECT p.high FROM hours p WHERE p.hour < received ORDER BY p.hour DESC LIMIT 1), 0)
            ON CONFLICT (hour) DO UPDATE SET low = least(h.low, excluded.low);
        UPDATE hours SET low = NEW.id WHERE hour < received AND low > NEW.id;
    END IF;
    IF EXISTS (SELECT 1 FROM hours l WHERE l.hour > received)
        AND EXISTS (SELECT 1 FROM hours l WHERE l.hour >= received AND l.high + 1000 < NEW.id) THEN
        PERFORM pg_advisory_xact_lock(1634758764, 4096);
        UPDATE hours SET high = NEW.id WHERE hour >= received AND high + 1000 < NEW.id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER applications_hours AFTER INSERT ON applications FOR EACH ROW EXECUTE FUNCTION keep_hours();
"""
    + _HOURS
    + """\
"""
)
"""What people look for is found by an index that goes on with the id, or by the hour (finding.py)."""

FINISHED = """
-- When the last of its applications was finished; NULL while one of them waits, or a report of them is not at its end.
ALTER TABLE messages ADD COLUMN finished_at double precision;
-- Not in SQL: a function in it is planned anew with each call, which takes a hundred times what its answer does.
CREATE FUNCTION message_finished_at(message bigint) RETURNS double precision LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT max(a.settled_at) FROM applications a WHERE a.message_id = message
        HAVING bool_and(a.state IN ('delivered', 'discarded', 'duplicate'))
           AND NOT EXISTS (SELECT 1 FROM applications b JOIN reports r ON r.application_id = b.id
                           WHERE b.message_id = message AND r.state IN ('due', 'refused', 'failed')));
END $$;
-- At the commit, behind a lock: two applications of one message that are finished at once would each take the other for
-- still waiting. One that has still to be reported is finished later, with its report.
CREATE FUNCTION keep_finished() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    application bigint;
    message bigint;
    finished double precision;
BEGIN
    IF TG_TABLE_NAME = 'reports' THEN application := NEW.application_id; ELSE application := NEW.id; END IF;
    SELECT a.message_id INTO message FROM applications a WHERE a.id = application AND NOT (
        a.state IN ('delivered', 'discarded', 'duplicate')
        AND EXISTS (SELECT 1 FROM reports r WHERE r.application_id = a.id AND r.state = 'due'));
    IF message IS NOT NULL THEN
        PERFORM 1 FROM messages m WHERE m.id = message FOR NO KEY UPDATE;
        finished := message_finished_at(message);
        UPDATE messages SET finished_at = finished WHERE id = message AND finished_at IS DISTINCT FROM finished;
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER messages_come_finished AFTER INSERT ON applications DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.state IN ('delivered', 'discarded', 'duplicate')) EXECUTE FUNCTION keep_finished();
CREATE CONSTRAINT TRIGGER messages_finished AFTER UPDATE ON applications DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN ((NEW.state <> OLD.state OR NEW.settled_at IS DISTINCT FROM OLD.settled_at)
        AND (NEW.state IN ('delivered', 'discarded', 'duplicate') OR OLD.state IN ('delivered', 'discarded', 'duplicate')))
    EXECUTE FUNCTION keep_finished();
CREATE CONSTRAINT TRIGGER messages_told AFTER UPDATE ON reports DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN ((NEW.state IN ('due', 'refused', 'failed')) <> (OLD.state IN ('due', 'refused', 'failed')))
    EXECUTE FUNCTION keep_finished();
UPDATE messages m SET finished_at = finished.at FROM (
        SELECT a.message_id, max(a.settled_at) AS at FROM applications a LEFT JOIN (
            SELECT DISTINCT application_id FROM reports WHERE state IN ('due', 'refused', 'failed')
        ) r ON r.application_id = a.id
        GROUP BY 1 HAVING bool_and(a.state IN ('delivered', 'discarded', 'duplicate') AND r.application_id IS NULL)
    ) finished
    WHERE finished.message_id = m.id AND m.erased_at IS NULL;
DROP INDEX messages_kept;
CREATE INDEX messages_finished ON messages (finished_at, id) WHERE erased_at IS NULL AND finished_at IS NOT NULL;
"""
"""Retention looks at what is finished, and not at all that waits to be."""

ANEW = f"""
LOCK TABLE messages, applications, reports, tallies, tally_changes, rerouted, hours IN SHARE ROW EXCLUSIVE MODE;
SET LOCAL enable_seqscan = on; SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on;
UPDATE applications a SET behind = NOT a.behind WHERE a.state = 'received' AND a.behind <> EXISTS (
    SELECT 1 FROM applications o WHERE o.account = a.account AND o.applicant_id = a.applicant_id
      AND o.state = 'received' AND o.id < a.id);
UPDATE messages m SET untrusted = NOT m.untrusted WHERE m.untrusted <> EXISTS (
    SELECT 1 FROM applications a WHERE a.message_id = m.id
      AND NOT a.trusted AND NOT a.vouched AND a.state IN ('received', 'held'));
DELETE FROM tallies;
DELETE FROM tally_changes;
{_TALLIED}
DELETE FROM rerouted;
{_REROUTED}
DELETE FROM hours;
{_HOURS}
UPDATE messages SET finished_at = message_finished_at(id)
    WHERE erased_at IS NULL AND finished_at IS DISTINCT FROM message_finished_at(id);
"""
"""Makes all of this again, should it ever be wrong; in a transaction, in which nobody else can write."""

TALLIED = "SELECT * FROM tallies UNION ALL SELECT * FROM tally_changes"
HOUR = "CAST(floor(a.received_at / 3600) AS bigint)"
"""The words in which the rules differ (derived.py)."""


EARLY = """
-- Until when idibu was told that it is tried; NULL: it was told nothing since the last time a person intervened.
ALTER TABLE applications ADD COLUMN announced_until double precision;
ALTER TABLE applications ADD COLUMN waits_since double precision;  -- when a person last intervened; NULL: it was received
CREATE INDEX applications_unannounced ON applications (account, coalesce(waits_since, received_at), id)
    WHERE state = 'received' AND NOT behind AND applicant_id IS NOT NULL AND (trusted OR vouched)
      AND announced_until IS NULL;
CREATE INDEX applications_announced ON applications (account, announced_until, id)
    WHERE state = 'received' AND announced_until IS NOT NULL;
"""
"""What waits is found by when idibu is to be told of it; what idibu was told of, by when that is over."""
