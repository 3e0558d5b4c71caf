"""The tables of a database of runs. One schema serves SQLite and any other SQLAlchemy dialect.

Ids of a run's rows start at ``(run_id - 1) << 32``, so that the writer of a run can assign them
without asking the database. Texts are stored once and referred to by id; `prompt`, `reply` and
`thinking` of a call are comma-separated lists of text ids, counted from the run's first id.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

metadata = MetaData()

Id = BigInteger().with_variant(Integer, "sqlite")

Rating = Float().with_variant(Numeric(asdecimal=False), "sqlite")
"""A rating on any scale; SQLite stores whole numbers as integers."""

SUMMARY = {"summary": True}
"""Marks columns that summarise other rows: see `storage.summaries`."""


def first_id(run_id: int) -> int:
    """The first id of a run's texts, questions, episodes, calls and memories."""
    return (run_id - 1) << 32


schema = Table("sandbox_schema", metadata, Column("version", Integer, nullable=False))

runs = Table(
    "runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("status", String(16), nullable=False),  # running, interrupted, failed, done
    Column("message", Text),  # why the run stopped; NULL: nothing to report
    Column("world", String(64), nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("rounds", Integer, nullable=False),  # number of rounds to play
    Column("per_round", Integer, nullable=False),  # episodes per round
    Column("config", Text, nullable=False),  # JSON, validated, with absolute paths
    Column("embedder", Text, nullable=False),
    Column("threshold", Float, nullable=False),  # cosine distance below which memory is recalled
    Column("code_version", String(64), nullable=False),
    Column("created", String(32), nullable=False),  # ISO 8601, UTC
    Column("seconds", Float, nullable=False),  # working time, summed over all sessions
    Column("digest", String(64)),  # of a finished run
    Column("digest_version", SmallInteger, nullable=False),  # version of the digest's rules
    Column("declaration", Text, nullable=False),  # JSON: stages and scales of the world
    Column("origin", Text),  # JSON: the run that it was forked from; NULL: not a fork
    Column("asked_again_from", Integer),  # first round played again; NULL: no retry under way
    Column("asked_again", Integer),  # number of calls that are requested again; NULL: the same
    Column("stances", Text, nullable=False),  # JSON: the sentences that describe each label
    Column("inputs", Text),  # JSON: a line about each input file; NULL: not known
    Column("policy", Text),  # JSON: the rules that bind it; NULL: none, as in older runs
)

sessions = Table(
    "sessions",
    metadata,
    Column("run_id", ForeignKey("runs.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),  # from 0
    Column("started", String(32), nullable=False),  # ISO 8601, UTC
    Column("ended", String(32)),  # NULL: under way, or killed
    Column("status", String(16), nullable=False),  # of the run at its end; running until then
    Column("message", Text),  # why it ended; NULL: nothing to report
    Column("calls", Integer, nullable=False),  # new calls; 0 while it is under way
    Column("first_call", Id, nullable=False),  # its calls have this id or a higher one
    Column("code_version", String(64), nullable=False),
    Column("changes", Text),  # JSON: settings changed at its start, {key: [before, after]}
    Column("waiting", Text),  # JSON: the roles that wait for a backend, and why; NULL: none
    Column("environment", Text),  # JSON: versions, machine and engines; NULL: none was started
    sqlite_with_rowid=False,
)

texts = Table(
    "texts",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=False),
    Column("text", Text, nullable=False),
)

models = Table(
    "models",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", ForeignKey("runs.id"), nullable=False),
    Column("role", String(32), nullable=False),  # social, observer, or a group
    Column("name", Text, nullable=False),
    Column("settings", Text, nullable=False),  # JSON
    UniqueConstraint("run_id", "role"),
)

forms = Table(
    "forms",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", ForeignKey("runs.id"), nullable=False),
    Column("name", String(64), nullable=False),
    Column("system", Text, nullable=False),
    Column("template", Text, nullable=False),
    UniqueConstraint("run_id", "name"),
)

measures = Table(
    "measures",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run_id", ForeignKey("runs.id"), nullable=False),
    Column("name", String(64), nullable=False),  # draft_alignment, alignment_gain, peer_rating, ...
    Column("kind", String(8), nullable=False),  # score, gain, peers
    Column("scale", String(32), nullable=False),
    Column("subject", String(8), nullable=False),  # stage, agent, pair: what is rated
    Column("stage", String(32), nullable=False),  # for a gain: the last stage
    Column("base", String(32)),  # for a gain: the first stage
    Column("sign", SmallInteger, nullable=False),  # for a gain: -1 where low is better
    Column("same_as", String(64)),  # for the peers: the observer's measure that means the same
    UniqueConstraint("run_id", "name"),
)

agents = Table(
    "agents",
    metadata,
    Column("run_id", ForeignKey("runs.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("label", String(32), nullable=False),
    Column("persona", Text, nullable=False),  # JSON
    Column("x", Float, nullable=False),
    Column("y", Float, nullable=False),
    Column("neighbours", Text),  # agent numbers, comma-separated; NULL: by position
    Column("node", Text),  # name of the node in a graph file; NULL: no graph
    Column("community", Integer),  # of agents with similar profiles; NULL: none
    sqlite_with_rowid=False,
)

questions = Table(
    "questions",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=False),
    Column("run_id", ForeignKey("runs.id"), nullable=False),
    Column("source", Text),  # file and line; NULL: only in prior memories
    Column("text_id", ForeignKey("texts.id"), nullable=False),
    Column("topic", Text),  # from the question file; NULL: none
    Column("vector", LargeBinary),  # float16, little-endian, zlib; once per text
)

memories = Table(
    "memories",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=False),
    Column("run_id", ForeignKey("runs.id"), nullable=False),
    Column("agent", Integer, nullable=False),
    Column("round", Integer, nullable=False),  # -1: prior memory
    Column("question_id", ForeignKey("questions.id"), nullable=False),
    Column("text_id", ForeignKey("texts.id"), nullable=False),  # the remembered answer
    Column("episode_id", Id),  # NULL: prior memory
    Index("memories_by_agent", "run_id", "agent", "round"),
)

episodes = Table(
    "episodes",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=False),  # first id + round * per_round + slot
    Column("run_id", ForeignKey("runs.id"), nullable=False),
    Column("round", Integer, nullable=False),
    Column("author", Integer),  # the agent whose memory it changes; NULL: none
    Column("question_id", ForeignKey("questions.id"), nullable=False),
    Column("failed_at", String(64)),  # form without a usable reply; NULL: played to the end
    Column("observed", Boolean, nullable=False),  # complete: no more rows will be written for it
    Column("ratings_read", SmallInteger, info=SUMMARY),  # peers' ratings that could be parsed
    Column("ratings_missing", SmallInteger, info=SUMMARY),  # and that could not
    Index("episodes_by_round", "run_id", "round"),
    Index("episodes_by_author", "run_id", "author", "round"),
)

stage_texts = Table(
    "stage_texts",
    metadata,
    Column("episode_id", ForeignKey("episodes.id"), primary_key=True, autoincrement=False),
    Column("stage", String(32), primary_key=True),  # draft, revision, ...: see runs.declaration
    Column("text_id", ForeignKey("texts.id"), nullable=False),
    # truncated by the token limit, and kept to its last whole sentence
    Column("shortened", Boolean, nullable=False, server_default=false()),
    Column("rules", Text),  # ids of the rules that its reply broke, comma-separated; NULL: none
    Column("refused", Boolean, nullable=False, server_default=false()),  # the policy's refusal
    sqlite_with_rowid=False,
)

ratings = Table(
    "ratings",
    metadata,
    Column("episode_id", ForeignKey("episodes.id"), primary_key=True, autoincrement=False),
    Column("rater", Integer, primary_key=True, autoincrement=False),
    Column("rating", Rating),  # NULL: the reply could not be parsed
    Column("reason_id", ForeignKey("texts.id")),
    Column("status", String(12), nullable=False),
    Column("call_id", ForeignKey("calls.id"), nullable=False),
    Index("ratings_by_rater", "rater", "episode_id"),
    sqlite_with_rowid=False,
)

observations = Table(
    "observations",
    metadata,
    Column("episode_id", ForeignKey("episodes.id"), primary_key=True, autoincrement=False),
    Column("stage", String(32), primary_key=True),
    Column("scale", String(32), primary_key=True),
    Column("agent", Integer, primary_key=True, autoincrement=False),  # -1: the stage is rated
    Column("other", Integer, primary_key=True, autoincrement=False),  # -1: no pair
    Column("rating", Rating),
    Column("reason_id", ForeignKey("texts.id")),
    Column("status", String(12), nullable=False),
    Column("call_id", ForeignKey("calls.id"), nullable=False),
    Index(
        "observations_by_agent",
        "agent",
        sqlite_where=text("agent >= 0"),
        postgresql_where=text("agent >= 0"),
    ),
    sqlite_with_rowid=False,
)

parts = Table(
    "parts",
    metadata,
    Column("episode_id", ForeignKey("episodes.id"), primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("name_id", ForeignKey("texts.id"), nullable=False),
    Column("about_id", ForeignKey("texts.id"), nullable=False),
    Column("agent", Integer),  # NULL: invented
    sqlite_with_rowid=False,
)

acts = Table(
    "acts",
    metadata,
    Column("episode_id", ForeignKey("episodes.id"), primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("step", Integer, nullable=False),
    Column("part", Integer, nullable=False),
    Column("reacts_to", Integer),  # number of another act; NULL: a step of the plan
    Column("text_id", ForeignKey("texts.id")),  # NULL: the reply could not be parsed
    Column("passed", Boolean),  # NULL: the verdict could not be parsed
    Column("why_id", ForeignKey("texts.id")),
    Column("seen_by", Text, nullable=False),  # part numbers, comma-separated
    Column("harm", Boolean),  # NULL: the critique could not be parsed
    Column("critique_id", ForeignKey("texts.id")),
    sqlite_with_rowid=False,
)

notes = Table(
    "notes",
    metadata,
    Column("episode_id", ForeignKey("episodes.id"), primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(32), nullable=False),  # step, occasion, consequences, instruction, ...
    Column("text_id", ForeignKey("texts.id"), nullable=False),
    Column("shortened", Boolean, nullable=False, server_default=false()),  # as in `stage_texts`
    sqlite_with_rowid=False,
)

utterances = Table(
    "utterances",
    metadata,
    Column("episode_id", ForeignKey("episodes.id"), primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),  # the turn of its calls
    Column("kind", String(16), nullable=False),  # answer, aggregate, red_team
    Column("turn", Integer, nullable=False),  # of the conversation, from 0
    Column("candidate", Integer, nullable=False),  # of the turn, from 0
    Column("prompt_id", ForeignKey("texts.id"), nullable=False),  # what the user says
    Column("text_id", ForeignKey("texts.id")),  # what the model answers; NULL: no usable reply
    Column("refused", Boolean, nullable=False),  # the text is the policy's refusal
    Column("chosen", Boolean, nullable=False),  # the conversation goes on from it
    Column("score", Rating),  # the user's; NULL: not asked, or unparseable
    Column("manner", String(32), nullable=False),  # the type of conversation, or the phrasing
    Column("request", String(64)),  # id of a red-team request
    Column("rule", String(64)),  # id of the rule that the request would break
    sqlite_with_rowid=False,
)

verdicts = Table(
    "verdicts",
    metadata,
    Column("episode_id", ForeignKey("episodes.id"), primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(16), nullable=False),  # obeyed, guess, dimension, ...
    Column("subject", String(64), nullable=False),  # a rule, an attribute, a dimension
    Column("utterance", Integer),  # number of an utterance; NULL: the conversation
    Column("value", Text),  # NULL: no usable reply
    Column("expected", Text),  # the true value; NULL: there is none
    sqlite_with_rowid=False,
)

breaches = Table(
    "breaches",
    metadata,
    Column("episode_id", ForeignKey("episodes.id"), primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("rule", String(64), nullable=False),  # its id: see runs.policy
    Column("tier", SmallInteger, nullable=False),
    Column("action", String(12), nullable=False),  # recorded, asked_again, refused
    Column("found", Text, nullable=False),  # what broke the rule
    Column("call_id", ForeignKey("calls.id"), nullable=False),  # whose reply broke it
    sqlite_with_rowid=False,
)

overruled = Table(
    "overruled",
    metadata,
    Column("run_id", ForeignKey("runs.id"), primary_key=True),
    Column("agent", Integer, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("wish", Text, nullable=False),  # a preference of the agent
    Column("rule", String(64), nullable=False),  # id of the rule that overrules it
    sqlite_with_rowid=False,
)

calls = Table(
    "calls",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=False),  # in the order of the journal
    Column("episode_id", Id, nullable=False),
    Column("form_id", ForeignKey("forms.id"), nullable=False),
    Column("agent", Integer),  # NULL: the observer or no agent
    Column("turn", Integer, nullable=False),
    Column("attempt", SmallInteger, nullable=False),
    Column("model_id", ForeignKey("models.id"), nullable=False),
    Column("prompt", Text, nullable=False),  # text ids of the user message
    Column("prompt_hash", LargeBinary(16), nullable=False),
    Column("reply", Text),  # text ids; NULL: the call failed
    Column("cut", Boolean, nullable=False),  # the token limit ended the reply
    Column("status", String(12), nullable=False),  # ok: usable, even if the reason was truncated
    Column("error", Text),
    Column("tokens_in", Integer),
    Column("tokens_out", Integer),
    Column("cached_tokens", Integer),
    Column("started", Integer, nullable=False),  # working time before the call, in ms
    Column("took", Integer, nullable=False),  # ms until the reply
    Column("memory_id", Id),  # memory shown in the prompt
    Column("distance", Float),  # its cosine distance from the question
    Column("thinking", Text),  # text ids: reasoning before the answer
    Column("expected", Float),  # mean of the labels, weighted by probability
    Column("raw", Text),  # the response of a server, where it was not wholly understood
    Column("further", Text),  # memories shown after the first: number:distance, comma-separated
    Index("calls_by_episode", "episode_id"),
    Index(
        "calls_not_ok",
        "id",
        sqlite_where=text("status <> 'ok'"),
        postgresql_where=text("status <> 'ok'"),
    ),
)

scores = Table(
    "scores",
    metadata,
    Column("measure_id", ForeignKey("measures.id"), primary_key=True, autoincrement=False),
    Column("episode_id", ForeignKey("episodes.id"), primary_key=True, autoincrement=False),
    Column("value", Float, nullable=False),  # complete episodes only; no row: missing
    sqlite_with_rowid=False,
)

outcomes = Table(
    "outcomes",
    metadata,
    Column("run_id", ForeignKey("runs.id"), primary_key=True),
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("label", String(32), primary_key=True),  # of the author or the rated agent; or empty
    Column("measure", String(64), primary_key=True),  # in `measures`, episode, agreement, ...
    Column("outcome", String(24), primary_key=True),  # a value, or the status of a missing one
    Column("n", Integer, nullable=False),  # complete episodes only
    sqlite_with_rowid=False,
)

rater_sums = Table(
    "rater_sums",
    metadata,
    Column("run_id", ForeignKey("runs.id"), primary_key=True),
    Column("rater", Integer, primary_key=True, autoincrement=False),
    Column("label", String(32), primary_key=True),  # the authors' starting demographic
    Column("ratings", Integer, nullable=False),  # complete episodes only
    Column("missing", Integer, nullable=False),  # of these, without a rating
    Column("total", Rating, nullable=False),  # sum of the parsed ratings
    Column("compared", Integer, nullable=False),  # drafts that others have rated too
    Column("deviation", Float, nullable=False),  # sum of (own rating - mean of the others)
    Column("deviation_squares", Float, nullable=False),
    sqlite_with_rowid=False,
)

agent_sums = Table(
    "agent_sums",
    metadata,
    Column("run_id", ForeignKey("runs.id"), primary_key=True),
    Column(
        "agent", Integer, primary_key=True, autoincrement=False
    ),  # the rated agent, or the author
    Column("measure_id", ForeignKey("measures.id"), primary_key=True, autoincrement=False),
    Column("n", Integer, nullable=False),  # values in complete episodes; for peers: ratings
    Column("total", Float, nullable=False),  # their sum
    Column("squares", Float, nullable=False),  # the sum of their squares
    Column("rounds", Float, nullable=False),  # the sum of their rounds
    Column("round_squares", Float, nullable=False),  # the sum of the squares of their rounds
    Column("products", Float, nullable=False),  # the sum of value times round
    sqlite_with_rowid=False,
)

call_sums = Table(
    "call_sums",
    metadata,
    Column("run_id", ForeignKey("runs.id"), primary_key=True),
    Column("form_id", ForeignKey("forms.id"), primary_key=True),
    Column("model_id", ForeignKey("models.id"), primary_key=True),
    Column("status", String(12), primary_key=True),
    Column("calls", Integer, nullable=False),
    Column("tokens_in", BigInteger, nullable=False),
    Column("tokens_out", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("told", Integer, nullable=False),  # calls for which `cached_tokens` is known
    Column("tokens_told", BigInteger, nullable=False),  # prompt tokens of those calls
    Column("took", BigInteger, nullable=False),  # milliseconds
    sqlite_with_rowid=False,
)
