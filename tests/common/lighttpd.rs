//! A real lighttpd before a root's programs: what a network gets.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use super::common::{SOON, TestRoot, wait_for};

/// The server, ended when dropped.
pub struct Lighttpd {
    child: Child,
    pub port: u16,
}

impl Lighttpd {
    pub fn start(root: &TestRoot) -> Lighttpd {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = root.dir.display();
        let conf = format!(
            "server.document-root = \"{dir}/www\"\nserver.bind = \"127.0.0.1\"\nserver.port = {port}\n\
             server.errorlog = \"{dir}/lighttpd.log\"\nserver.modules = (\"mod_cgi\", \"mod_setenv\")\n\
             server.stream-response-body = 1\nsetenv.add-environment = (\"CORKBOARD_ROOT\" => \"{dir}\")\n\
             $HTTP[\"url\"] =~ \"^/cgi-bin/\" {{ cgi.assign = (\"\" => \"\") }}\n"
        );
        fs::write(root.path("lighttpd.conf"), conf).unwrap();
        let mut child = Command::new("/usr/sbin/lighttpd")
            .args(["-D", "-f"])
            .arg(root.path("lighttpd.conf"))
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::null())
            .spawn()
            .expect("lighttpd is needed");
        wait_for(SOON, || {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}: {}", root.read("lighttpd.log"));
            TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|e| e.to_string())
        });
        Lighttpd { child, port }
    }
}

impl Drop for Lighttpd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
