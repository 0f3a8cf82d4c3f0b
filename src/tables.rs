//! What commands show of their answers: the columns of the tables at a terminal, what `-q` prints, and where
//! in the JSON these are.

use crate::cgi::view::{Brief, Column, View};

const JOB_COLUMNS: &[Column] = &[
    Column::new("JOB", &["/job"]),
    Column::new("NAME", &["/name"]),
    Column::new("OWNER", &["/owner"]),
    Column::new("PARTITION", &["/partition"]),
    Column::new("STATE", &["/state"]),
    Column::new("STATUS", &["/status"]),
    Column::new("CODE", &["/code"]),
    Column::new("NODE", &["/node"]),
    Column::time("CREATED", &["/created-at"]),
    Column::new("TASKS", &["/tasks"]),
    Column::new("REASON", &["/reason", "/error"]),
    Column::new("COMMAND", &["/commands"]),
];

const RUN_COLUMNS: &[Column] = &[
    Column::new("ID", &["/id"]),
    Column::new("STATE", &["/state"]),
    Column::new("STATUS", &["/status"]),
    Column::new("CODE", &["/code"]),
    Column::new("PID", &["/pid"]),
    Column::time("SINCE", &["/at"]),
    Column::new("REASON", &["/reason", "/error"]),
];

const NODE_COLUMNS: &[Column] = &[
    Column::new("NODE", &["/name"]),
    Column::new("OWNER", &["/owner"]),
    Column::new("STATE", &["/state"]),
    Column::new("DUTY", &["/duty"]),
    Column::new("CORES", &["/resources/cores"]),
    Column::new("FREE CORES", &["/free/cores"]),
    Column::size("MEMORY", &["/resources/memory"]),
    Column::size("FREE MEMORY", &["/free/memory"]),
    Column::new("GPUS", &["/resources/gpus"]),
    Column::new("LOAD", &["/live/load"]),
    Column::new("DRIVER", &["/driver"]),
    Column::new("URI", &["/uri"]),
    Column::time("LAST SEEN", &["/last_seen"]),
    Column::new("REASON", &["/reason", "/warning"]),
];

const WORKER_COLUMNS: &[Column] = &[
    Column::new("ID", &["/id"]),
    Column::new("ADDRESS", &["/address"]),
    Column::new("STATE", &["/state"]),
    Column::new("TASKS", &["/tasks"]),
    Column::time("SINCE", &["/since"]),
];

const PARTITION_COLUMNS: &[Column] = &[
    Column::new("PARTITION", &["/name"]),
    Column::new("DEFAULT", &["/default"]),
    Column::new("PRIORITY", &["/priority"]),
    Column::new("JOBS", &["/in_use/jobs"]),
    Column::new("MAX JOBS", &["/max_jobs"]),
    Column::new("PER USER", &["/max_jobs_per_user"]),
    Column::new("CORES", &["/in_use/cores"]),
    Column::new("MAX CORES", &["/max_cores"]),
    Column::new("PER USER", &["/max_cores_per_user"]),
    Column::new("USERS", &["/users"]),
    Column::new("NODES", &["/nodes"]),
    Column::new("REASON", &["/reason"]),
];

const EXPLAIN_COLUMNS: &[Column] = &[
    Column::new("NODE", &["/name"]),
    Column::new("NOW", &["/now"]),
    Column::new("EVER", &["/ever"]),
    Column::new("OBJECTION", &["/objection"]),
];

const TOKEN_COLUMNS: &[Column] = &[
    Column::new("ID", &["/id"]),
    Column::new("KIND", &["/kind"]),
    Column::new("ROLE", &["/role"]),
    Column::new("USER", &["/user"]),
    Column::new("NODE", &["/node"]),
    Column::new("SCOPE", &["/scope"]),
    Column::new("NAME", &["/name"]),
    Column::time("CREATED", &["/created_at"]),
    Column::time("EXPIRES", &["/expires_at"]),
    Column::time("LAST USED", &["/last_used_at"]),
    Column::new("EXPIRED", &["/expired"]),
    Column::new("REASON", &["/error"]),
];

const AUDIT_COLUMNS: &[Column] = &[
    Column::time("AT", &["/at"]),
    Column::new("USER", &["/user"]),
    Column::new("BY", &["/by"]),
    Column::new("FROM", &["/from"]),
    Column::new("WHAT", &["/what"]),
    Column::new("OUTCOME", &["/outcome"]),
    Column::new("MADE", &["/made"]),
];

const ROLE_COLUMNS: &[Column] = &[
    Column::new("NEED", &["/need"]),
    Column::new("SHELL", &["/shell"]),
    Column::new("ADMIN", &["/admin"]),
    Column::new("USER", &["/user"]),
    Column::new("PROVIDER", &["/provider"]),
    Column::new("VIEWER", &["/viewer"]),
    Column::new("HEAD", &["/head"]),
    Column::new("WORKER", &["/worker"]),
    Column::new("JOIN", &["/join"]),
    Column::new("JOB", &["/job"]),
    Column::new("RUN", &["/run"]),
    Column::new("WHAT", &["/what"]),
];

/// Whatever fields there are.
const FIELDS: &[Column] = &[];

const fn view(pattern: &'static str, rows: &'static str, columns: &'static [Column]) -> View {
    View { pattern, rows, columns, is_text: false }
}

/// Where the route answers with numbers or ids alone unless it is asked for JSON.
const fn of_text(pattern: &'static str, columns: &'static [Column]) -> View {
    View { pattern, rows: "", columns, is_text: true }
}

/// Those of `scheduler`.
pub const SCHEDULER: &[View] = &[
    of_text("jobs", JOB_COLUMNS),
    of_text("queue", JOB_COLUMNS),
    view("jobs/status", "", JOB_COLUMNS),
    view("jobs/:number/status", "", FIELDS),
    view("jobs/:number/explain", "/nodes", EXPLAIN_COLUMNS),
    view("queue/:number", "", FIELDS),
    view("nodes/list", "/nodes", NODE_COLUMNS),
    view("nodes/:name", "", FIELDS),
    view("workers", "/workers", WORKER_COLUMNS),
    view("partitions", "/partitions", PARTITION_COLUMNS),
    view("partitions/:name", "", FIELDS),
    view("tokens", "/tokens", TOKEN_COLUMNS),
    view("roles", "/roles", ROLE_COLUMNS),
    view("audit", "/audit", AUDIT_COLUMNS),
];

/// Those of `processor`.
pub const PROCESSOR: &[View] = &[
    of_text("jobs", RUN_COLUMNS),
    view("jobs/status", "", RUN_COLUMNS),
    view("jobs/:id/status", "", FIELDS),
    view("info", "", FIELDS),
    view("tokens", "/tokens", TOKEN_COLUMNS),
];

/// Those of `nodemgr`.
pub const NODEMGR: &[View] = &[
    view("", "/nodes", NODE_COLUMNS),
    view("list", "/nodes", NODE_COLUMNS),
    view(":name", "", FIELDS),
    view(":name/jobs/:id/status", "", FIELDS),
];

const fn brief(pattern: &'static str, at: &'static [&'static str]) -> Brief {
    Brief { pattern, at }
}

const NEW_TOKEN: Brief = brief("tokens/new", &["/token", "/id"]);

/// What `-q` prints, of `scheduler`.
pub const SCHEDULER_BRIEFS: &[Brief] = &[
    brief("jobs/new", &["/job"]),
    brief("nodes/new", &["/name"]),
    brief("nodes/join", &["/token"]),
    brief("partitions/new", &["/name"]),
    NEW_TOKEN,
];

/// Of `processor`: a job is told of by its request, by its status, or by its id alone.
pub const PROCESSOR_BRIEFS: &[Brief] =
    &[brief("jobs/new", &["/request_id", "/id"]), brief("jobs/:id/status", &["/state"]), NEW_TOKEN];

/// Of `nodemgr`.
pub const NODEMGR_BRIEFS: &[Brief] =
    &[brief("jobs/run", &["/nodejob-idx"]), brief(":name/jobs/new", &["/nodejob-idx"])];
