//! A root: the directory that holds programs, settings and state; and its tree.

use std::env;
use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use nix::sys::stat::{Mode, umask};
use nix::unistd::{Uid, geteuid};

use super::files;
use crate::error::{At, Error, Kind, Result};
use crate::settings::Settings;
use crate::user;

/// Which layout of the state tree these programs know: that of 0.1, and nothing later. It rises
/// when an older program that goes on changing the tree would do harm which it cannot see.
const LAYOUT: u32 = 1;

/// The reference of the trees, which every root has.
const PAGE: &str = include_str!("../../state/README.md");

/// Directories of `state/` with their modes (before the umask), parents first.
/// `scheduler check` and `processor check` go by the same table.
pub const TREE: &[(&str, u32)] = &[
    ("", 0o750),
    ("tokens", 0o700),
    ("secrets", 0o700),
    ("secrets/nodes", 0o700),
    ("scheduler", 0o750),
    ("scheduler/queue", 0o750),
    ("scheduler/running", 0o750),
    ("scheduler/done", 0o750),
    ("scheduler/bad", 0o750),
    ("scheduler/requests", 0o750),
    ("scheduler/children", 0o750),
    ("scheduler/files", 0o750),
    ("scheduler/nodes", 0o750),
    ("scheduler/tmp", 0o750),
    ("processor", 0o750),
    ("processor/queue", 0o750),
    ("processor/job", 0o750),
    ("processor/pid", 0o750),
    ("processor/slot", 0o750),
    ("processor/tmp", 0o750),
];

/// The settings.
const SETTINGS: &str = "corkboard.conf";

/// The last directory that is made: if it is there, all are.
const LAST: &str = "processor/tmp";

/// A file of settings, as it was when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettingsFile([i64; 4]);

/// A root, with its settings.
#[derive(Debug, Clone)]
pub struct Root {
    dir: PathBuf,
    state: PathBuf,
    /// Whose tree it is, if not this process's user's.
    stranger_to: Option<Uid>,
    /// What `version` says, if that is not a layout which these programs know.
    newer_layout: Option<String>,
    /// Its `corkboard.conf`.
    pub settings: Settings,
}

impl Root {
    /// The root of this program: `CORKBOARD_ROOT`, else from its own location,
    /// `<root>/cgi-bin/x` or `<root>/bin/x`. Makes the trees that are missing.
    pub fn find() -> Result<Root> {
        if let Some(dir) = env::var_os("CORKBOARD_ROOT").filter(|dir| !dir.is_empty()) {
            return Root::open(Path::new(&dir));
        }
        let program = env::current_exe().at("/proc/self/exe")?;
        let dir = program
            .parent()
            .filter(|dir| dir.ends_with("cgi-bin") || dir.ends_with("bin"))
            .and_then(Path::parent)
            .ok_or_else(|| {
                Error::bad(format!(
                    "{} lies neither in a root's cgi-bin nor in its bin: set CORKBOARD_ROOT to the root",
                    program.display()
                ))
            })?;
        // The kernel names a program without links on the way: nothing is left to be followed.
        Root::try_open(dir).map_err(|error| closed_to(dir).unwrap_or(error))
    }

    /// Opens the root in this directory, to read. Makes the trees that are missing, where `state/`
    /// is this user's or is not there: whoever makes a tree owns it.
    ///
    /// Errors: whoever may not even read it is told whose it is.
    pub fn open(dir: &Path) -> Result<Root> {
        let real = fs::canonicalize(dir).at(dir);
        let opened = real.and_then(|dir| Root::try_open(&dir));
        opened.map_err(|error| closed_to(dir).unwrap_or(error))
    }

    /// Whether a root has been made in this directory. Where it cannot be looked, it counts as one.
    pub fn is_in(dir: &Path) -> bool {
        files::gone_is_fine(fs::metadata(dir.join("state").join(LAST)))
            .map_or(true, |found| found.is_some())
    }

    fn try_open(dir: &Path) -> Result<Root> {
        let settings = Settings::read(&dir.join(SETTINGS))?;
        let mut root = Root {
            state: dir.join("state"),
            dir: dir.to_path_buf(),
            stranger_to: None,
            newer_layout: None,
            settings,
        };
        umask(Mode::from_bits_truncate(if root.settings.group_readable { 0o027 } else { 0o077 }));
        root.refuse_loose()?;
        root.newer_layout = root.layout()?;
        let made = fs::metadata(root.state.join(LAST));
        if let Ok(meta) = &made {
            root.stranger_to = stranger_to(meta);
        } else {
            let state = files::gone_is_fine(fs::metadata(&root.state)).at(&root.state)?;
            root.stranger_to = state.as_ref().and_then(stranger_to);
            root.for_change()?;
            root.make_tree()?;
        }
        Ok(root)
    }

    /// Refuses where others than the owner could make themselves a token, or put other directories in the
    /// place of these.
    fn refuse_loose(&self) -> Result<()> {
        // A clone's `state/` may be its group's to write: usually that is the owner's alone.
        for (dir, loose) in [(&self.state, 0o002), (&self.state.join("tokens"), 0o022)] {
            let Some(meta) = files::gone_is_fine(fs::metadata(dir)).at(dir)? else { continue };
            if meta.permissions().mode() & loose != 0 {
                let dir = dir.display();
                let why = format!(
                    "{dir}: others than its owner may write there, and so give themselves every right: chmod go-w {dir}"
                );
                return Err(Error::new(Kind::Internal, why));
            }
        }
        Ok(())
    }

    /// What `version` says, if these programs do not know that layout. Absent: that of 0.1.
    fn layout(&self) -> Result<Option<String>> {
        let said = files::read(&self.state.join("version"))?;
        let said = said.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_string());
        let number = |said: &str| said.strip_prefix("layout ")?.parse::<u32>().ok();
        Ok(said.filter(|said| number(said).is_none_or(|number| number > LAYOUT)))
    }

    /// Refuses where the tree has a layout that these programs do not know, and where it is another
    /// user's. Every program asks this before it changes
    /// anything, root's too: what another user makes there the owner cannot read, or it runs with
    /// rights that the owner's jobs are not to have.
    pub fn for_change(&self) -> Result<()> {
        if let Some(said) = &self.newer_layout {
            return Err(Error::new(
                Kind::Unavailable,
                format!(
                    "{} says {said:?}, these programs know up to \"layout {LAYOUT}\": a newer version of corkboard keeps this tree, and these change nothing in it",
                    self.state.join("version").display()
                ),
            ));
        }
        let Some(owner) = self.stranger_to else { return Ok(()) };
        Err(belongs_to(&self.dir, owner, "who alone changes it"))
    }

    /// Whether the tree is this process's user's, and of a layout that it knows: it may be changed.
    pub fn is_own(&self) -> bool {
        self.stranger_to.is_none() && self.newer_layout.is_none()
    }

    fn make_tree(&self) -> Result<()> {
        for (name, mode) in TREE {
            let path = self.state.join(name);
            if *name == LAST {
                self.write_layout()?;
            }
            DirBuilder::new().recursive(true).mode(*mode).create(&path).at(&path)?;
        }
        self.write_page();
        self.refuse_network_fs()
    }

    /// What the files are lies beside them. It is for people: whatever keeps it from being written, a
    /// limit on files perhaps, keeps nothing from going on without it.
    fn write_page(&self) {
        let path = self.state.join("README.md");
        if !path.exists() {
            let tmp = self.state.join("scheduler/tmp");
            let _ = files::publish(&tmp, &path, PAGE.as_bytes(), false);
        }
    }

    /// A tree that is there and says nothing is that of 0.1, and goes on saying nothing.
    fn write_layout(&self) -> Result<()> {
        let path = self.state.join("version");
        if self.state.join("scheduler/seq").exists() || path.exists() {
            return Ok(());
        }
        let text = format!("layout {LAYOUT}\n");
        files::publish(&self.state.join("scheduler/tmp"), &path, text.as_bytes(), false).map(|_| ())
    }

    /// On a network file system flock and inotify do not do what everything here rests on.
    fn refuse_network_fs(&self) -> Result<()> {
        use nix::sys::statfs::{self, FsType};
        // Beside those that nix names: SMB2, AFS, Ceph, 9p (linux/magic.h).
        const OTHERS: [i64; 4] = [0xfe53_4d42, 0x5346_414f, 0x00c3_6400, 0x0102_1997];
        let kind = statfs::statfs(&self.state).at(&self.state)?.filesystem_type();
        let network = [statfs::NFS_SUPER_MAGIC, statfs::SMB_SUPER_MAGIC, statfs::CODA_SUPER_MAGIC]
            .contains(&kind)
            || OTHERS.iter().any(|magic| kind == FsType(*magic));
        if network && !self.settings.allow_network_fs {
            return Err(Error::new(
                Kind::Internal,
                format!(
                    "{} is on a network file system, where locks are not to be trusted: use a local disk, or set allow_network_fs",
                    self.state.display()
                ),
            ));
        }
        Ok(())
    }

    /// Which file its settings are now: another one, or none, once they have been changed.
    pub fn settings_file(&self) -> Option<SettingsFile> {
        let meta = fs::metadata(self.dir.join(SETTINGS)).ok()?;
        Some(SettingsFile([meta.ino() as i64, meta.len() as i64, meta.mtime(), meta.mtime_nsec()]))
    }

    /// The root's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A directory or file of the state tree.
    pub(super) fn state(&self, name: &str) -> PathBuf {
        self.state.join(name)
    }

    /// The base URL under which jobs reach `/scheduler/…`: the setting, else what `scripts/up`
    /// wrote to `run/url`; `None` without a server.
    pub fn advertised(&self) -> Result<Option<String>> {
        if let Some(url) = &self.settings.advertise {
            return Ok(Some(url.clone()));
        }
        let written = files::read(&self.dir.join("run/url"))?;
        let written = written.filter(|_| !self.is_copied());
        Ok(written.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_string()))
    }

    /// Whether `run/` came with a copy of another root: the record of its server names the directory
    /// that was that root's.
    fn is_copied(&self) -> bool {
        let record = fs::read_to_string(self.dir.join("run/httpd.pid")).unwrap_or_default();
        let named = record.split_whitespace().nth(3);
        let own = fs::metadata(&self.dir).map(|meta| format!("{}:{}", meta.dev(), meta.ino()));
        matches!((named, own), (Some(named), Ok(own)) if named != own)
    }

    /// The path of this root's poller.
    pub fn poller(&self) -> PathBuf {
        self.dir.join("bin/poller")
    }

    /// The path of one of this root's CGI programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join("cgi-bin").join(name)
    }
}

fn belongs_to(dir: &Path, owner: Uid, what: &str) -> Error {
    let name = user::name_of(owner).unwrap_or_else(|| format!("#{owner}"));
    let whose = name.strip_prefix('#').map_or(name.clone(), |uid| format!("uid {uid}"));
    let dir = dir.display();
    Error::new(
        Kind::Internal,
        format!("the root {dir} belongs to {whose}, {what}: sudo -u {name} ..."),
    )
}

/// The error for a root whose owner does not let this process's user read it; `None` where that is
/// not what is wrong. Of what may not be entered it can still be seen whose it is.
fn closed_to(root: &Path) -> Option<Error> {
    let places = ["", SETTINGS, "state", "state/version", "state/scheduler"];
    for place in places.map(|name| root.join(name)) {
        let Ok(meta) = fs::metadata(&place) else { continue };
        let inside = if meta.is_dir() { place.join(".") } else { place };
        let opened = File::open(inside);
        let closed = opened.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied);
        if let Some(owner) = stranger_to(&meta).filter(|_| closed) {
            return Some(belongs_to(root, owner, "who does not let this user read it"));
        }
    }
    None
}

/// The owner, if that is not this process's user.
fn stranger_to(meta: &fs::Metadata) -> Option<Uid> {
    let owner = Uid::from_raw(meta.uid());
    (owner != geteuid()).then_some(owner)
}

/// The boot of this machine: pids and locks of another boot mean nothing any more.
/// `CORKBOARD_BOOT_ID` in the environment replaces it, so that a reboot can be tried out.
pub fn boot_id() -> Result<String> {
    static KNOWN: OnceLock<String> = OnceLock::new(); // it outlives every process
    if let Some(id) = KNOWN.get() {
        return Ok(id.clone());
    }
    let id = match env::var("CORKBOARD_BOOT_ID") {
        Ok(id) => id,
        Err(_) => {
            let path = Path::new("/proc/sys/kernel/random/boot_id");
            // By one read: the kernel gives it whole, and each request asks for it.
            let mut bytes = [0; 64];
            let length = File::open(path).and_then(|mut file| file.read(&mut bytes)).at(path)?;
            String::from_utf8_lossy(&bytes[..length]).trim().to_string()
        }
    };
    Ok(KNOWN.get_or_init(|| id).clone())
}

/// When this machine was started, as far as its clock was right.
pub fn booted_at() -> Result<SystemTime> {
    let path = Path::new("/proc/stat");
    let text = fs::read_to_string(path).at(path)?;
    let seconds = text.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok());
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.unwrap_or(0)))
}
