//! A real broker for the length of a test, on ports and in a directory of its own. It is stopped also when the test fails.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// How often another port is tried, should somebody else take the one that was free.
const ATTEMPTS: u32 = 3;

pub(crate) struct Broker {
    dir: TempDir,
    pub(crate) port: u16,
}

fn script() -> Command {
    // The suites of several packages use it.
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|dir| dir.join("config/ops/kafka/kafka"));
    Command::new(found.into_iter().find(|path| path.exists()).expect("the script"))
}

/// A port that nobody listens on, and the one after it too.
fn free_pair() -> u16 {
    loop {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = first.local_addr().expect("an address").port();
        if port < u16::MAX && TcpListener::bind((Ipv4Addr::LOCALHOST, port + 1)).is_ok() {
            return port;
        }
    }
}

impl Broker {
    /// Starts a broker with these settings, given the port of its plain listener.
    pub(crate) fn start(settings: impl Fn(u16) -> Vec<String>) -> Broker {
        for _ in 0..ATTEMPTS {
            let broker = Broker { dir: tempfile::tempdir().expect("a directory"), port: free_pair() };
            let started = broker.launch(&settings(broker.port));
            if started.status.success() {
                return broker;
            }
            eprintln!("{}", String::from_utf8_lossy(&started.stderr));
        }
        panic!("the broker does not start");
    }

    fn launch(&self, settings: &[String]) -> Output {
        let mut start = script();
        start.arg("start").arg(self.port.to_string()).arg(self.dir.path()).args(settings);
        start.output().expect("the script")
    }

    /// Ends it; its data stays.
    #[allow(dead_code, reason = "one suite stops its broker and goes on")]
    pub(crate) fn stop(&self) {
        let stopped = script().arg("stop").arg(self.dir.path()).status();
        assert!(stopped.expect("the script").success(), "the broker stops");
    }

    /// Starts it again, with its data and where it was.
    #[allow(dead_code, reason = "one suite stops its broker and goes on")]
    pub(crate) fn go_on(&self) {
        let started = self.launch(&[]);
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Runs a tool of the jars with this input, and gives its output.
    pub(crate) fn tool(&self, arguments: &[&str], input: &str) -> String {
        use std::io::Write;
        let mut tool = script();
        tool.arg("tool").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = tool.spawn().expect("the script");
        running.stdin.take().expect("an input").write_all(input.as_bytes()).expect("a reader");
        let output = running.wait_with_output().expect("a tool that ends");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let stopped = script().arg("stop").arg(self.dir.path()).status();
        if !stopped.is_ok_and(|status| status.success()) {
            eprintln!("the broker in {} may still run", self.dir.path().display());
        }
    }
}
