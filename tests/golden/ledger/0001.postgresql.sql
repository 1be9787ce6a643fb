CREATE TABLE access_checks (
	id BIGSERIAL NOT NULL,
	customer TEXT COLLATE "C" NOT NULL,
	checked_at TEXT COLLATE "C" NOT NULL,
	seconds DOUBLE PRECISION NOT NULL,
	interrupted BOOLEAN NOT NULL,
	outcome TEXT COLLATE "C" NOT NULL,
	CONSTRAINT pk_access_checks PRIMARY KEY (id)
);
CREATE INDEX ix_access_checks_customer_checked_at ON access_checks (customer, checked_at);
CREATE TABLE acts (
	id TEXT COLLATE "C" NOT NULL,
	kind TEXT COLLATE "C" NOT NULL,
	customer TEXT COLLATE "C" NOT NULL,
	holder TEXT COLLATE "C" NOT NULL,
	person TEXT COLLATE "C" NOT NULL,
	reason TEXT COLLATE "C" NOT NULL,
	started_at TEXT COLLATE "C" NOT NULL,
	finished_at TEXT COLLATE "C",
	outcome TEXT COLLATE "C",
	objects BIGINT NOT NULL,
	bytes BIGINT NOT NULL,
	failed BIGINT NOT NULL,
	failure_cause TEXT COLLATE "C",
	failure_responsible TEXT COLLATE "C",
	failure_message TEXT COLLATE "C",
	failure_hint TEXT COLLATE "C",
	failure_retryable BOOLEAN,
	failure_request_id TEXT COLLATE "C",
	CONSTRAINT pk_acts PRIMARY KEY (id)
);
CREATE INDEX ix_acts_customer_started_at ON acts (customer, started_at);
CREATE TABLE alerts (
	fingerprint TEXT COLLATE "C" NOT NULL,
	cause TEXT COLLATE "C" NOT NULL,
	detail TEXT COLLATE "C" NOT NULL,
	responsible TEXT COLLATE "C" NOT NULL,
	urgent BOOLEAN NOT NULL,
	summary TEXT COLLATE "C" NOT NULL,
	message TEXT COLLATE "C" NOT NULL,
	hint TEXT COLLATE "C" NOT NULL,
	since_at TEXT COLLATE "C" NOT NULL,
	customers TEXT COLLATE "C" NOT NULL,
	customer_count BIGINT NOT NULL,
	opened_at TEXT COLLATE "C",
	resolved_at TEXT COLLATE "C",
	notifications TEXT COLLATE "C" NOT NULL,
	CONSTRAINT pk_alerts PRIMARY KEY (fingerprint)
);
CREATE TABLE capabilities (
	customer TEXT COLLATE "C" NOT NULL,
	multipart BOOLEAN,
	abort BOOLEAN,
	region TEXT COLLATE "C",
	versioned BOOLEAN,
	kms BOOLEAN,
	learned_at TEXT COLLATE "C",
	CONSTRAINT pk_capabilities PRIMARY KEY (customer)
);
CREATE TABLE daemons (
	holder TEXT COLLATE "C" NOT NULL,
	started_at TEXT COLLATE "C" NOT NULL,
	ticked_at TEXT COLLATE "C" NOT NULL,
	tick_seconds BIGINT NOT NULL,
	workers BIGINT NOT NULL,
	busy BIGINT NOT NULL,
	configuration_loaded_at TEXT COLLATE "C",
	configuration_problems TEXT COLLATE "C" NOT NULL,
	failure_cause TEXT COLLATE "C",
	failure_responsible TEXT COLLATE "C",
	failure_message TEXT COLLATE "C",
	failure_hint TEXT COLLATE "C",
	failure_retryable BOOLEAN,
	failure_request_id TEXT COLLATE "C",
	stopping BOOLEAN NOT NULL,
	stopped_at TEXT COLLATE "C",
	CONSTRAINT pk_daemons PRIMARY KEY (holder)
);
CREATE INDEX ix_daemons_ticked_at ON daemons (ticked_at);
CREATE TABLE discrepancies (
	customer TEXT COLLATE "C" NOT NULL,
	feed TEXT COLLATE "C" NOT NULL,
	period TEXT COLLATE "C" NOT NULL,
	flaw TEXT COLLATE "C" NOT NULL,
	keys BIGINT NOT NULL,
	first_key TEXT COLLATE "C" NOT NULL,
	since_at TEXT COLLATE "C" NOT NULL,
	CONSTRAINT pk_discrepancies PRIMARY KEY (customer, feed, period, flaw)
);
CREATE TABLE leases (
	name TEXT COLLATE "C" NOT NULL,
	generation BIGINT NOT NULL,
	holder TEXT COLLATE "C",
	claimed_at TEXT COLLATE "C",
	expires_at TEXT COLLATE "C",
	presence TEXT COLLATE "C",
	CONSTRAINT pk_leases PRIMARY KEY (name)
);
CREATE TABLE looks (
	customer TEXT COLLATE "C" NOT NULL,
	feed TEXT COLLATE "C" NOT NULL,
	looked_at TEXT COLLATE "C" NOT NULL,
	first_looked_at TEXT COLLATE "C" NOT NULL,
	newest_complete TEXT COLLATE "C",
	due_count BIGINT NOT NULL,
	due TEXT COLLATE "C" NOT NULL,
	due_since_at TEXT COLLATE "C",
	waiting_count BIGINT NOT NULL,
	waiting TEXT COLLATE "C" NOT NULL,
	failure_cause TEXT COLLATE "C",
	failure_responsible TEXT COLLATE "C",
	failure_message TEXT COLLATE "C",
	failure_hint TEXT COLLATE "C",
	failure_retryable BOOLEAN,
	failure_request_id TEXT COLLATE "C",
	failing_since_at TEXT COLLATE "C",
	CONSTRAINT pk_looks PRIMARY KEY (customer, feed)
);
CREATE TABLE notices (
	customer TEXT COLLATE "C" NOT NULL,
	feed TEXT COLLATE "C" NOT NULL,
	period TEXT COLLATE "C" NOT NULL,
	kind TEXT COLLATE "C" NOT NULL,
	revision BIGINT NOT NULL,
	key TEXT COLLATE "C" NOT NULL,
	body TEXT COLLATE "C" NOT NULL,
	made_at TEXT COLLATE "C" NOT NULL,
	status TEXT COLLATE "C" NOT NULL,
	attempts BIGINT NOT NULL,
	next_attempt_at TEXT COLLATE "C",
	put_at TEXT COLLATE "C",
	error TEXT COLLATE "C" NOT NULL,
	CONSTRAINT pk_notices PRIMARY KEY (customer, feed, period, kind, revision)
);
CREATE INDEX ix_notices_status ON notices (status);
CREATE TABLE passed_over (
	customer TEXT COLLATE "C" NOT NULL,
	feed TEXT COLLATE "C" NOT NULL,
	period TEXT COLLATE "C" NOT NULL,
	marker TEXT COLLATE "C" NOT NULL,
	passed_at TEXT COLLATE "C" NOT NULL,
	CONSTRAINT pk_passed_over PRIMARY KEY (customer, feed, period)
);
CREATE TABLE periods (
	id BIGSERIAL NOT NULL,
	customer TEXT COLLATE "C" NOT NULL,
	feed TEXT COLLATE "C" NOT NULL,
	period TEXT COLLATE "C" NOT NULL,
	CONSTRAINT pk_periods PRIMARY KEY (id),
	CONSTRAINT uq_periods_customer_feed_period UNIQUE (customer, feed, period)
);
CREATE TABLE queue_clock (
	id INTEGER NOT NULL,
	clock DOUBLE PRECISION NOT NULL,
	CONSTRAINT pk_queue_clock PRIMARY KEY (id)
);
CREATE TABLE queue_customers (
	customer TEXT COLLATE "C" NOT NULL,
	weight INTEGER NOT NULL,
	spent DOUBLE PRECISION NOT NULL,
	backfill BOOLEAN NOT NULL,
	serving_at TEXT COLLATE "C",
	reread_at TEXT COLLATE "C",
	since_at TEXT COLLATE "C" NOT NULL,
	next_at TEXT COLLATE "C",
	feed TEXT COLLATE "C",
	period TEXT COLLATE "C",
	reason TEXT COLLATE "C" NOT NULL,
	again BOOLEAN NOT NULL,
	looked BOOLEAN NOT NULL,
	refused BOOLEAN NOT NULL,
	ended BIGINT NOT NULL,
	CONSTRAINT pk_queue_customers PRIMARY KEY (customer)
);
CREATE TABLE visits (
	customer TEXT COLLATE "C" NOT NULL,
	work TEXT COLLATE "C" NOT NULL,
	served_at TEXT COLLATE "C" NOT NULL,
	CONSTRAINT pk_visits PRIMARY KEY (customer, work)
);
CREATE TABLE workers (
	holder TEXT COLLATE "C" NOT NULL,
	started_at TEXT COLLATE "C" NOT NULL,
	seen_at TEXT COLLATE "C" NOT NULL,
	places BIGINT NOT NULL,
	busy BIGINT NOT NULL,
	waiting BIGINT NOT NULL,
	stopping BOOLEAN NOT NULL,
	stopped_at TEXT COLLATE "C",
	version TEXT COLLATE "C" NOT NULL,
	trouble TEXT COLLATE "C" NOT NULL,
	CONSTRAINT pk_workers PRIMARY KEY (holder)
);
CREATE TABLE access_findings (
	check_id BIGINT NOT NULL,
	number INTEGER NOT NULL,
	probe TEXT COLLATE "C" NOT NULL,
	result TEXT COLLATE "C" NOT NULL,
	cause TEXT COLLATE "C",
	responsible TEXT COLLATE "C",
	severity TEXT COLLATE "C" NOT NULL,
	message TEXT COLLATE "C" NOT NULL,
	request_id TEXT COLLATE "C",
	said TEXT COLLATE "C" NOT NULL,
	CONSTRAINT pk_access_findings PRIMARY KEY (check_id, number),
	CONSTRAINT fk_access_findings_access_checks FOREIGN KEY(check_id) REFERENCES access_checks (id)
);
CREATE TABLE access_leftovers (
	check_id BIGINT NOT NULL,
	number INTEGER NOT NULL,
	kind TEXT COLLATE "C" NOT NULL,
	key TEXT COLLATE "C" NOT NULL,
	bytes BIGINT NOT NULL,
	id TEXT COLLATE "C",
	CONSTRAINT pk_access_leftovers PRIMARY KEY (check_id, number),
	CONSTRAINT fk_access_leftovers_access_checks FOREIGN KEY(check_id) REFERENCES access_checks (id)
);
CREATE TABLE deliveries (
	period_id BIGINT NOT NULL,
	revision INTEGER NOT NULL,
	id TEXT COLLATE "C" NOT NULL,
	status TEXT COLLATE "C" NOT NULL,
	created_at TEXT COLLATE "C" NOT NULL,
	updated_at TEXT COLLATE "C" NOT NULL,
	marker TEXT COLLATE "C" NOT NULL,
	object_count BIGINT NOT NULL,
	total_bytes BIGINT NOT NULL,
	manifest_key TEXT COLLATE "C",
	manifest_checksum TEXT COLLATE "C",
	delivered_at TEXT COLLATE "C",
	failure_cause TEXT COLLATE "C",
	failure_responsible TEXT COLLATE "C",
	failure_message TEXT COLLATE "C",
	failure_hint TEXT COLLATE "C",
	failure_retryable BOOLEAN,
	failure_request_id TEXT COLLATE "C",
	attempts BIGINT NOT NULL,
	next_attempt_at TEXT COLLATE "C",
	missing_count BIGINT NOT NULL,
	not_attested TEXT COLLATE "C",
	CONSTRAINT pk_deliveries PRIMARY KEY (period_id, revision),
	CONSTRAINT uq_deliveries_id UNIQUE (id),
	CONSTRAINT fk_deliveries_periods FOREIGN KEY(period_id) REFERENCES periods (id)
);
CREATE INDEX ix_deliveries_period_id ON deliveries (period_id) WHERE not_attested IS NOT NULL;
CREATE INDEX ix_deliveries_status_updated_at ON deliveries (status, updated_at);
CREATE INDEX ix_deliveries_updated_at ON deliveries (updated_at);
CREATE TABLE removals (
	period_id BIGINT NOT NULL,
	act_id TEXT COLLATE "C" NOT NULL,
	key TEXT COLLATE "C" NOT NULL,
	revision BIGINT NOT NULL,
	manifest BOOLEAN NOT NULL,
	size BIGINT NOT NULL,
	etag TEXT COLLATE "C" NOT NULL,
	delivered_at TEXT COLLATE "C" NOT NULL,
	reason TEXT COLLATE "C" NOT NULL,
	outcome TEXT COLLATE "C" NOT NULL,
	at TEXT COLLATE "C" NOT NULL,
	CONSTRAINT pk_removals PRIMARY KEY (period_id, key, act_id),
	CONSTRAINT fk_removals_periods FOREIGN KEY(period_id) REFERENCES periods (id),
	CONSTRAINT fk_removals_acts FOREIGN KEY(act_id) REFERENCES acts (id)
);
CREATE TABLE missing (
	period_id BIGINT NOT NULL,
	revision INTEGER NOT NULL,
	name TEXT COLLATE "C" NOT NULL,
	key TEXT COLLATE "C" NOT NULL,
	size BIGINT NOT NULL,
	algorithm TEXT COLLATE "C" NOT NULL,
	checksum TEXT COLLATE "C" NOT NULL,
	reason TEXT COLLATE "C" NOT NULL,
	CONSTRAINT pk_missing PRIMARY KEY (period_id, revision, name),
	CONSTRAINT fk_missing_deliveries FOREIGN KEY(period_id, revision) REFERENCES deliveries (period_id, revision)
);
CREATE TABLE objects (
	period_id BIGINT NOT NULL,
	revision INTEGER NOT NULL,
	name TEXT COLLATE "C" NOT NULL,
	key TEXT COLLATE "C" NOT NULL,
	size BIGINT NOT NULL,
	modified_ns BIGINT NOT NULL,
	identity TEXT COLLATE "C" NOT NULL,
	carried BOOLEAN NOT NULL,
	CONSTRAINT pk_objects PRIMARY KEY (period_id, revision, name),
	CONSTRAINT fk_objects_deliveries FOREIGN KEY(period_id, revision) REFERENCES deliveries (period_id, revision)
);
CREATE TABLE runs (
	id TEXT COLLATE "C" NOT NULL,
	delivery_id TEXT COLLATE "C" NOT NULL,
	started_at TEXT COLLATE "C" NOT NULL,
	holder TEXT COLLATE "C" NOT NULL,
	engine TEXT COLLATE "C" NOT NULL,
	finished_at TEXT COLLATE "C",
	outcome TEXT COLLATE "C",
	uploaded BIGINT NOT NULL,
	skipped BIGINT NOT NULL,
	failed BIGINT NOT NULL,
	bytes BIGINT NOT NULL,
	seconds DOUBLE PRECISION NOT NULL,
	failure_cause TEXT COLLATE "C",
	failure_responsible TEXT COLLATE "C",
	failure_message TEXT COLLATE "C",
	failure_hint TEXT COLLATE "C",
	failure_retryable BOOLEAN,
	failure_request_id TEXT COLLATE "C",
	CONSTRAINT pk_runs PRIMARY KEY (id),
	CONSTRAINT fk_runs_deliveries FOREIGN KEY(delivery_id) REFERENCES deliveries (id)
);
CREATE INDEX ix_runs_delivery_id ON runs (delivery_id);
CREATE INDEX ix_runs_started_at ON runs (started_at);
CREATE TABLE uploads (
	id BIGSERIAL NOT NULL,
	upload_id TEXT COLLATE "C" NOT NULL,
	delivery_id TEXT COLLATE "C" NOT NULL,
	customer TEXT COLLATE "C" NOT NULL,
	name TEXT COLLATE "C" NOT NULL,
	key TEXT COLLATE "C" NOT NULL,
	size BIGINT NOT NULL,
	modified_ns BIGINT NOT NULL,
	identity TEXT COLLATE "C" NOT NULL,
	part_size BIGINT NOT NULL,
	algorithm TEXT COLLATE "C" NOT NULL,
	opened_at TEXT COLLATE "C" NOT NULL,
	status TEXT COLLATE "C" NOT NULL,
	sent_bytes BIGINT NOT NULL,
	abort_at TEXT COLLATE "C",
	CONSTRAINT pk_uploads PRIMARY KEY (id),
	CONSTRAINT uq_uploads_upload_id UNIQUE (upload_id),
	CONSTRAINT fk_uploads_deliveries FOREIGN KEY(delivery_id) REFERENCES deliveries (id)
);
CREATE INDEX ix_uploads_customer ON uploads (customer);
CREATE INDEX ix_uploads_delivery_id ON uploads (delivery_id);
CREATE INDEX ix_uploads_status ON uploads (status);
CREATE TABLE receipts (
	period_id BIGINT NOT NULL,
	revision INTEGER NOT NULL,
	name TEXT COLLATE "C" NOT NULL,
	key TEXT COLLATE "C" NOT NULL,
	size BIGINT NOT NULL,
	algorithm TEXT COLLATE "C" NOT NULL,
	checksum TEXT COLLATE "C" NOT NULL,
	etag TEXT COLLATE "C" NOT NULL,
	delivered_at TEXT COLLATE "C" NOT NULL,
	version_id TEXT COLLATE "C",
	sha256 TEXT COLLATE "C",
	CONSTRAINT pk_receipts PRIMARY KEY (period_id, name, revision),
	CONSTRAINT fk_receipts_objects FOREIGN KEY(period_id, revision, name) REFERENCES objects (period_id, revision, name)
);
CREATE TABLE upload_parts (
	upload BIGINT NOT NULL,
	number BIGINT NOT NULL,
	size BIGINT NOT NULL,
	etag TEXT COLLATE "C" NOT NULL,
	checksum TEXT COLLATE "C" NOT NULL,
	CONSTRAINT pk_upload_parts PRIMARY KEY (upload, number),
	CONSTRAINT fk_upload_parts_uploads FOREIGN KEY(upload) REFERENCES uploads (id)
);
