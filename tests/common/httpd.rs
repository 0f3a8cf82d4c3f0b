//! A real httpd before a root's programs.

use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Answer, SOON, TestRoot, finish, signal, wait_for};

/// A web server, ended when dropped.
pub struct Httpd {
    child: Child,
    pub port: u16,
}

impl Httpd {
    /// Ends the server and every request that it is answering: the machine's cable is cut.
    pub fn cut(self) {
        signal(-(self.child.id() as i32), "KILL");
    }

    /// One request by curl: more arguments, and the path below `/cgi-bin`.
    pub fn curl(&self, args: &[&str], path: &str) -> Answer {
        let mut command = Command::new("curl");
        command
            .args(["-s", "-i", "--max-time", "70"])
            .args(args)
            .arg(format!("http://127.0.0.1:{}/cgi-bin{path}", self.port));
        finish(command, b"", true)
    }
}

impl Drop for Httpd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl TestRoot {
    /// Starts `busybox httpd` for this root on a free port.
    pub fn httpd(&self) -> Httpd {
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if let Some(httpd) = self.try_httpd(port, &[]) {
                return httpd;
            }
        }
        panic!("no port for httpd");
    }

    /// Starts it again on a port that it had.
    pub fn httpd_on(&self, port: u16) -> Httpd {
        wait_for(SOON, || self.try_httpd(port, &[]).ok_or_else(|| format!("port {port} is in use")))
    }

    /// Starts it on this port, with more in its environment; `None` if the port is in use.
    pub fn try_httpd(&self, port: u16, env: &[(&str, &str)]) -> Option<Httpd> {
        let mut child = Command::new("busybox")
            .args(["httpd", "-f", "-p", &format!("127.0.0.1:{port}"), "-h"])
            .arg(self.path("www"))
            .env_clear()
            .env("CORKBOARD_ROOT", &self.dir)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("busybox is needed");
        let deadline = Instant::now() + SOON;
        while child.try_wait().unwrap().is_none() && Instant::now() < deadline {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(Httpd { child, port });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        let _ = child.wait();
        None
    }
}
