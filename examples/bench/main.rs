//! Measures Corkboard against its floors, in the same run and in turns: ours, floor, ours, floor…
//!
//! Started by `scripts/bench`, which builds what is measured; explained in `docs/performance.md`.
//! Load is bounded in count and time and goes to this machine alone, and every process that is
//! started is ended by its own id.

mod chain;
mod disk;
mod fair;
mod growth;
mod http;
mod machine;
mod memory;
mod peers;
mod placement;
mod process;
mod program;
mod requests;
mod run;
mod scale;
mod secure;
mod silent;
mod site;
mod start;
mod table;
#[cfg(target_arch = "x86_64")]
mod touched;
mod workers;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Arg, ArgAction, Command, value_parser};

use table::Table;

/// What went wrong, in words.
type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

/// What a run is to do.
struct Bench {
    /// Where the built programs are; the floors are in `examples/` below it.
    programs: PathBuf,
    /// A directory on the disk that is measured.
    disk: PathBuf,
    /// A directory in memory.
    memory: PathBuf,
    /// Python with HyperQueue, where that could be installed.
    hyperqueue: Option<PathBuf>,
    rounds: usize,
    quick: bool,
}

impl Bench {
    /// A count, or the smaller one of a quick run, which only shows that everything works.
    fn size(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }
}

type Case = fn(&Bench, &mut Table) -> Result<()>;

const CASES: &[(&str, &str, Case)] = &[
    ("program", "one small request of each program, without a server", program::measure),
    ("start", "size, start and end of each program, and what of it is read", start::measure),
    ("submit", "one durable job per request, 4 clients", requests::submit),
    ("status", "status of one job, 4 clients", requests::status),
    ("batch", "10,000 jobs in one request", requests::batch),
    (
        "latency",
        "one job at a time, from its POST to the answer that tells its end",
        requests::latency,
    ),
    ("run-tmpfs", "10,000 separate jobs from the queue to done, in memory", run::in_memory),
    ("run-disk", "the same on the disk", run::on_disk),
    ("array-tmpfs", "one array of 10,000 tasks, in memory", run::array_in_memory),
    ("array-disk", "the same on the disk", run::array_on_disk),
    ("worker-run", "the same by a worker that asks for its orders", workers::run),
    ("worker-many", "the same by 32 workers of one slot each", workers::contention),
    ("peers", "the same on the disk against other job systems", peers::measure),
    (
        "scale",
        "submit and status as a board fills to 1,000,000 finished and 100,000 waiting cards",
        scale::measure,
    ),
    ("tls", "submit, status and jobs over TLS, with and without resumption", secure::measure),
    ("placement", "which job goes where: pure policy", placement::measure),
    ("fair", "two users, one with far more jobs: what each has of the cores", fair::measure),
    ("idle", "a poller with 100,000 cards that fit nowhere", memory::idle),
    ("supervisor", "memory of what stays with one running job", memory::supervisor),
    ("silent-nodes", "a job on a good node beside 1,000 that do not answer", silent::nodes),
    ("growth-clients", "submit and status with 1, 2, 4 and 8 clients", growth::clients),
    ("growth-jobs", "jobs from the queue to done, 100 to 10,000 of them", growth::jobs),
    ("growth-nodes", "jobs on 1 to 32 nodes, separate roots on this machine", growth::nodes),
];

fn options() -> Command {
    let mut cases = String::from("Cases (all, if none is named):\n");
    for (name, about, _) in CASES {
        cases.push_str(&format!("  {name:<15} {about}\n"));
    }
    let dir = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("DIR").value_parser(value_parser!(PathBuf)).help(help)
    };
    Command::new("bench")
        .about("Measures Corkboard against its floors")
        .after_help(cases)
        .arg(Arg::new("case").num_args(0..).help("Cases to run"))
        .arg(dir("programs", "Where the built programs are").required(true))
        .arg(dir("disk", "A directory on the disk that is measured").required(true))
        .arg(dir("memory", "A directory in memory").default_value("/dev/shm"))
        .arg(dir("hyperqueue", "Python with HyperQueue"))
        .arg(
            Arg::new("json")
                .long("json")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Write the table as JSON, too"),
        )
        .arg(
            Arg::new("rounds")
                .long("rounds")
                .value_name("N")
                .default_value("5")
                .value_parser(value_parser!(u16).range(1..=99))
                .help("Rounds of each case; medians are shown"),
        )
        .arg(
            Arg::new("quick")
                .long("quick")
                .action(ArgAction::SetTrue)
                .help("Small sizes: shows that everything works, and measures little"),
        )
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `false` if a case could not be measured.
fn run() -> Result<bool> {
    let words = options().get_matches();
    // Absolute, for what is started has working directories of its own. Symlinks stay: a venv is
    // known by its own path.
    let path = |name: &str| {
        let path = words.get_one::<PathBuf>(name)?;
        Some(std::path::absolute(path).unwrap_or_else(|_| path.clone()))
    };
    let chosen: Vec<&String> = words.get_many::<String>("case").unwrap_or_default().collect();
    if let Some(unknown) = chosen.iter().find(|name| !CASES.iter().any(|case| case.0 == **name)) {
        return Err(format!("there is no case {unknown}; see --help").into());
    }
    let own = |dir: PathBuf| dir.join(format!("corkboard-bench-{}", std::process::id()));
    let bench = Bench {
        programs: path("programs").unwrap_or_default(),
        disk: own(path("disk").unwrap_or_default()),
        memory: own(path("memory").unwrap_or_default()),
        hyperqueue: path("hyperqueue"),
        rounds: words.get_one::<u16>("rounds").copied().unwrap_or(5).into(),
        quick: words.get_flag("quick"),
    };
    process::adopt_orphans()?;
    std::fs::create_dir_all(&bench.disk)?;
    let _disk = site::Removed(bench.disk.clone());
    std::fs::create_dir_all(&bench.memory)?;
    let _memory = site::Removed(bench.memory.clone());
    let mut table = Table::new(machine::describe(&bench.disk), bench.rounds, bench.quick);
    let mut good = true;
    for (name, _, case) in CASES {
        if !chosen.is_empty() && !chosen.iter().any(|one| one == name) {
            continue;
        }
        eprintln!("bench: {name}");
        if let Err(error) = case(&bench, &mut table) {
            eprintln!("bench: {name}: {error}");
            table.failed(name, &error.to_string());
            good = false;
        }
    }
    table.finish();
    print!("{}", table.text());
    if let Some(file) = path("json") {
        std::fs::write(&file, format!("{:#}\n", table.json()))?;
    }
    Ok(good)
}
