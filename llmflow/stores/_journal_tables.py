"""The tables of the journal in SQLite. They are documented in docs/reference/journal.md, as people read them with SQL.

Times are seconds since the epoch, durations seconds, money whole nano-dollars. What is not known is NULL. What refers to
what is said for people and for tools such as Datasette; SQLite does not enforce it, as rows come in any order.
"""

from __future__ import annotations

__all__ = ["IS_ITEM", "IS_REPLAY", "JOURNAL_SCHEMA", "SINCE_VERSION_2"]

IS_REPLAY = "substr(command, 1, 9) = '{\"replay\"'"
"""Which runs are replays of others; so written, an index has them."""
_REPLAYS = f"CREATE INDEX IF NOT EXISTS runs_of_replays ON runs (run_id) WHERE {IS_REPLAY}"

IS_ITEM = "instr(substr(key, instr(key, ']')), '/') = 0"
"""Which nodes of the run of a map are its items, and not inside of one."""
_FAILURES = "CREATE INDEX IF NOT EXISTS nodes_failed ON nodes (run_id, status) WHERE status = 'failed'"

_LOST = "(attempts.outcome = 'uncertain' OR attempts.outcome IS NULL)"
_BILLED = f"attempts.kind = 'attempt' AND (attempts.sent OR {_LOST})"
_RUN_COSTS = f"""CREATE VIEW IF NOT EXISTS run_costs AS
    SELECT runs.run_id, runs.target, runs.status, datetime(runs.started, 'unixepoch') AS started_utc,
        count(*) FILTER (WHERE attempts.kind = 'attempt') AS requests,
        coalesce(sum(attempts.cost_nano) FILTER (WHERE NOT {_LOST}), 0) / 1e9 AS cost_usd,
        CASE WHEN count(*) FILTER (WHERE {_BILLED} AND attempts.cost_nano IS NULL AND attempts.reserved_nano IS NULL) = 0
            THEN coalesce(sum(CASE WHEN {_BILLED} THEN coalesce(attempts.cost_nano, attempts.reserved_nano)
                ELSE attempts.cost_nano END), 0) / 1e9 END AS at_most_usd,
        count(*) FILTER (WHERE {_BILLED} AND NOT {_LOST} AND attempts.cost_nano IS NULL) AS unpriced,
        count(*) FILTER (WHERE attempts.outcome = 'uncertain') AS uncertain,
        count(*) FILTER (WHERE attempts.kind = 'attempt' AND attempts.outcome IS NULL) AS in_flight
    FROM runs LEFT JOIN attempts ON attempts.run_id = runs.run_id GROUP BY runs.run_id"""

JOURNAL_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS runs (
        run_id TEXT PRIMARY KEY NOT NULL,
        target TEXT NOT NULL,
        kind TEXT NOT NULL, -- step, task, flow or map
        ref TEXT, -- where the target is: module:name or path.py:name
        command TEXT, -- JSON: what llmflow run was told, or {"replay": ...}; NULL when a program started the run
        status TEXT NOT NULL, -- running, ok, failed, cancelled; interrupted when its process is gone
        started REAL NOT NULL,
        finished REAL,
        latency_s REAL,
        error TEXT, -- the class of what it raised
        message TEXT,
        tenant TEXT,
        tags TEXT, -- JSON
        graph TEXT REFERENCES graphs (graph),
        input_hash TEXT,
        inputs TEXT, -- JSON, the arguments by name; NULL when content is not stored
        output TEXT, -- JSON; of a single step or task it is in nodes
        content TEXT NOT NULL DEFAULT 'whole', -- redacted: texts of the output were changed before it was stored, and
            -- perhaps of the inputs; redacted-inputs: only of the inputs
        resumed INTEGER NOT NULL DEFAULT 0, -- how often it was taken up again
        named INTEGER NOT NULL DEFAULT 0, -- whether somebody gave it its id
        owner TEXT, -- the process that runs it
        lease REAL -- until when another machine must take the owner for alive
    )""",
    "CREATE INDEX IF NOT EXISTS runs_by_start ON runs (started)",
    "CREATE INDEX IF NOT EXISTS runs_in_work ON runs (owner, lease) WHERE status = 'running'",
    _REPLAYS,
    """CREATE TABLE IF NOT EXISTS nodes (
        run_id TEXT NOT NULL REFERENCES runs (run_id),
        key TEXT NOT NULL, -- its place in the run: support/triage, support/draft[4f21c09ab3d1]
        name TEXT NOT NULL,
        kind TEXT NOT NULL, -- step, task, flow; or_else for the choice of a fallback
        status TEXT NOT NULL, -- ok, failed, cancelled
        started REAL NOT NULL,
        latency_s REAL NOT NULL,
        model TEXT, -- who gave the answer
        prompt_version TEXT,
        input_hash TEXT,
        inputs TEXT, -- JSON, the arguments by name; NULL when content is not stored
        output TEXT, -- JSON; NULL when it is not stored
        content TEXT NOT NULL, -- whole; redacted: texts of the output were changed before it was stored;
            -- redacted-inputs: only those of the inputs; hashed: only hashes are stored; inputs: the output is not, as
            -- its task says journal=False or JSON cannot hold it
        error TEXT,
        message TEXT,
        PRIMARY KEY (run_id, key)
    ) WITHOUT ROWID""",
    _FAILURES,
    """CREATE TABLE IF NOT EXISTS calls (
        call_id TEXT PRIMARY KEY NOT NULL,
        run_id TEXT NOT NULL REFERENCES runs (run_id),
        node TEXT, -- nodes.key
        step TEXT NOT NULL,
        model TEXT,
        prompt_version TEXT,
        label TEXT, -- of the variant of the prompt
        finished REAL NOT NULL,
        latency_s REAL NOT NULL,
        error TEXT, -- NULL when it has a valid answer
        attempts INTEGER NOT NULL,
        reasks INTEGER NOT NULL,
        repaired INTEGER NOT NULL,
        cached INTEGER NOT NULL,
        input_tokens INTEGER,
        output_tokens INTEGER,
        cost_nano INTEGER,
        saved_nano INTEGER,
        waited_s REAL NOT NULL,
        throttled INTEGER NOT NULL,
        tenant TEXT,
        tags TEXT -- JSON
    )""",
    "CREATE INDEX IF NOT EXISTS calls_by_time ON calls (finished)",
    "CREATE INDEX IF NOT EXISTS calls_by_run ON calls (run_id)",
    """CREATE TABLE IF NOT EXISTS attempts (
        call_id TEXT NOT NULL REFERENCES calls (call_id),
        number INTEGER NOT NULL, -- counted from 1 over the requests of a call; 0 for what was no request
        kind TEXT NOT NULL, -- attempt; hit, stale, coalesced for an answer that took no request
        run_id TEXT NOT NULL REFERENCES runs (run_id),
        node TEXT,
        step TEXT NOT NULL,
        model TEXT NOT NULL,
        started REAL NOT NULL,
        latency_s REAL,
        outcome TEXT, -- ok, cancelled, cut, an error class; NULL while in flight; uncertain when its process died
        status INTEGER, -- of HTTP
        input_tokens INTEGER,
        cached_tokens INTEGER,
        cache_write_tokens INTEGER,
        output_tokens INTEGER,
        reasoning_tokens INTEGER,
        cost_nano INTEGER, -- of an uncertain request what was reserved: it is charged with the worst case
        reserved_nano INTEGER, -- the worst case, reckoned before it was sent
        saved_nano INTEGER,
        first_token_s REAL,
        hedge INTEGER NOT NULL DEFAULT 0,
        prompt_version TEXT,
        tenant TEXT,
        tags TEXT,
        reserved_tokens INTEGER, -- those of the prompt, estimated, and the most that the answer may have
        sent INTEGER NOT NULL DEFAULT 1, -- 0 when it never left this process, or was no request
        PRIMARY KEY (call_id, number, kind)
    ) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS attempts_by_run ON attempts (run_id)",
    "CREATE INDEX IF NOT EXISTS attempts_by_time ON attempts (started)",
    """CREATE TABLE IF NOT EXISTS prompts (
        step TEXT NOT NULL,
        version TEXT NOT NULL,
        label TEXT,
        parts TEXT NOT NULL, -- JSON: template, system, schema, params and what else makes the version
        first_seen REAL NOT NULL,
        PRIMARY KEY (step, version)
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS graphs (
        graph TEXT PRIMARY KEY NOT NULL, -- a hash of what follows
        target TEXT NOT NULL,
        nodes TEXT NOT NULL, -- JSON: kind and predecessors of each node, by key
        first_seen REAL NOT NULL
    ) WITHOUT ROWID""",
    _RUN_COSTS,
)

SINCE_VERSION_2 = (
    "DROP VIEW IF EXISTS run_costs",  # it added up what nobody knows
    "ALTER TABLE attempts ADD COLUMN reserved_tokens INTEGER",
    "ALTER TABLE attempts ADD COLUMN sent INTEGER NOT NULL DEFAULT 1",
    _RUN_COSTS,
    _REPLAYS,
    _FAILURES,
)
"""What a journal of version 2 lacks; a new column comes last, where it stands in a new file too."""
