CREATE TABLE access_checks (
	id INTEGER NOT NULL,
	customer TEXT NOT NULL,
	checked_at TEXT NOT NULL,
	seconds DOUBLE NOT NULL,
	interrupted BOOLEAN NOT NULL,
	outcome TEXT NOT NULL,
	CONSTRAINT pk_access_checks PRIMARY KEY (id)
);
CREATE INDEX ix_access_checks_customer_checked_at ON access_checks (customer, checked_at);
CREATE TABLE acts (
	id TEXT NOT NULL,
	kind TEXT NOT NULL,
	customer TEXT NOT NULL,
	holder TEXT NOT NULL,
	person TEXT NOT NULL,
	reason TEXT NOT NULL,
	started_at TEXT NOT NULL,
	finished_at TEXT,
	outcome TEXT,
	objects BIGINT NOT NULL,
	bytes BIGINT NOT NULL,
	failed BIGINT NOT NULL,
	failure_cause TEXT,
	failure_responsible TEXT,
	failure_message TEXT,
	failure_hint TEXT,
	failure_retryable BOOLEAN,
	failure_request_id TEXT,
	CONSTRAINT pk_acts PRIMARY KEY (id)
)
 WITHOUT ROWID;
CREATE INDEX ix_acts_customer_started_at ON acts (customer, started_at);
CREATE TABLE alerts (
	fingerprint TEXT NOT NULL,
	cause TEXT NOT NULL,
	detail TEXT NOT NULL,
	responsible TEXT NOT NULL,
	urgent BOOLEAN NOT NULL,
	summary TEXT NOT NULL,
	message TEXT NOT NULL,
	hint TEXT NOT NULL,
	since_at TEXT NOT NULL,
	customers TEXT NOT NULL,
	customer_count BIGINT NOT NULL,
	opened_at TEXT,
	resolved_at TEXT,
	notifications TEXT NOT NULL,
	CONSTRAINT pk_alerts PRIMARY KEY (fingerprint)
)
 WITHOUT ROWID;
CREATE TABLE capabilities (
	customer TEXT NOT NULL,
	multipart BOOLEAN,
	abort BOOLEAN,
	region TEXT,
	versioned BOOLEAN,
	kms BOOLEAN,
	learned_at TEXT,
	CONSTRAINT pk_capabilities PRIMARY KEY (customer)
)
 WITHOUT ROWID;
CREATE TABLE daemons (
	holder TEXT NOT NULL,
	started_at TEXT NOT NULL,
	ticked_at TEXT NOT NULL,
	tick_seconds BIGINT NOT NULL,
	workers BIGINT NOT NULL,
	busy BIGINT NOT NULL,
	configuration_loaded_at TEXT,
	configuration_problems TEXT NOT NULL,
	failure_cause TEXT,
	failure_responsible TEXT,
	failure_message TEXT,
	failure_hint TEXT,
	failure_retryable BOOLEAN,
	failure_request_id TEXT,
	stopping BOOLEAN NOT NULL,
	stopped_at TEXT,
	CONSTRAINT pk_daemons PRIMARY KEY (holder)
)
 WITHOUT ROWID;
CREATE INDEX ix_daemons_ticked_at ON daemons (ticked_at);
CREATE TABLE discrepancies (
	customer TEXT NOT NULL,
	feed TEXT NOT NULL,
	period TEXT NOT NULL,
	flaw TEXT NOT NULL,
	keys BIGINT NOT NULL,
	first_key TEXT NOT NULL,
	since_at TEXT NOT NULL,
	CONSTRAINT pk_discrepancies PRIMARY KEY (customer, feed, period, flaw)
)
 WITHOUT ROWID;
CREATE TABLE leases (
	name TEXT NOT NULL,
	generation BIGINT NOT NULL,
	holder TEXT,
	claimed_at TEXT,
	expires_at TEXT,
	presence TEXT,
	CONSTRAINT pk_leases PRIMARY KEY (name)
)
 WITHOUT ROWID;
CREATE TABLE looks (
	customer TEXT NOT NULL,
	feed TEXT NOT NULL,
	looked_at TEXT NOT NULL,
	first_looked_at TEXT NOT NULL,
	newest_complete TEXT,
	due_count BIGINT NOT NULL,
	due TEXT NOT NULL,
	due_since_at TEXT,
	waiting_count BIGINT NOT NULL,
	waiting TEXT NOT NULL,
	failure_cause TEXT,
	failure_responsible TEXT,
	failure_message TEXT,
	failure_hint TEXT,
	failure_retryable BOOLEAN,
	failure_request_id TEXT,
	failing_since_at TEXT,
	CONSTRAINT pk_looks PRIMARY KEY (customer, feed)
)
 WITHOUT ROWID;
CREATE TABLE notices (
	customer TEXT NOT NULL,
	feed TEXT NOT NULL,
	period TEXT NOT NULL,
	kind TEXT NOT NULL,
	revision BIGINT NOT NULL,
	"key" TEXT NOT NULL,
	body TEXT NOT NULL,
	made_at TEXT NOT NULL,
	status TEXT NOT NULL,
	attempts BIGINT NOT NULL,
	next_attempt_at TEXT,
	put_at TEXT,
	error TEXT NOT NULL,
	CONSTRAINT pk_notices PRIMARY KEY (customer, feed, period, kind, revision)
)
 WITHOUT ROWID;
CREATE INDEX ix_notices_status ON notices (status);
CREATE TABLE passed_over (
	customer TEXT NOT NULL,
	feed TEXT NOT NULL,
	period TEXT NOT NULL,
	marker TEXT NOT NULL,
	passed_at TEXT NOT NULL,
	CONSTRAINT pk_passed_over PRIMARY KEY (customer, feed, period)
)
 WITHOUT ROWID;
CREATE TABLE periods (
	id INTEGER NOT NULL,
	customer TEXT NOT NULL,
	feed TEXT NOT NULL,
	period TEXT NOT NULL,
	CONSTRAINT pk_periods PRIMARY KEY (id),
	CONSTRAINT uq_periods_customer_feed_period UNIQUE (customer, feed, period)
);
CREATE TABLE queue_clock (
	id INTEGER NOT NULL,
	clock DOUBLE NOT NULL,
	CONSTRAINT pk_queue_clock PRIMARY KEY (id)
)
 WITHOUT ROWID;
CREATE TABLE queue_customers (
	customer TEXT NOT NULL,
	weight INTEGER NOT NULL,
	spent DOUBLE NOT NULL,
	backfill BOOLEAN NOT NULL,
	serving_at TEXT,
	reread_at TEXT,
	since_at TEXT NOT NULL,
	next_at TEXT,
	feed TEXT,
	period TEXT,
	reason TEXT NOT NULL,
	again BOOLEAN NOT NULL,
	looked BOOLEAN NOT NULL,
	refused BOOLEAN NOT NULL,
	ended BIGINT NOT NULL,
	CONSTRAINT pk_queue_customers PRIMARY KEY (customer)
)
 WITHOUT ROWID;
CREATE TABLE visits (
	customer TEXT NOT NULL,
	work TEXT NOT NULL,
	served_at TEXT NOT NULL,
	CONSTRAINT pk_visits PRIMARY KEY (customer, work)
)
 WITHOUT ROWID;
CREATE TABLE workers (
	holder TEXT NOT NULL,
	started_at TEXT NOT NULL,
	seen_at TEXT NOT NULL,
	places BIGINT NOT NULL,
	busy BIGINT NOT NULL,
	waiting BIGINT NOT NULL,
	stopping BOOLEAN NOT NULL,
	stopped_at TEXT,
	version TEXT NOT NULL,
	trouble TEXT NOT NULL,
	CONSTRAINT pk_workers PRIMARY KEY (holder)
)
 WITHOUT ROWID;
CREATE TABLE access_findings (
	check_id INTEGER NOT NULL,
	number INTEGER NOT NULL,
	probe TEXT NOT NULL,
	result TEXT NOT NULL,
	cause TEXT,
	responsible TEXT,
	severity TEXT NOT NULL,
	message TEXT NOT NULL,
	request_id TEXT,
	said TEXT NOT NULL,
	CONSTRAINT pk_access_findings PRIMARY KEY (check_id, number),
	CONSTRAINT fk_access_findings_access_checks FOREIGN KEY(check_id) REFERENCES access_checks (id)
)
 WITHOUT ROWID;
CREATE TABLE access_leftovers (
	check_id INTEGER NOT NULL,
	number INTEGER NOT NULL,
	kind TEXT NOT NULL,
	"key" TEXT NOT NULL,
	bytes BIGINT NOT NULL,
	id TEXT,
	CONSTRAINT pk_access_leftovers PRIMARY KEY (check_id, number),
	CONSTRAINT fk_access_leftovers_access_checks FOREIGN KEY(check_id) REFERENCES access_checks (id)
)
 WITHOUT ROWID;
CREATE TABLE deliveries (
	period_id INTEGER NOT NULL,
	revision INTEGER NOT NULL,
	id TEXT NOT NULL,
	status TEXT NOT NULL,
	created_at TEXT NOT NULL,
	updated_at TEXT NOT NULL,
	marker TEXT NOT NULL,
	object_count BIGINT NOT NULL,
	total_bytes BIGINT NOT NULL,
	manifest_key TEXT,
	manifest_checksum TEXT,
	delivered_at TEXT,
	failure_cause TEXT,
	failure_responsible TEXT,
	failure_message TEXT,
	failure_hint TEXT,
	failure_retryable BOOLEAN,
	failure_request_id TEXT,
	attempts BIGINT NOT NULL,
	next_attempt_at TEXT,
	missing_count BIGINT NOT NULL,
	not_attested TEXT,
	CONSTRAINT pk_deliveries PRIMARY KEY (period_id, revision),
	CONSTRAINT uq_deliveries_id UNIQUE (id),
	CONSTRAINT fk_deliveries_periods FOREIGN KEY(period_id) REFERENCES periods (id)
)
 WITHOUT ROWID;
CREATE INDEX ix_deliveries_period_id ON deliveries (period_id) WHERE not_attested IS NOT NULL;
CREATE INDEX ix_deliveries_status_updated_at ON deliveries (status, updated_at);
CREATE INDEX ix_deliveries_updated_at ON deliveries (updated_at);
CREATE TABLE removals (
	period_id INTEGER NOT NULL,
	act_id TEXT NOT NULL,
	"key" TEXT NOT NULL,
	revision BIGINT NOT NULL,
	manifest BOOLEAN NOT NULL,
	size BIGINT NOT NULL,
	etag TEXT NOT NULL,
	delivered_at TEXT NOT NULL,
	reason TEXT NOT NULL,
	outcome TEXT NOT NULL,
	at TEXT NOT NULL,
	CONSTRAINT pk_removals PRIMARY KEY (period_id, "key", act_id),
	CONSTRAINT fk_removals_periods FOREIGN KEY(period_id) REFERENCES periods (id),
	CONSTRAINT fk_removals_acts FOREIGN KEY(act_id) REFERENCES acts (id)
)
 WITHOUT ROWID;
CREATE TABLE missing (
	period_id INTEGER NOT NULL,
	revision INTEGER NOT NULL,
	name TEXT NOT NULL,
	"key" TEXT NOT NULL,
	size BIGINT NOT NULL,
	algorithm TEXT NOT NULL,
	checksum TEXT NOT NULL,
	reason TEXT NOT NULL,
	CONSTRAINT pk_missing PRIMARY KEY (period_id, revision, name),
	CONSTRAINT fk_missing_deliveries FOREIGN KEY(period_id, revision) REFERENCES deliveries (period_id, revision)
)
 WITHOUT ROWID;
CREATE TABLE objects (
	period_id INTEGER NOT NULL,
	revision INTEGER NOT NULL,
	name TEXT NOT NULL,
	"key" TEXT NOT NULL,
	size BIGINT NOT NULL,
	modified_ns BIGINT NOT NULL,
	identity TEXT NOT NULL,
	carried BOOLEAN NOT NULL,
	CONSTRAINT pk_objects PRIMARY KEY (period_id, revision, name),
	CONSTRAINT fk_objects_deliveries FOREIGN KEY(period_id, revision) REFERENCES deliveries (period_id, revision)
)
 WITHOUT ROWID;
CREATE TABLE runs (
	id TEXT NOT NULL,
	delivery_id TEXT NOT NULL,
	started_at TEXT NOT NULL,
	holder TEXT NOT NULL,
	engine TEXT NOT NULL,
	finished_at TEXT,
	outcome TEXT,
	uploaded BIGINT NOT NULL,
	skipped BIGINT NOT NULL,
	failed BIGINT NOT NULL,
	bytes BIGINT NOT NULL,
	seconds DOUBLE NOT NULL,
	failure_cause TEXT,
	failure_responsible TEXT,
	failure_message TEXT,
	failure_hint TEXT,
	failure_retryable BOOLEAN,
	failure_request_id TEXT,
	CONSTRAINT pk_runs PRIMARY KEY (id),
	CONSTRAINT fk_runs_deliveries FOREIGN KEY(delivery_id) REFERENCES deliveries (id)
)
 WITHOUT ROWID;
CREATE INDEX ix_runs_delivery_id ON runs (delivery_id);
CREATE INDEX ix_runs_started_at ON runs (started_at);
CREATE TABLE uploads (
	id INTEGER NOT NULL,
	upload_id TEXT NOT NULL,
	delivery_id TEXT NOT NULL,
	customer TEXT NOT NULL,
	name TEXT NOT NULL,
	"key" TEXT NOT NULL,
	size BIGINT NOT NULL,
	modified_ns BIGINT NOT NULL,
	identity TEXT NOT NULL,
	part_size BIGINT NOT NULL,
	algorithm TEXT NOT NULL,
	opened_at TEXT NOT NULL,
	status TEXT NOT NULL,
	sent_bytes BIGINT NOT NULL,
	abort_at TEXT,
	CONSTRAINT pk_uploads PRIMARY KEY (id),
	CONSTRAINT uq_uploads_upload_id UNIQUE (upload_id),
	CONSTRAINT fk_uploads_deliveries FOREIGN KEY(delivery_id) REFERENCES deliveries (id)
);
CREATE INDEX ix_uploads_customer ON uploads (customer);
CREATE INDEX ix_uploads_delivery_id ON uploads (delivery_id);
CREATE INDEX ix_uploads_status ON uploads (status);
CREATE TABLE receipts (
	period_id INTEGER NOT NULL,
	revision INTEGER NOT NULL,
	name TEXT NOT NULL,
	"key" TEXT NOT NULL,
	size BIGINT NOT NULL,
	algorithm TEXT NOT NULL,
	checksum TEXT NOT NULL,
	etag TEXT NOT NULL,
	delivered_at TEXT NOT NULL,
	version_id TEXT,
	sha256 TEXT,
	CONSTRAINT pk_receipts PRIMARY KEY (period_id, name, revision),
	CONSTRAINT fk_receipts_objects FOREIGN KEY(period_id, revision, name) REFERENCES objects (period_id, revision, name)
)
 WITHOUT ROWID;
CREATE TABLE upload_parts (
	upload INTEGER NOT NULL,
	number BIGINT NOT NULL,
	size BIGINT NOT NULL,
	etag TEXT NOT NULL,
	checksum TEXT NOT NULL,
	CONSTRAINT pk_upload_parts PRIMARY KEY (upload, number),
	CONSTRAINT fk_upload_parts_uploads FOREIGN KEY(upload) REFERENCES uploads (id)
)
 WITHOUT ROWID;
