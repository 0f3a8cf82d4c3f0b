//! A job worker's words over mutual TLS, by the lighttpd that `scripts/up` starts.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
#[path = "common/secure.rs"]
mod secure;
#[path = "common/stand_ins.rs"]
mod stand_ins;

use secure::soon;
use serde_json::{Value, json};
use stand_ins::Root;

#[test]
fn processes_are_run_for_whoever_shows_a_certificate() {
    let root = Root::real("worker");
    root.up_ok(&["--server", "lighttpd", "--tls", "--client-certs", "demand"]);
    let (ann, ben) = (root.client("ann"), root.client("ben"));
    root.knows(&ann, &["role=user", "user=ann"]);
    root.knows(&ben, &["role=user", "user=ben"]);
    assert_eq!(root.curl(&[], "/processor/query_running").code, 0, "it shows none");
    let ask = |what: &str, body: &Value| {
        let body = body.to_string();
        root.curl_as(&ann, &["-N", "-d", &body], &format!("/processor/{what}"))
    };
    let lines = |body: &str| -> Vec<Value> {
        let lines = body.lines().filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    // One that ends by itself.
    let script = "echo out; echo err >&2; exit 3";
    let said = ask("start", &json!({"command": "sh", "args": ["-c", script]})).expect(200);
    let [started, ended] = lines(&said.body).try_into().unwrap();
    assert_eq!((&started["finished"], &ended["finished"]), (&json!(false), &json!(true)));
    assert_eq!((&ended["output"], &ended["ErrorOutput"]), (&json!("out\n"), &json!("err\n")));
    let of = |told: &Value| json!({"pid": told["pid"], "startingTimeStamp": told["timeStamp"]});
    let asked = ask("query_one", &of(&started)).expect(200).json();
    assert_eq!((&asked["running"], &asked["exitCode"]), (&json!(false), &json!(3)));
    ask("stop", &of(&started)).expect(409);
    // One whose client leaves in the middle of the answer, and which is stopped then.
    let body = json!({"command": "sh", "args": ["-c", "echo ready; exec sleep 100.5"]}).to_string();
    let said = root.curl_as(&ann, &["-N", "--max-time", "3", "-d", &body], "/processor/start");
    let [living] = lines(&said.body).try_into().unwrap();
    soon(|| match ask("query_one", &of(&living)).expect(200).json() {
        asked if asked["output"] == "ready\n" && asked["running"] == true => Ok(()),
        asked => Err(asked.to_string()),
    });
    let of_living = of(&living).to_string();
    root.curl_as(&ben, &["-d", &of_living], "/processor/stop").expect(403);
    assert_eq!(ask("stop", &of(&living)).expect(200).json()["Output"], "ready\n");
    assert_eq!(ask("query_one", &of(&living)).expect(200).json()["reason"], "killed by ann");
    ask("stop", &of(&living)).expect(409);
    assert_eq!(ask("query_running", &json!({})).expect(200).json(), json!({"dataTable": []}));
    root.check();
}
