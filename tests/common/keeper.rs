//! Programs of a root that come back whenever they die.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use crate::common::{TestRoot, signal};
use crate::net::log;

/// Programs that are kept alive: what dies is started again.
pub struct Keeper {
    children: Vec<(Start, Option<Child>)>,
}

type Start = Box<dyn Fn() -> Child>;

impl Keeper {
    pub fn new(root: &TestRoot, all: &[&[&str]]) -> Keeper {
        let (dir, wrap, user) = (root.dir.clone(), root.wrap.clone(), root.user);
        let start = |words: &&[&str]| {
            let (dir, wrap) = (dir.clone(), wrap.clone());
            let words: Vec<String> = words.iter().map(|word| word.to_string()).collect();
            let start = move || {
                let program = dir.join(&words[0]).into_os_string();
                let mut all = wrap.iter().map(OsString::from).chain([program]);
                let mut command = Command::new(all.next().unwrap());
                if let Some(user) = user {
                    command.uid(user).gid(user);
                }
                command
                    .args(all)
                    .args(&words[1..])
                    .env_clear()
                    .env("PATH", "/usr/local/bin:/usr/bin:/bin")
                    .env("CORKBOARD_ROOT", &dir)
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(log(&dir, "poller.log"))
                    .spawn()
                    .unwrap()
            };
            (Box::new(start) as Start, None)
        };
        Keeper { children: all.iter().map(start).collect() }
    }

    pub fn tend(&mut self) {
        for (start, child) in &mut self.children {
            if child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some()) {
                *child = Some(start());
            }
        }
    }

    /// Asks all to end, and waits.
    pub fn end(&mut self) {
        for (_, child) in &mut self.children {
            if let Some(mut child) = child.take() {
                signal(child.id() as i32, "TERM");
                child.wait().unwrap();
            }
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        for child in self.children.iter_mut().filter_map(|(_, child)| child.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
