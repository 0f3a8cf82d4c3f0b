//! Who may do what on whose things: one table, and what it is about.
//!
//! A *user* is a name that a token or an account of the machine maps to; jobs have one as their owner. A
//! *role* says what its holder is here for. [`reach`] has a row for each need, and what stands in it for
//! each role is how far it goes: on everybody's things, on one's own (and on those that were shared), or
//! not at all. `scheduler roles` prints it.

use serde::{Deserialize, Serialize};

use super::ids;

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything that can be done over HTTP.
    Admin,
    /// Submits jobs, sees and changes its user's.
    User,
    /// As a user, and registers nodes, which take its user's jobs alone until an admin opens them.
    Provider,
    /// Sees its user's jobs and changes nothing.
    Viewer,
    /// What a head needs of a node: have jobs run under ids of its own, read, end and forget them.
    Head,
    /// What a machine that works for this root needs.
    Worker,
    /// Registers one node, once, and is for nothing else.
    Join,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 7] = [
        Role::Admin,
        Role::User,
        Role::Provider,
        Role::Viewer,
        Role::Head,
        Role::Worker,
        Role::Join,
    ];

    /// As tokens say it.
    pub fn word(self) -> &'static str {
        match self {
            Role::Admin => "admin",
            Role::User => "user",
            Role::Provider => "provider",
            Role::Viewer => "viewer",
            Role::Head => "head",
            Role::Worker => "worker",
            Role::Join => "join",
        }
    }

    /// The role of this name.
    pub fn parse(word: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.word() == word)
    }
}

/// As what somebody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// At a shell of this machine, with rights on the files.
    Shell,
    /// As a token's role says.
    Role(Role),
    /// A running attempt of this job: may look, submit children, and say how far it is.
    Job(u64),
    /// A run that the head of another root has sent here: may say how far it is, and nothing else.
    Run,
}

/// What a route needs its caller to be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// To see what is everybody's to see: numbers, states, owners, nodes.
    Look,
    /// To see the rest of a job or of a run: its request, its output, its files.
    Read,
    /// To submit jobs.
    Submit,
    /// To change a job.
    Control,
    /// To have this machine run something.
    Run,
    /// To end or forget a run of this machine.
    Tend,
    /// To say what a run has to say of its progress.
    Report,
    /// To take a node's orders, and to answer them.
    Work,
    /// To register a node, to change or to remove it.
    Nodes,
    /// To register one node by the token that is for that.
    Join,
    /// To run something on nodes beside the board, to say whose a node is, to let one join, and to divide them
    /// into partitions.
    Admin,
    /// To be at a shell of this machine: not to be had over HTTP.
    Shell,
}

/// How far a right goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Not at all.
    None,
    /// To what is one's own, and to what was shared.
    Own,
    /// To everybody's.
    All,
}

impl Reach {
    /// In the table that is printed.
    pub fn word(self) -> &'static str {
        match self {
            Reach::None => "-",
            Reach::Own => "own",
            Reach::All => "all",
        }
    }
}

/// Whether something may be done, by whoever goes so far, to a thing of theirs or of others.
pub fn may(reach: Reach, need: Need, whose: Whose) -> bool {
    match (reach, whose) {
        (Reach::None, _) | (Reach::Own, Whose::Others) => false,
        (Reach::All, _) | (Reach::Own, Whose::Own | Whose::Shared(Share::Control)) => true,
        (Reach::Own, Whose::Shared(Share::Read)) => need == Need::Read,
    }
}

/// Whose the thing is that something is to be done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Theirs who ask; or it is nobody's in particular.
    Own,
    /// Another user's, who lets everybody do so much with it.
    Shared(Share),
    /// Another user's.
    Others,
}

/// What the owner of a job lets all users do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Share {
    /// See it.
    Read,
    /// See and change it.
    Control,
}

/// The needs, and what each is, for whoever reads the table.
pub const NEEDS: [(Need, &str, &str); 12] = [
    (Need::Look, "look", "see numbers, states and owners of jobs, and the nodes"),
    (Need::Read, "read", "see the rest of a job or run: request, output, files"),
    (Need::Submit, "submit", "submit jobs"),
    (Need::Control, "control", "change a job: kill, hold, release, priority"),
    (Need::Run, "run", "have this machine run something beside the board"),
    (Need::Tend, "tend", "end and forget what this machine runs"),
    (Need::Report, "report", "say how far a run is"),
    (Need::Work, "work", "take the orders of a node, and answer them"),
    (Need::Nodes, "nodes", "register nodes, change and remove them"),
    (Need::Join, "join", "register one node by its token, once; say where it is now"),
    (
        Need::Admin,
        "admin",
        "make partitions, say whose a node is, let nodes join, run on them beside the board",
    ),
    (Need::Shell, "shell", "make tokens, check and repair"),
];

/// The roles in the order of the table's columns.
pub const COLUMNS: [(Rights, &str); 10] = [
    (Rights::Shell, "shell"),
    (Rights::Role(Role::Admin), "admin"),
    (Rights::Role(Role::User), "user"),
    (Rights::Role(Role::Provider), "provider"),
    (Rights::Role(Role::Viewer), "viewer"),
    (Rights::Role(Role::Head), "head"),
    (Rights::Role(Role::Worker), "worker"),
    (Rights::Role(Role::Join), "join"),
    (Rights::Job(0), "job"),
    (Rights::Run, "run"),
];

/// How far whoever has these rights may go in this.
pub fn reach(rights: Rights, need: Need) -> Reach {
    use Reach::{All, None, Own};
    // One row for each need; shell, admin, user, provider, viewer, head, worker, join, job, run.
    let row = match need {
        Need::Look => [All, All, All, All, All, All, All, None, All, None],
        Need::Read => [All, All, Own, Own, Own, Own, None, None, Own, None],
        Need::Submit => [All, All, All, All, None, None, None, None, All, None],
        Need::Control => [All, All, Own, Own, None, None, None, None, None, None],
        Need::Run => [All, All, All, All, None, All, None, None, None, None],
        Need::Tend => [All, All, Own, Own, None, Own, None, None, None, None],
        Need::Report => [All, All, Own, Own, None, None, None, None, Own, Own],
        Need::Work => [All, None, None, None, None, None, Own, None, None, None],
        Need::Nodes => [All, All, None, Own, None, None, None, None, None, None],
        Need::Join => [All, None, None, None, None, None, All, All, None, None],
        Need::Admin => [All, All, None, None, None, None, None, None, None, None],
        Need::Shell => [All, None, None, None, None, None, None, None, None, None],
    };
    let column = match rights {
        Rights::Shell => 0,
        Rights::Role(Role::Admin) => 1,
        Rights::Role(Role::User) => 2,
        Rights::Role(Role::Provider) => 3,
        Rights::Role(Role::Viewer) => 4,
        Rights::Role(Role::Head) => 5,
        Rights::Role(Role::Worker) => 6,
        Rights::Role(Role::Join) => 7,
        Rights::Job(_) => 8,
        Rights::Run => 9,
    };
    row[column]
}

/// The name of whoever asks in open mode. No other user has it.
pub const OPEN: &str = "open";

/// The user of a token with this name, made without saying whose it is.
pub fn user_of_token(id: &str, name: Option<&str>) -> String {
    match name {
        Some(name) if is_user(name) => name.to_string(),
        _ => format!("token {id}"),
    }
}

/// Whether this may be a user's name: what may be an id, and is not open mode's.
pub fn is_user(name: &str) -> bool {
    ids::is_valid(name) && name != OPEN
}

/// Longest name of a user that something may be said to be for.
pub const LONGEST_OWNER: usize = 100;

/// Whether a user may be called so: by a token, by the account at a shell, or by what cards say of 0.1.
pub fn may_be_owner(name: &str) -> bool {
    let odd = |c: char| c.is_control() || c == '"' || c == '\\';
    (1..=LONGEST_OWNER).contains(&name.len()) && !name.contains(odd)
}

/// Which user a card means by its `by`. In 0.1 holders of tokens were named by these, as `token NAME
/// (ID)`. `None` for a job that was submitted by another job: it is owned by whoever owns that one.
pub fn user_in(by: &str) -> Option<String> {
    if by.strip_prefix("job ").and_then(ids::parse_number).is_some() {
        return None;
    }
    let token =
        by.strip_prefix("token ").and_then(|rest| rest.strip_suffix(')')?.rsplit_once(" ("));
    Some(token.map_or_else(|| by.to_string(), |(name, id)| user_of_token(id, Some(name))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_cards() {
        for (by, user) in [
            ("ada", Some("ada")),
            ("open", Some("open")),
            ("uid 1000", Some("uid 1000")),
            ("token ada (1a2b)", Some("ada")),
            ("token 1a2b", Some("token 1a2b")),
            ("token my laptop (1a2b)", Some("token 1a2b")),
            ("token open (1a2b)", Some("token 1a2b")),
            ("token a (b) (1a2b)", Some("token 1a2b")),
            ("job 7", None),
            ("job x", Some("job x")),
        ] {
            assert_eq!(user_in(by).as_deref(), user, "{by}");
        }
    }

    #[test]
    fn the_table_and_its_names_are_whole() {
        for (needs, (need, ..)) in NEEDS.iter().enumerate() {
            assert_eq!(NEEDS.iter().position(|(other, ..)| other == need), Some(needs));
            assert_eq!(reach(Rights::Shell, *need), Reach::All);
        }
        for role in Role::ALL {
            assert_eq!(Role::parse(role.word()), Some(role));
            assert!(COLUMNS.contains(&(Rights::Role(role), role.word())));
        }
    }

    #[test]
    fn what_is_shared_goes_no_further() {
        use Whose::{Others, Own, Shared};
        let may = |need, whose| may(Reach::Own, need, whose);
        assert!(may(Need::Read, Own) && may(Need::Control, Own));
        assert!(may(Need::Read, Shared(Share::Read)) && !may(Need::Control, Shared(Share::Read)));
        assert!(may(Need::Control, Shared(Share::Control)));
        assert!(!may(Need::Read, Others) && !may(Need::Control, Others));
    }
}
