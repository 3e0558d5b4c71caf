CREATE TABLE sandbox_schema (
	version INTEGER NOT NULL
);

CREATE TABLE runs (
	id SERIAL NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	status VARCHAR(16) NOT NULL, 
	message TEXT, 
	world VARCHAR(64) NOT NULL, 
	seed BIGINT NOT NULL, 
	rounds INTEGER NOT NULL, 
	per_round INTEGER NOT NULL, 
	config TEXT NOT NULL, 
	embedder TEXT NOT NULL, 
	threshold FLOAT NOT NULL, 
	code_version VARCHAR(64) NOT NULL, 
	created VARCHAR(32) NOT NULL, 
	seconds FLOAT NOT NULL, 
	digest VARCHAR(64), 
	origin TEXT, 
	PRIMARY KEY (id), 
	UNIQUE (name)
);

CREATE TABLE texts (
	id BIGINT NOT NULL, 
	text TEXT NOT NULL, 
	PRIMARY KEY (id)
);

CREATE TABLE models (
	id SERIAL NOT NULL, 
	run_id INTEGER NOT NULL, 
	role VARCHAR(32) NOT NULL, 
	name TEXT NOT NULL, 
	settings TEXT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (run_id, role), 
	FOREIGN KEY(run_id) REFERENCES runs (id)
);

CREATE TABLE forms (
	id SERIAL NOT NULL, 
	run_id INTEGER NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	system TEXT NOT NULL, 
	template TEXT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (run_id, name), 
	FOREIGN KEY(run_id) REFERENCES runs (id)
);

CREATE TABLE agents (
	run_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	label VARCHAR(32) NOT NULL, 
	persona TEXT NOT NULL, 
	x FLOAT NOT NULL, 
	y FLOAT NOT NULL, 
	neighbours TEXT, 
	node TEXT, 
	community INTEGER, 
	PRIMARY KEY (run_id, number), 
	FOREIGN KEY(run_id) REFERENCES runs (id)
);

CREATE TABLE questions (
	id BIGINT NOT NULL, 
	run_id INTEGER NOT NULL, 
	source TEXT, 
	text_id BIGINT NOT NULL, 
	vector BYTEA, 
	PRIMARY KEY (id), 
	FOREIGN KEY(run_id) REFERENCES runs (id), 
	FOREIGN KEY(text_id) REFERENCES texts (id)
);

CREATE TABLE outcomes (
	run_id INTEGER NOT NULL, 
	round INTEGER NOT NULL, 
	measure VARCHAR(64) NOT NULL, 
	outcome VARCHAR(12) NOT NULL, 
	n INTEGER NOT NULL, 
	PRIMARY KEY (run_id, round, measure, outcome), 
	FOREIGN KEY(run_id) REFERENCES runs (id)
);

CREATE TABLE rater_sums (
	run_id INTEGER NOT NULL, 
	rater INTEGER NOT NULL, 
	label VARCHAR(32) NOT NULL, 
	ratings INTEGER NOT NULL, 
	missing INTEGER NOT NULL, 
	total INTEGER NOT NULL, 
	compared INTEGER NOT NULL, 
	deviation FLOAT NOT NULL, 
	deviation_squares FLOAT NOT NULL, 
	PRIMARY KEY (run_id, rater, label), 
	FOREIGN KEY(run_id) REFERENCES runs (id)
);

CREATE TABLE memories (
	id BIGINT NOT NULL, 
	run_id INTEGER NOT NULL, 
	agent INTEGER NOT NULL, 
	round INTEGER NOT NULL, 
	question_id BIGINT NOT NULL, 
	text_id BIGINT NOT NULL, 
	episode_id BIGINT, 
	PRIMARY KEY (id), 
	FOREIGN KEY(run_id) REFERENCES runs (id), 
	FOREIGN KEY(question_id) REFERENCES questions (id), 
	FOREIGN KEY(text_id) REFERENCES texts (id)
);

CREATE INDEX memories_by_agent ON memories (run_id, agent, round);

CREATE TABLE episodes (
	id BIGINT NOT NULL, 
	run_id INTEGER NOT NULL, 
	round INTEGER NOT NULL, 
	author INTEGER, 
	question_id BIGINT NOT NULL, 
	failed_at VARCHAR(64), 
	draft_id BIGINT, 
	revision_id BIGINT, 
	observed BOOLEAN NOT NULL, 
	draft_alignment SMALLINT, 
	revision_alignment SMALLINT, 
	draft_engagement SMALLINT, 
	revision_engagement SMALLINT, 
	mean_rating FLOAT, 
	ratings_read SMALLINT, 
	ratings_missing SMALLINT, 
	PRIMARY KEY (id), 
	FOREIGN KEY(run_id) REFERENCES runs (id), 
	FOREIGN KEY(question_id) REFERENCES questions (id), 
	FOREIGN KEY(draft_id) REFERENCES texts (id), 
	FOREIGN KEY(revision_id) REFERENCES texts (id)
);

CREATE INDEX episodes_by_round ON episodes (run_id, round);

CREATE INDEX episodes_by_author ON episodes (run_id, author, round);

CREATE TABLE calls (
	id BIGINT NOT NULL, 
	episode_id BIGINT NOT NULL, 
	form_id INTEGER NOT NULL, 
	agent INTEGER, 
	turn INTEGER NOT NULL, 
	attempt SMALLINT NOT NULL, 
	model_id INTEGER NOT NULL, 
	prompt TEXT NOT NULL, 
	prompt_hash BYTEA NOT NULL, 
	reply TEXT, 
	cut BOOLEAN NOT NULL, 
	status VARCHAR(12) NOT NULL, 
	error TEXT, 
	tokens_in INTEGER, 
	tokens_out INTEGER, 
	cached_tokens INTEGER, 
	started INTEGER NOT NULL, 
	took INTEGER NOT NULL, 
	memory_id BIGINT, 
	distance FLOAT, 
	thinking TEXT, 
	expected FLOAT, 
	PRIMARY KEY (id), 
	FOREIGN KEY(form_id) REFERENCES forms (id), 
	FOREIGN KEY(model_id) REFERENCES models (id)
);

CREATE INDEX calls_not_ok ON calls (id) WHERE status <> 'ok';

CREATE INDEX calls_by_episode ON calls (episode_id);

CREATE TABLE call_sums (
	run_id INTEGER NOT NULL, 
	form_id INTEGER NOT NULL, 
	model_id INTEGER NOT NULL, 
	status VARCHAR(12) NOT NULL, 
	calls INTEGER NOT NULL, 
	tokens_in BIGINT NOT NULL, 
	tokens_out BIGINT NOT NULL, 
	cached_tokens BIGINT NOT NULL, 
	told INTEGER NOT NULL, 
	tokens_told BIGINT NOT NULL, 
	took BIGINT NOT NULL, 
	PRIMARY KEY (run_id, form_id, model_id, status), 
	FOREIGN KEY(run_id) REFERENCES runs (id), 
	FOREIGN KEY(form_id) REFERENCES forms (id), 
	FOREIGN KEY(model_id) REFERENCES models (id)
);

CREATE TABLE ratings (
	episode_id BIGINT NOT NULL, 
	rater INTEGER NOT NULL, 
	rating SMALLINT, 
	reason_id BIGINT, 
	status VARCHAR(12) NOT NULL, 
	call_id BIGINT NOT NULL, 
	PRIMARY KEY (episode_id, rater), 
	FOREIGN KEY(episode_id) REFERENCES episodes (id), 
	FOREIGN KEY(reason_id) REFERENCES texts (id), 
	FOREIGN KEY(call_id) REFERENCES calls (id)
);

CREATE INDEX ratings_by_rater ON ratings (rater, episode_id);

CREATE TABLE observations (
	episode_id BIGINT NOT NULL, 
	stage VARCHAR(16) NOT NULL, 
	scale VARCHAR(32) NOT NULL, 
	rating SMALLINT, 
	reason_id BIGINT, 
	status VARCHAR(12) NOT NULL, 
	call_id BIGINT NOT NULL, 
	PRIMARY KEY (episode_id, stage, scale), 
	FOREIGN KEY(episode_id) REFERENCES episodes (id), 
	FOREIGN KEY(reason_id) REFERENCES texts (id), 
	FOREIGN KEY(call_id) REFERENCES calls (id)
);

CREATE TABLE parts (
	episode_id BIGINT NOT NULL, 
	number INTEGER NOT NULL, 
	name_id BIGINT NOT NULL, 
	about_id BIGINT NOT NULL, 
	agent INTEGER, 
	PRIMARY KEY (episode_id, number), 
	FOREIGN KEY(episode_id) REFERENCES episodes (id), 
	FOREIGN KEY(name_id) REFERENCES texts (id), 
	FOREIGN KEY(about_id) REFERENCES texts (id)
);

CREATE TABLE acts (
	episode_id BIGINT NOT NULL, 
	number INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	part INTEGER NOT NULL, 
	reacts_to INTEGER, 
	text_id BIGINT, 
	passed BOOLEAN, 
	why_id BIGINT, 
	seen_by TEXT NOT NULL, 
	harm BOOLEAN, 
	critique_id BIGINT, 
	PRIMARY KEY (episode_id, number), 
	FOREIGN KEY(episode_id) REFERENCES episodes (id), 
	FOREIGN KEY(text_id) REFERENCES texts (id), 
	FOREIGN KEY(why_id) REFERENCES texts (id), 
	FOREIGN KEY(critique_id) REFERENCES texts (id)
);

CREATE TABLE notes (
	episode_id BIGINT NOT NULL, 
	number INTEGER NOT NULL, 
	kind VARCHAR(32) NOT NULL, 
	text_id BIGINT NOT NULL, 
	PRIMARY KEY (episode_id, number), 
	FOREIGN KEY(episode_id) REFERENCES episodes (id), 
	FOREIGN KEY(text_id) REFERENCES texts (id)
);
