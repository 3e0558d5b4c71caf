"""Summary tables, so that overviews do not have to scan all rows of a run.

The writer updates them in the transaction that writes the rows which they summarise: sums of calls
with each call, everything else when an episode is complete. They are derived entirely from those
rows, so `rebuild` can recreate them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, Engine, Table, TextClause, delete, select, text

from storage import tables
from storage.spacing import SPACELESS

_BATCH = 2000  # episodes at a time


def _add_to_sums(table: Table) -> str:
    """The SET clause of an upsert that adds the new sums to an existing row."""
    sums = (column.name for column in table.c if not column.primary_key)
    return ", ".join(f"{name} = {table.name}.{name} + excluded.{name}" for name in sums)


_AMONG = {
    "sqlite": "IN (SELECT value FROM json_each(:episodes))",
    "postgresql": "= ANY(CAST(translate(:episodes, '[]', '{}') AS BIGINT[]))",
}
"""Among the episodes to add, which come as a JSON array: one statement for all of a commit."""

_COMPLETE = """
UPDATE episodes SET observed = TRUE,
    ratings_read = (SELECT count(rating) FROM ratings r WHERE r.episode_id = episodes.id),
    ratings_missing = (SELECT count(*) - count(rating) FROM ratings r
        WHERE r.episode_id = episodes.id)
WHERE id IN :episodes"""

_CHOSEN = """
WITH chosen AS MATERIALIZED (SELECT * FROM episodes WHERE id IN :episodes)"""
"""The episodes to add, found by their ids before anything is joined to them."""

_SCORES = f"""{_CHOSEN}
INSERT INTO scores (measure_id, episode_id, value)
SELECT m.id, e.id, avg(CAST(o.rating AS FLOAT)) FROM chosen e
    JOIN observations o ON o.episode_id = e.id AND o.rating IS NOT NULL
    JOIN measures m ON m.run_id = e.run_id AND m.name = o.stage || '_' || o.scale
    GROUP BY m.id, e.id
UNION ALL SELECT m.id, e.id, avg(CAST(r.rating AS FLOAT)) FROM chosen e
    JOIN ratings r ON r.episode_id = e.id AND r.rating IS NOT NULL
    JOIN measures m ON m.run_id = e.run_id AND m.kind = 'peers'
    GROUP BY m.id, e.id"""

_GAINS = f"""{_CHOSEN}
INSERT INTO scores (measure_id, episode_id, value)
SELECT m.id, e.id, m.sign * (b.value - a.value) FROM chosen e
    JOIN measures m ON m.run_id = e.run_id AND m.kind = 'gain'
    JOIN measures first ON first.run_id = m.run_id AND first.name = m.base || '_' || m.scale
    JOIN measures last ON last.run_id = m.run_id AND last.name = m.stage || '_' || m.scale
    JOIN scores a ON a.measure_id = first.id AND a.episode_id = e.id
    JOIN scores b ON b.measure_id = last.id AND b.episode_id = e.id"""


def _number(value: str) -> str:
    """An SQL expression that formats a number as ``5`` or ``5.25``, the same in every dialect."""
    whole = f"CAST(CAST(round({value}) AS BIGINT) AS TEXT)"
    rounded = f"CAST(round(CAST({value} AS NUMERIC), 2) AS TEXT)"
    return f"CASE WHEN {value} = round({value}) THEN {whole} ELSE {rounded} END"


_OUTCOMES = f"""{_CHOSEN}
INSERT INTO outcomes (run_id, round, label, measure, outcome, n)
SELECT e.run_id, e.round, coalesce(a.label, ''), s.measure, s.outcome, count(*)
FROM chosen e JOIN (
    SELECT episode_id, CASE WHEN agent >= 0 THEN agent END AS agent,
        stage || '_' || scale AS measure, coalesce({_number("rating")}, status) AS outcome
        FROM observations WHERE episode_id IN :episodes
    UNION ALL SELECT p.id, NULL, m.name, coalesce({_number("r.rating")}, r.status)
        FROM chosen p JOIN measures m ON m.run_id = p.run_id AND m.kind = 'peers'
        JOIN ratings r ON r.episode_id = p.id
    UNION ALL SELECT p.id, NULL, 'agreement',
        CAST(CAST(round(CAST(avg(CAST(r.rating AS FLOAT)) AS NUMERIC)) AS BIGINT) AS TEXT) || '/'
            || CAST(CAST(s.value AS BIGINT) AS TEXT)
        FROM chosen p JOIN measures m ON m.run_id = p.run_id AND m.kind = 'peers'
        JOIN measures o ON o.run_id = p.run_id AND o.name = m.same_as
        JOIN scores s ON s.measure_id = o.id AND s.episode_id = p.id
        JOIN ratings r ON r.episode_id = p.id AND r.rating IS NOT NULL GROUP BY p.id, s.value
    UNION ALL SELECT p.id, NULL, 'mean_rating',
        {_number("sum(CAST(r.rating AS FLOAT))")} || '/' || CAST(count(r.rating) AS TEXT)
        FROM chosen p JOIN ratings r ON r.episode_id = p.id AND r.rating IS NOT NULL GROUP BY p.id
    UNION ALL SELECT id, NULL, 'episode',
        CASE WHEN failed_at IS NULL THEN 'played' ELSE 'failed' END
        FROM chosen
    UNION ALL SELECT p.id, NULL, m.name, {_number("s.value")}
        FROM chosen p JOIN measures m ON m.run_id = p.run_id AND m.kind = 'gain'
        JOIN scores s ON s.measure_id = m.id AND s.episode_id = p.id
) s ON s.episode_id = e.id
LEFT JOIN agents a ON a.run_id = e.run_id AND a.number = coalesce(s.agent, e.author)
WHERE TRUE GROUP BY e.run_id, e.round, coalesce(a.label, ''), s.measure, s.outcome
ON CONFLICT (run_id, round, label, measure, outcome) DO UPDATE
SET {_add_to_sums(tables.outcomes)}"""

_RATERS = f"""{_CHOSEN}
INSERT INTO rater_sums (run_id, rater, label, ratings, missing, total, compared,
    deviation, deviation_squares)
SELECT run_id, rater, label, count(*), count(*) - count(rating), coalesce(sum(rating), 0),
    count(apart), coalesce(sum(apart), 0), coalesce(sum(apart * apart), 0)
FROM (
    SELECT e.run_id, r.rater, coalesce(a.label, '') AS label, r.rating,
        CASE WHEN e.ratings_read > 1 THEN
            r.rating - (t.total - r.rating) / (e.ratings_read - 1)
        END AS apart
    FROM chosen e JOIN ratings r ON r.episode_id = e.id
    JOIN (SELECT episode_id, sum(CAST(rating AS FLOAT)) AS total FROM ratings
        WHERE episode_id IN :episodes GROUP BY episode_id) t ON t.episode_id = e.id
    LEFT JOIN agents a ON a.run_id = e.run_id AND a.number = e.author
) given WHERE TRUE GROUP BY run_id, rater, label
ON CONFLICT (run_id, rater, label) DO UPDATE SET {_add_to_sums(tables.rater_sums)}"""

_AGENTS = f"""{_CHOSEN}
INSERT INTO agent_sums (run_id, agent, measure_id, n, total, squares, rounds,
    round_squares, products)
SELECT run_id, agent, id, sum(n), sum(n * value), sum(n * value * value), sum(n * round),
    sum(n * round * round), sum(n * value * round)
FROM (
    SELECT e.run_id, e.author AS agent, m.id, s.value, CAST(e.round AS FLOAT) AS round,
        CASE m.kind WHEN 'peers' THEN e.ratings_read ELSE 1 END AS n
    FROM chosen e JOIN measures m ON m.run_id = e.run_id AND m.subject <> 'agent'
    JOIN scores s ON s.measure_id = m.id AND s.episode_id = e.id
    WHERE e.author IS NOT NULL
    UNION ALL SELECT e.run_id, o.agent, m.id, CAST(o.rating AS FLOAT), CAST(e.round AS FLOAT), 1
    FROM chosen e JOIN observations o ON o.episode_id = e.id AND o.rating IS NOT NULL
    JOIN measures m ON m.run_id = e.run_id AND m.name = o.stage || '_' || o.scale
    WHERE m.subject = 'agent'
) rated GROUP BY run_id, agent, id
ON CONFLICT (run_id, agent, measure_id) DO UPDATE SET {_add_to_sums(tables.agent_sums)}"""

_CALLS = f"""
INSERT INTO call_sums (run_id, form_id, model_id, status, calls, tokens_in, tokens_out,
    cached_tokens, told, tokens_told, took)
SELECT CAST(:run AS INTEGER), form_id, model_id, status, :sign * count(*),
    :sign * coalesce(sum(tokens_in), 0), :sign * coalesce(sum(tokens_out), 0),
    :sign * coalesce(sum(cached_tokens), 0), :sign * count(cached_tokens),
    :sign * coalesce(sum(CASE WHEN cached_tokens IS NULL THEN 0 ELSE tokens_in END), 0),
    :sign * sum(CAST(took AS BIGINT))
FROM calls WHERE id BETWEEN :first AND :last GROUP BY form_id, model_id, status
ON CONFLICT (run_id, form_id, model_id, status) DO UPDATE SET {_add_to_sums(tables.call_sums)}"""

_EPISODE_TEXTS = (
    "(SELECT t.text FROM questions q JOIN texts t ON t.id = q.text_id WHERE q.id = e.question_id)",
    "(SELECT {join}(t.text, ' ') FROM stage_texts s JOIN texts t ON t.id = s.text_id "
    "WHERE s.episode_id = e.id)",
    "(SELECT {join}(t.text, ' ') FROM ratings r JOIN texts t ON t.id = r.reason_id "
    "WHERE r.episode_id = e.id)",
    "(SELECT {join}(t.text, ' ') FROM observations o JOIN texts t ON t.id = o.reason_id "
    "WHERE o.episode_id = e.id)",
    """(SELECT {join}(t.text, ' ') FROM (
    SELECT text_id AS id FROM acts WHERE episode_id = e.id
    UNION ALL SELECT why_id FROM acts WHERE episode_id = e.id
    UNION ALL SELECT critique_id FROM acts WHERE episode_id = e.id
    UNION ALL SELECT name_id FROM parts WHERE episode_id = e.id
    UNION ALL SELECT about_id FROM parts WHERE episode_id = e.id
    UNION ALL SELECT text_id FROM notes WHERE episode_id = e.id
    UNION ALL SELECT DISTINCT prompt_id FROM utterances WHERE episode_id = e.id
    UNION ALL SELECT text_id FROM utterances WHERE episode_id = e.id
) s JOIN texts t ON t.id = s.id)""",
    """(SELECT {join}(t.text, ' ') FROM (
    SELECT {parts} AS part FROM calls c {reply}
        WHERE c.episode_id = e.id AND c.status NOT IN ('ok', 'lenient')
    UNION ALL SELECT {parts} FROM calls c {thinking} WHERE c.episode_id = e.id
) s JOIN texts t ON t.id = ((e.run_id - 1) * 4294967296 + s.part))""",
)
"""All texts of an episode: the question, the stages, the peers' reasons, the observer's reasons,
the texts of a scene or a conversation, and unusable replies and reasoning tokens."""

_COLUMNS = ("question", "stages", "ratings", "observations", "scene", "replies")
"""Their columns in the index of SQLite."""

_SQLITE = {
    "join": "group_concat",
    "parts": "j.value",
    "reply": "JOIN json_each('[' || c.reply || ']') j",
    "thinking": "JOIN json_each('[' || c.thinking || ']') j",
}
_POSTGRESQL = {
    "join": "string_agg",
    "parts": "CAST(j.value AS BIGINT)",
    "reply": "CROSS JOIN unnest(string_to_array(c.reply, ',')) AS j(value)",
    "thinking": "CROSS JOIN unnest(string_to_array(c.thinking, ',')) AS j(value)",
}

_WORDS_SQLITE = """
WITH said (id, {names}) AS MATERIALIZED (
    SELECT e.id, {texts} FROM episodes e WHERE e.id IN :episodes)
INSERT INTO words (rowid, {names}) SELECT id, {spaced} FROM said"""

_WORDS_POSTGRESQL = f"""
INSERT INTO words (episode_id, words)
SELECT e.id, to_tsvector('simple', regexp_replace(
    left(concat_ws(' ', {{texts}}), 200000), '({SPACELESS})', ' \\1 ', 'g'))
FROM episodes e WHERE e.id IN :episodes"""


def create_word_index(connection: Connection) -> None:
    """Create the full-text index over episodes: FTS5 in SQLite, a tsvector in PostgreSQL."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(
            "CREATE VIRTUAL TABLE words USING fts5(question, stages, ratings, observations, "
            "scene, replies, content='', columnsize=0, "
            "tokenize='unicode61 remove_diacritics 2')"
        )
        return
    connection.exec_driver_sql(
        "CREATE TABLE words (episode_id BIGINT PRIMARY KEY, words TSVECTOR NOT NULL)"
    )
    connection.exec_driver_sql("CREATE INDEX words_found ON words USING gin (words)")


_FORGET_SQLITE = """
WITH said (id, {names}) AS MATERIALIZED (
    SELECT e.id, {texts} FROM episodes e WHERE e.id IN :episodes)
INSERT INTO words (words, rowid, {names}) SELECT 'delete', id, {spaced} FROM said"""
"""An index without content deletes a row if it is given the row's texts once more."""

_FORGET_POSTGRESQL = "DELETE FROM words WHERE episode_id IN :episodes"


def _index_words(engine: Engine) -> str:
    return _with_texts(engine, _WORDS_SQLITE, _WORDS_POSTGRESQL)


def _with_texts(engine: Engine, sqlite: str, postgresql: str) -> str:
    """Put the texts of an episode into the statement for the dialect of a database."""
    is_sqlite = engine.dialect.name == "sqlite"
    texts = [each.format(**_SQLITE if is_sqlite else _POSTGRESQL) for each in _EPISODE_TEXTS]
    spaced = [
        f"CASE WHEN {name} GLOB '*[^\x01-\x7f]*' THEN spaced({name}) ELSE {name} END"
        for name in _COLUMNS
    ]  # Python is called only where there may be such a script
    statement = sqlite if is_sqlite else postgresql
    return statement.format(
        texts=", ".join(texts), names=", ".join(_COLUMNS), spaced=", ".join(spaced)
    )


class Summaries:
    """Updates the summaries of one run.

    Args:
        engine: the database.
        run_id: the run.
    """

    def __init__(self, engine: Engine, run_id: int) -> None:
        self._run_id = run_id
        self._episode_statements = [
            _compiled(engine, statement)
            for statement in (_COMPLETE, _SCORES, _GAINS, _OUTCOMES, _RATERS, _AGENTS)
        ]
        self._sum_statements = self._episode_statements[-2:]
        self._word_statement = _compiled(engine, _index_words(engine))
        self._call_statement = _compiled(engine, _CALLS)

    def add_calls(self, connection: Connection, first: int, last: int, sign: int = 1) -> None:
        """Add the calls with ids from `first` to `last`; a sign of -1 subtracts them."""
        values = {"run": self._run_id, "first": first, "last": last, "sign": sign}
        connection.exec_driver_sql(self._call_statement, values)

    def complete_episodes(self, connection: Connection, ids: Sequence[int]) -> None:
        """Mark episodes as complete and add them to the summaries."""
        values = {"episodes": json.dumps(list(ids))}
        for statement in self._episode_statements:
            connection.exec_driver_sql(statement, values)
        connection.exec_driver_sql(self._word_statement, values)

    def add_to_sums(self, connection: Connection, ids: Sequence[int]) -> None:
        """Add complete episodes to the sums by rater and by agent."""
        values = {"episodes": json.dumps(list(ids))}
        for statement in self._sum_statements:
            connection.exec_driver_sql(statement, values)


def _compiled(engine: Engine, statement: str) -> str:
    """Compile a statement to the parameter style of the driver."""
    among = _AMONG[engine.dialect.name]
    clause: TextClause = text(statement.replace("IN :episodes", among))
    return str(clause.compile(engine))


def summarise(connection: Connection, run_id: int) -> None:
    """Create the summaries of a run that has none yet, such as a copy."""
    first, last = tables.first_id(run_id), tables.first_id(run_id + 1) - 1
    summaries = Summaries(connection.engine, run_id)
    summaries.add_calls(connection, first, last)
    for ids in _complete_episodes(connection, run_id):
        summaries.complete_episodes(connection, ids)


def _complete_episodes(
    connection: Connection, run_id: int, first: int = 0
) -> Iterator[Sequence[int]]:
    """Yield the ids of complete episodes from an id on, in batches."""
    e = tables.episodes
    query = select(e.c.id).where(e.c.run_id == run_id, e.c.observed, e.c.id >= first)
    ids = connection.scalars(query.order_by(e.c.id)).all()
    for start in range(0, len(ids), _BATCH):
        yield ids[start : start + _BATCH]


def forget_words(connection: Connection, run_id: int, first: int) -> None:
    """Remove episodes from the index of words, before any of their rows is deleted.

    Args:
        connection: a transaction.
        run_id: the run.
        first: the id of the first episode to remove.
    """
    engine = connection.engine
    statement = _compiled(engine, _with_texts(engine, _FORGET_SQLITE, _FORGET_POSTGRESQL))
    for ids in _complete_episodes(connection, run_id, first):
        connection.exec_driver_sql(statement, {"episodes": json.dumps(list(ids))})


def add_up_again(connection: Connection, run_id: int, round: int) -> None:
    """Recompute the sums of a run after its episodes from a round on were deleted.

    Args:
        connection: a transaction.
        run_id: the run.
        round: the first round whose episodes were deleted.
    """
    o = tables.outcomes
    connection.execute(delete(o).where(o.c.run_id == run_id, o.c.round >= round))
    for table in (tables.rater_sums, tables.agent_sums):
        connection.execute(delete(table).where(table.c.run_id == run_id))
    summaries = Summaries(connection.engine, run_id)
    for ids in _complete_episodes(connection, run_id):
        summaries.add_to_sums(connection, ids)
    count_calls_again(connection, run_id)


def count_calls_again(connection: Connection, run_id: int) -> None:
    """Recompute the sums of a run's calls."""
    s = tables.call_sums
    connection.execute(delete(s).where(s.c.run_id == run_id))
    first, last = tables.first_id(run_id), tables.first_id(run_id + 1) - 1
    Summaries(connection.engine, run_id).add_calls(connection, first, last)


def rebuild(connection: Connection) -> None:
    """Recreate all summaries of a database."""
    connection.exec_driver_sql("DROP TABLE IF EXISTS words")
    create_word_index(connection)
    for table in (
        tables.outcomes,
        tables.rater_sums,
        tables.agent_sums,
        tables.call_sums,
        tables.scores,
    ):
        connection.execute(delete(table))
    for run_id in connection.scalars(select(tables.runs.c.id)).all():
        summarise(connection, run_id)
