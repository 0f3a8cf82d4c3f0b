//! Keeping a job's processes together: each child is born in the group of its supervisor's slot,
//! where there are groups.
//!
//! The slot's record says whether there is one, before a program is started: recovery takes an empty
//! group for a proof that nothing is left. So a supervisor that cannot use its group any more
//! says so there first, and goes on without.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use super::capture::Capture;
use super::child::{Child, Ends, Gate, NotBorn, Program};
use super::running::Running;
use super::supervisor::Supervisor;
use crate::board::slots::Slot;
use crate::error::{Error, Result};

/// How long what a dead supervisor left in the slot's group is waited for. It was killed before, by
/// recovery; what does not end in this time hangs in the kernel.
const UNTIL_EMPTY: Duration = Duration::from_secs(1);

/// How often a group that somebody removes is made anew.
const TRIES: u32 = 3;

impl Supervisor<'_> {
    /// Names the group of the slot that was just taken.
    pub(super) fn name_group(&mut self, slot: &Slot) {
        let root = self.runs.root().dir();
        self.group = self.place.as_ref().and_then(|place| place.group(root, slot.number));
    }

    /// Removes the group of a slot that is about to be let go.
    pub(super) fn remove_group(&mut self) {
        if let Some(mut group) = self.group.take() {
            group.remove();
        }
    }

    /// Sees to it that what is started next is held to what its job asks for.
    fn hold(&mut self) {
        let group = self.group.as_ref().filter(|group| group.holds_children());
        let group = group.map(|group| group.path());
        if let (Some(slot), Some(job)) = (&self.slot, &self.resources) {
            self.limits.hold(self.runs.root(), slot.number, group, job);
        }
    }

    /// Makes a child that waits at its gate, in the slot's group.
    pub(super) fn fork(
        &mut self,
        program: &Program,
        stdin: Option<&OwnedFd>,
        running: &Running,
    ) -> Result<(Child, Gate)> {
        for _ in 0..TRIES {
            let Some(group) = &mut self.group else { break };
            if !group.is_ready()
                && let Err(error) = group.prepare(UNTIL_EMPTY)
            {
                eprintln!("processor: {}: {error}", group.path().display());
                break;
            }
            self.hold();
            let group = self.group.as_ref().and_then(|group| group.birthplace());
            match Gate::fork(program, self.ends(stdin, running), self.limits.bounds(), group) {
                Ok(forked) => return Ok(forked),
                Err(NotBorn::At(error)) => return Err(error),
                Err(NotBorn::There(_)) => {} // it was removed, or children may not be born there
            }
            if let Some(group) = &mut self.group {
                group.close();
            }
        }
        self.go_on_without_group()?;
        self.hold();
        Gate::fork(program, self.ends(stdin, running), self.limits.bounds(), None).map_err(
            |error| match error {
                NotBorn::At(error) => error,
                NotBorn::There(errno) => Error::io(Path::new("fork"), &errno.into()),
            },
        )
    }

    fn ends<'e>(&'e self, stdin: Option<&'e OwnedFd>, running: &'e Running) -> Ends<'e> {
        let null = self.null();
        let writer = |capture: Option<&'e Capture>| -> BorrowedFd<'e> {
            capture.and_then(Capture::writer).unwrap_or(null)
        };
        Ends {
            stdin: stdin.map_or(null, OwnedFd::as_fd),
            stdout: writer(running.captures.first()),
            stderr: writer(running.captures.last()),
        }
    }

    /// From now on nothing that this supervisor starts is in a group.
    fn go_on_without_group(&mut self) -> Result<()> {
        self.place = None;
        if self.group.take().is_none() {
            return Ok(());
        }
        let held = self.runs.lock()?;
        if let Some(slot) = &self.slot
            && let Some(mut record) = slot.read()?
        {
            record.cgroup = None;
            slot.write(&record)?;
        }
        drop(held);
        Ok(())
    }
}
