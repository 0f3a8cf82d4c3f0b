//! The scripts and the rules of httpd, with stand-ins for the programs: what is tested here is
//! how they are installed, started, served and stopped, not what they answer.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/stand_ins.rs"]
mod stand_ins;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use stand_ins::{Httpd, POLLER, Root, SOURCE, STUBBORN_POLLER, free_port, get, is_alive};

/// Written into every file that nobody may fetch.
const SECRET: &str = "corkboard-test-secret";

/// Names at the top of the source tree: those under version control, and those that builds make.
fn names_of_the_source() -> Vec<String> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(SOURCE).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let mut names: Vec<String> = listed
        .split('\0')
        .filter(|path| !path.is_empty())
        .map(|path| path.split('/').next().unwrap().to_string())
        .chain([".git".into(), "target".into(), "run".into(), "bin".into()])
        .collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn a_bare_httpd_in_the_root_serves_only_programs() {
    let root = Root::new("bare-httpd", POLLER);
    assert!(root.up(&[]).status.success());
    root.down(&[]);
    // The names of an installed root and of a source tree, each as a directory with a secret and,
    // where it is not one, as a secret itself.
    let mut names: Vec<String> = fs::read_dir(&root.dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .chain(names_of_the_source())
        .collect();
    names.sort();
    names.dedup();
    names.retain(|name| name != "cgi-bin" && name != "httpd.conf");
    for name in &names {
        let path = root.dir.join(name);
        if path.is_dir() || Path::new(SOURCE).join(name).is_dir() {
            fs::create_dir_all(path.join("inner")).unwrap();
            fs::write(path.join("secret"), SECRET).unwrap();
            fs::write(path.join("inner/secret"), SECRET).unwrap();
        } else {
            fs::write(path, SECRET).unwrap();
        }
    }
    fs::write(root.dir.join("cgi-bin/README.md"), SECRET).unwrap();
    fs::write(root.dir.join("cgi-bin/.hidden"), SECRET).unwrap();

    let port = free_port();
    let child = Command::new("busybox")
        .args(["httpd", "-f", "-p", &format!("127.0.0.1:{port}")])
        .current_dir(&root.dir)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let _httpd = Httpd(child);
    assert!(get(port, "/cgi-bin/scheduler/jobs?a=b", "").contains("PATH_INFO=/jobs"));
    assert!(get(port, "/cgi-bin/scheduler", "").contains("scheduler "));

    let mut paths: Vec<String> = vec!["/".into(), "/cgi-bin".into(), "/cgi-bin/".into()];
    paths.extend(["/cgi-bin/README.md".into(), "/cgi-bin/.hidden".into(), "/httpd.conf".into()]);
    for name in &names {
        let (first, rest) = name.split_at(1);
        let encoded = format!("%{:02x}{rest}", first.as_bytes()[0]);
        for tail in ["", "/", "/secret", "/secret/", "/inner/secret", "/./secret", "//secret?x=y"] {
            paths.extend([
                format!("/{name}{tail}"),
                format!("//{name}{tail}"),
                format!("/./{name}{tail}"),
                format!("/{encoded}{tail}"),
                format!("/cgi-bin/../{name}{tail}"),
                format!("/cgi-bin/scheduler/../../{name}{tail}"),
                format!("/cgi-bin/%2e%2e/{name}{tail}"),
                format!("/cgi-bin/..%2f{name}{tail}"),
                format!("/x/../{name}{tail}"),
                format!("/../{name}{tail}"),
            ]);
        }
    }
    for path in &paths {
        let answer = get(port, path, "");
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(!answer.contains(SECRET), "{path} was served: {answer}");
        assert!(["302", "400", "401", "403", "404"].contains(&status), "{path}: {answer}");
    }
    // The password of the rules is no password: base64 of `-:$1$-$-`, `-:`, `:`, `-`, nothing.
    for basic in ["LTokMSQtJC0=", "LTo=", "Og==", "LQ==", ""] {
        let header = format!("Authorization: Basic {basic}\r\n");
        assert!(!get(port, "/state/secret", &header).contains(SECRET), "Basic {basic}");
    }
    let range = get(port, "/state/secret", "Range: bytes=0-4\r\n");
    assert!(range.lines().next().unwrap().contains(" 401 "), "{range}");
}

#[test]
fn up_serves_the_page_and_the_programs() {
    let root = Root::new("serves", POLLER);
    assert!(root.up(&[]).status.success());
    let port = root.port();
    assert!(get(port, "/", "").contains("Corkboard"));
    assert!(get(port, "/index.html", "").contains("Corkboard"));
    let answer = get(port, "/cgi-bin/scheduler/jobs", "Authorization: Bearer abc\r\n");
    assert!(answer.contains("HTTP_AUTHORIZATION=Bearer abc"), "{answer}");
    assert!(!answer.contains("CARGO"), "the environment of up reached a program: {answer}");
    for path in ["/state/tokens/", "/../state/open", "/cgi-bin/../../httpd.conf", "/run/port"] {
        assert!(
            !get(port, path, "").lines().next().unwrap_or_default().contains(" 200 "),
            "{path}"
        );
    }
    assert_eq!(root.read("run/url"), format!("http://127.0.0.1:{port}/cgi-bin\n"));
    assert!(
        root.read("state/registered").contains(&format!("\"uri\":\"http://127.0.0.1:{port}\""))
    );
    assert_eq!(fs::read_link(root.dir.join("cgi-bin/node")).unwrap(), Path::new("nodemgr"));
    assert!(!root.dir.join("cgi-bin/index.cgi").exists());
}

#[test]
fn up_twice_is_one_up() {
    let root = Root::new("twice", POLLER);
    assert!(root.up(&[]).status.success());
    let before = (root.pid("httpd"), root.pid("poller"), root.port());
    assert!(root.up(&[]).status.success());
    assert_eq!(before, (root.pid("httpd"), root.pid("poller"), root.port()));
    assert_eq!(fs::read_dir(root.dir.join("state/tokens")).unwrap().count(), 2);
    let other = root.up(&["--port", "1"]);
    assert!(!other.status.success());
    assert!(String::from_utf8_lossy(&other.stderr).contains("down first"));
    // From the installed root alone.
    let own = Command::new(root.dir.join("scripts/up")).output().unwrap();
    assert!(own.status.success(), "{own:?}");
    // The port stays.
    let down = root.down(&[]);
    assert!(down.status.success());
    assert!(!is_alive(&before.0) && !is_alive(&before.1));
    assert!(root.up(&[]).status.success());
    assert_eq!(root.port(), before.2);
}

#[test]
fn ups_at_the_same_time_are_one_up() {
    let root = Root::new("concurrent", POLLER);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert!(root.up(&[]).status.success()));
        }
    });
    let listed = Command::new("pgrep").args(["-f", root.dir.to_str().unwrap()]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let mut running: Vec<&str> = listed.lines().filter(|pid| is_alive(pid)).collect();
    running.sort_unstable();
    let mut recorded = [root.pid("httpd"), root.pid("poller")];
    recorded.sort();
    assert_eq!(running, recorded);
}

#[test]
fn daemons_hold_nothing_of_their_caller() {
    let root = Root::new("descriptors", POLLER);
    assert!(root.up(&[]).status.success());
    let lock = root.dir.join("run/lock");
    let free = Command::new("flock").arg("-n").arg(&lock).arg("true").status().unwrap();
    assert!(free.success(), "a daemon holds the lock");
    for name in ["httpd", "poller"] {
        for entry in fs::read_dir(format!("/proc/{}/fd", root.pid(name))).unwrap() {
            let Ok(target) = fs::read_link(entry.unwrap().path()) else { continue };
            assert!(!target.to_string_lossy().starts_with("pipe:"), "{name} holds {target:?}");
        }
    }
}

#[test]
fn down_ends_nothing_that_up_did_not_start() {
    let root = Root::new("reused-pid", POLLER);
    assert!(root.up(&[]).status.success());
    let (httpd, record) = (root.pid("httpd"), root.read("run/httpd.pid"));
    // The pid of another process, with the start of the old one.
    let mut other = Command::new("sleep").arg("60").spawn().unwrap();
    let stolen = record.replacen(&httpd, &other.id().to_string(), 1);
    fs::write(root.dir.join("run/httpd.pid"), stolen).unwrap();
    assert!(root.down(&[]).status.success());
    assert!(other.try_wait().unwrap().is_none(), "down ended a bystander");
    // The same process in another boot.
    assert!(is_alive(&httpd));
    let mut words = record.split_whitespace();
    let (pid, start) = (words.next().unwrap(), words.next().unwrap());
    fs::write(root.dir.join("run/httpd.pid"), format!("{pid} {start} another-boot\n")).unwrap();
    assert!(root.down(&[]).status.success());
    assert!(is_alive(&httpd));
    fs::write(root.dir.join("run/httpd.pid"), &record).unwrap();
    assert!(root.down(&[]).status.success());
    assert!(!is_alive(&httpd));
    let _ = other.kill();
    let _ = other.wait();
}

#[test]
fn a_daemon_that_ignores_sigterm_is_killed() {
    let root = Root::new("stubborn", STUBBORN_POLLER);
    assert!(root.up(&[]).status.success());
    let poller = root.pid("poller");
    assert!(root.down(&[]).status.success());
    assert!(!is_alive(&poller));
}

#[test]
fn closed_makes_a_token_and_open_makes_none() {
    let root = Root::new("closed", POLLER);
    let output = root.up(&[]);
    assert_eq!(root.read("run/admin.header"), "Authorization: Bearer cb_1_secret\n");
    for name in ["run/admin.header", "run/admin.token"] {
        let mode = fs::metadata(root.dir.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("curl -H @") && !shown.contains("cb_1_secret"), "{shown}");
    assert!(root.read("state/registered").contains("\"token\":\"cb_1_secret\""));

    let root = Root::new("open", POLLER);
    assert!(root.up(&["--open", "--pace", "1s"]).status.success());
    assert!(root.dir.join("state/open").exists());
    assert!(!root.dir.join("run/admin.token").exists());
    assert!(!root.read("state/registered").contains("token"));
    assert!(root.read("run/poller.log").contains("args: --pace 1s"));
}

#[test]
fn down_with_jobs_kills_them() {
    let root = Root::new("jobs", POLLER);
    assert!(root.up(&[]).status.success());
    fs::create_dir(root.dir.join("state/jobs")).unwrap();
    for id in ["lab-1.1", "lab-2.1"] {
        fs::write(root.dir.join("state/jobs").join(id), "").unwrap();
    }
    assert!(root.down(&[]).status.success());
    assert_eq!(fs::read_dir(root.dir.join("state/jobs")).unwrap().count(), 2);
    assert!(root.down(&["--jobs"]).status.success());
    assert_eq!(fs::read_dir(root.dir.join("state/jobs")).unwrap().count(), 0);
}

#[test]
fn an_update_leaves_running_programs_and_settings_alone() {
    let root = Root::new("update", POLLER);
    assert!(root.up(&[]).status.success());
    fs::write(root.dir.join("corkboard.conf"), "cores = 1\n").unwrap();
    let poller = root.pid("poller");
    let program = root.programs.join("poller");
    fs::write(&program, format!("{POLLER}# newer\n")).unwrap();
    assert!(root.up(&[]).status.success());
    assert!(root.read("bin/poller").ends_with("# newer\n"));
    assert_eq!(root.read("corkboard.conf"), "cores = 1\n");
    assert_eq!(root.pid("poller"), poller);
    assert!(is_alive(&poller));
}

#[test]
fn options_are_checked_and_explained() {
    let root = Root::new("options", POLLER);
    for name in ["up", "down", "ca", "demo", "test"] {
        let help = root.script(name, &["--help"]);
        assert!(help.status.success());
        assert!(String::from_utf8_lossy(&help.stdout).contains(&format!("usage: scripts/{name}")));
        assert_eq!(root.script(name, &["--nonsense"]).status.code(), Some(2));
    }
    assert_eq!(root.script("up", &["--port", "0"]).status.code(), Some(2));
    assert_eq!(root.script("up", &["--port"]).status.code(), Some(2));
    // That of a variable that is not set: it is not the directory that the caller is in.
    for name in ["up", "down", "demo"] {
        let mut script = Command::new(format!("{SOURCE}/scripts/{name}"));
        let said = script.args(["--root", ""]).current_dir(&root.dir).output().unwrap();
        assert_eq!(said.status.code(), Some(2), "{name}: {said:?}");
    }
    assert!(!root.dir.join("run").exists());
    // A link to a script finds its root, too.
    let link = root.dir.join("link");
    symlink(format!("{SOURCE}/scripts/up"), &link).unwrap();
    assert!(Command::new(link).arg("--help").output().unwrap().status.success());
}

#[test]
fn a_taken_port_is_said_or_passed_over() {
    let root = Root::new("port", POLLER);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let refused = root.up(&["--port", &port]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("did not start"));
    // One that was used here before and is taken now.
    fs::write(root.dir.join("run/port"), &port).unwrap();
    assert!(root.up(&[]).status.success());
    assert_ne!(root.port().to_string(), port);
}

#[test]
fn another_address_is_warned_about() {
    let root = Root::new("bind", POLLER);
    let output = root.up(&["--bind", "0.0.0.0"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("unencrypted"));
    assert!(root.read("run/url").starts_with("http://127.0.0.1:"));
}

/// Others may run what is built in a source tree, if its owner lets them: tests by other users do.
#[test]
fn up_builds_with_the_modes_of_whoever_runs_it() {
    let root = Root::real("built");
    let tree = root.dir.join("tree");
    fs::create_dir_all(tree.join("scripts")).unwrap();
    for name in ["up", "common.sh", "server.sh"] {
        fs::copy(format!("{SOURCE}/scripts/{name}"), tree.join("scripts").join(name)).unwrap();
    }
    fs::write(tree.join("Cargo.toml"), "").unwrap();
    let cargo = root.dir.join("tools/cargo");
    fs::create_dir(cargo.parent().unwrap()).unwrap();
    fs::write(&cargo, "#!/bin/sh\numask\nexit 1\n").unwrap();
    Command::new("chmod").arg("755").arg(&cargo).status().unwrap();
    let path = format!("{}:{}", cargo.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let up = Command::new("sh")
        .args(["-c", "umask 002; exec \"$0\" --root \"$1\""])
        .args([tree.join("scripts/up"), root.dir.join("installed")])
        .env("PATH", path)
        .output()
        .unwrap();
    assert_eq!(up.status.code(), Some(1), "{up:?}");
    let said = String::from_utf8_lossy(&up.stderr);
    assert!(said.starts_with("0002\n") && said.contains("the build failed"), "{up:?}");
}

#[test]
fn labels_go_into_the_settings_beside_those_that_are_there() {
    let root = Root::new("labels", POLLER);
    assert!(root.up(&["--label", "disk=ssd", "--label", "zone=b"]).status.success());
    let set = |root: &Root| {
        let conf = root.read("corkboard.conf");
        let lines: Vec<String> =
            conf.lines().filter(|line| line.starts_with("labels")).map(String::from).collect();
        (conf.lines().count(), lines)
    };
    let (lines, labels) = set(&root);
    assert_eq!(labels, ["labels = disk=ssd, zone=b"]);
    assert!(root.up(&["--label", "disk=a hdd"]).status.success());
    assert_eq!(set(&root), (lines, vec!["labels = disk=a hdd, zone=b".to_string()]));
    let before = fs::metadata(root.dir.join("corkboard.conf")).unwrap().modified().unwrap();
    assert!(root.up(&["--label", "zone=b"]).status.success());
    let after = fs::metadata(root.dir.join("corkboard.conf")).unwrap().modified().unwrap();
    assert_eq!(before, after, "nothing is to be changed");
    for wrong in ["disk", "disk=a,b", "a b=c", "disk=#"] {
        assert_eq!(root.up(&["--label", wrong]).status.code(), Some(2), "{wrong}");
    }
    // Settings that do not show it.
    fs::write(root.dir.join("corkboard.conf"), "linger = 1s\n").unwrap();
    assert!(root.up(&["--label", "disk=ssd"]).status.success());
    assert_eq!(root.read("corkboard.conf"), "linger = 1s\nlabels = disk=ssd\n");
}
