//! The life of a job that runs, as a table: where it is, what may happen there, and what follows. What
//! happens is found out in `heed`; what follows is done in `ending`.

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// None of its programs runs: before the first, between two, after the last.
    Idle,
    /// A program runs.
    Runs,
    /// A program runs, and all of the job was asked to end.
    Asked,
    /// A program has ended by a SIGTERM of which this process knows nothing: if the machine is shut
    /// down, its own comes in a moment.
    Doubt,
    /// No program runs, or ever will; what they left behind was asked to end.
    Rest,
}

/// What happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happening {
    /// A program is let go.
    Started,
    /// The program has ended.
    Ended,
    /// It had got SIGTERM from somebody.
    Felled,
    /// Somebody wants the job, or this task, to end.
    Wanted,
    /// It has run as long as it may.
    Late,
    /// This process was told to end.
    Told,
    /// No program is to follow, and processes of the job are left.
    Left,
    /// This process is awake, and its patience lasts.
    Awake,
    /// Its patience is over.
    Over,
}

/// What is done then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Nothing.
    Nothing,
    /// All processes of the job are asked to end, and given time.
    Ask,
    /// They are given no more time than whoever wants it now gives them.
    Hurry,
    /// Those that have come since are asked as well.
    AskAgain,
    /// They are made to end, and looked at again in a moment.
    Force,
    /// It is waited for a moment.
    Wait,
}

/// What follows: where the job is then, and what is done.
pub(super) fn next(phase: Phase, happening: Happening) -> (Phase, Act) {
    use {Act::*, Happening::*, Phase::*};
    match (phase, happening) {
        (Idle, Started) => (Runs, Nothing),
        (Idle, Felled) => (Doubt, Wait),
        (Idle, Left) => (Rest, Ask),

        (Runs, Ended) => (Idle, Nothing),
        (Runs, Wanted | Late | Told) => (Asked, Ask),

        (Asked, Ended) => (Rest, Nothing),
        (Asked, Wanted | Told) => (Asked, Hurry),
        (Asked, Awake) => (Asked, AskAgain),
        (Asked, Over) => (Asked, Force),

        (Doubt, Told | Over) => (Idle, Nothing),

        // Its programs have ended by themselves, or the verdict on them is known.
        (Rest, Wanted) => (Rest, Hurry),
        (Rest, Awake) => (Rest, AskAgain),
        (Rest, Over) => (Rest, Force),

        (phase, _) => (phase, Nothing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the job is then if that is elsewhere, and what is done if something is.
    const TABLE: &str = "
        -     Started Ended Felled     Wanted    Late      Told      Left     Awake    Over
        Idle  Runs    -     Doubt/Wait -         -         -         Rest/Ask -        -
        Runs  -       Idle  -          Asked/Ask Asked/Ask Asked/Ask -        -        -
        Asked -       Rest  -          /Hurry    -         /Hurry    -        /AskAgain /Force
        Doubt -       -     -          -         -         Idle      -        -        Idle
        Rest  -       -     -          /Hurry    -         -         -        /AskAgain /Force";

    #[test]
    fn the_table_in_full() {
        use {Happening::*, Phase::*};
        let mut lines =
            TABLE.trim().lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let happenings = [Started, Ended, Felled, Wanted, Late, Told, Left, Awake, Over];
        let head = lines.next().unwrap_or_default();
        assert_eq!(head[1..], happenings.map(|happening| format!("{happening:?}")));
        for phase in [Idle, Runs, Asked, Doubt, Rest] {
            let line = lines.next().unwrap_or_default();
            assert_eq!(line[0], format!("{phase:?}"));
            for (cell, happening) in line[1..].iter().zip(happenings) {
                let (then, act) = match cell.split_once('/') {
                    _ if *cell == "-" => ("", ""),
                    Some(both) => both,
                    None => (*cell, ""),
                };
                let or =
                    |text: &str, usual: String| if text.is_empty() { usual } else { text.into() };
                let expected = (or(then, format!("{phase:?}")), or(act, "Nothing".into()));
                let (then, act) = next(phase, happening);
                assert_eq!(
                    (format!("{then:?}"), format!("{act:?}")),
                    expected,
                    "{phase:?} {happening:?}"
                );
            }
        }
        assert_eq!(lines.next(), None);
    }

    /// Where no program runs none is asked to end for its own sake, and what was asked to end is asked
    /// until nothing of it is left.
    #[test]
    fn no_verdict_comes_too_late() {
        use {Happening::*, Phase::*};
        for happening in [Wanted, Late, Told] {
            for phase in [Idle, Doubt, Rest] {
                assert_ne!(next(phase, happening).1, Act::Ask, "{phase:?} {happening:?}");
            }
        }
        for happening in [Started, Ended, Felled, Wanted, Late, Told, Left, Awake, Over] {
            assert_eq!(next(Rest, happening).0, Rest, "{happening:?}");
        }
    }
}
