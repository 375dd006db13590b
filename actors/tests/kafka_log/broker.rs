//! A real broker for the length of a test, or a cluster of them, on ports and in a directory of its own. It is stopped also when the
//! test fails.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How often another port is tried, should somebody else take the one that was free.
const ATTEMPTS: u32 = 3;
/// How long a killed process may take to be gone, and between two looks.
const GONE_TIMEOUT: Duration = Duration::from_secs(10);
const GONE_LOOK: Duration = Duration::from_millis(5);

pub(crate) struct Broker {
    dir: TempDir,
    pub(crate) port: u16,
    /// How many brokers, each on a pair of ports.
    count: u16,
    /// Further settings of each of them, at every start.
    settings: Vec<String>,
}

fn script() -> Command {
    // The suites of several packages use it.
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|dir| dir.join("config/ops/kafka/kafka"));
    Command::new(found.into_iter().find(|path| path.exists()).expect("the script"))
}

/// The first of so many ports that nobody listens on.
fn free_ports(count: u16) -> u16 {
    loop {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = first.local_addr().expect("an address").port();
        let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if port < u16::MAX - count && (1..count).all(|more| is_free(port + more)) {
            return port;
        }
    }
}

impl Broker {
    /// Starts a broker with these settings, given the port of its plain listener.
    pub(crate) fn start(settings: impl Fn(u16) -> Vec<String>) -> Broker {
        Broker::of(1, |broker| {
            broker.settings = settings(broker.port);
            broker.launch(1)
        })
    }

    /// Starts so many brokers that share their topics.
    #[allow(dead_code, reason = "one suite loses a broker out of several")]
    pub(crate) fn cluster(count: u16) -> Broker {
        Broker::of(count, |broker| {
            let mut start = script();
            start.arg("cluster").arg(count.to_string()).arg(broker.port.to_string()).arg(broker.dir.path());
            start.output().expect("the script")
        })
    }

    fn of(count: u16, launch: impl Fn(&mut Broker) -> Output) -> Broker {
        for _ in 0..ATTEMPTS {
            let dir = tempfile::tempdir().expect("a directory");
            let mut broker = Broker { dir, port: free_ports(2 * count), count, settings: Vec::new() };
            let started = launch(&mut broker);
            if started.status.success() {
                return broker;
            }
            eprintln!("{}", String::from_utf8_lossy(&started.stderr));
        }
        panic!("the broker does not start");
    }

    fn launch(&self, number: u16) -> Output {
        let mut start = script();
        start.arg("start").arg(self.port_of(number).to_string()).arg(self.home(number)).args(&self.settings);
        start.output().expect("the script")
    }

    /// The directory of one of the brokers, which are counted from 1.
    fn home(&self, number: u16) -> PathBuf {
        if self.count == 1 { self.dir.path().to_owned() } else { self.dir.path().join(number.to_string()) }
    }

    fn port_of(&self, number: u16) -> u16 {
        self.port + 2 * (number - 1)
    }

    /// Ends it; its data stays.
    #[allow(dead_code, reason = "one suite stops its broker and goes on")]
    pub(crate) fn stop(&self) {
        let stopped = script().arg("stop").arg(self.dir.path()).status();
        assert!(stopped.expect("the script").success(), "the broker stops");
    }

    /// The process of one of the brokers.
    #[allow(dead_code, reason = "two suites want to know")]
    pub(crate) fn pid(&self, number: u16) -> String {
        let pid = std::fs::read_to_string(self.home(number).join("pid")).expect("a broker that was started");
        pid.trim().to_owned()
    }

    /// Kills one of the brokers, and returns when its process is gone.
    #[allow(dead_code, reason = "one suite kills brokers and goes on")]
    pub(crate) fn kill(&self, number: u16) {
        let pid = self.pid(number);
        let killed = Command::new("sh").arg("-c").arg(format!("kill -KILL {pid}")).status();
        assert!(killed.expect("a shell").success(), "broker {number} cannot be killed");
        let begun = Instant::now();
        // Whoever inherits it may leave it in the table of processes for a while.
        let is_gone = |stat: &str| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'));
        while !std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| is_gone(&stat)) {
            assert!(begun.elapsed() < GONE_TIMEOUT, "broker {number} does not go");
            std::thread::park_timeout(GONE_LOOK);
        }
    }

    /// Starts it again, with its data and where it was.
    #[allow(dead_code, reason = "one suite stops its broker and goes on")]
    pub(crate) fn go_on(&self) {
        self.revive(1);
    }

    /// Starts one of the brokers again, with its data and where it was.
    #[allow(dead_code, reason = "one suite kills brokers and goes on")]
    pub(crate) fn revive(&self, number: u16) {
        let started = self.launch(number);
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    }

    /// Where all of them are asked, with commas.
    pub(crate) fn address(&self) -> String {
        let each: Vec<String> = (1..=self.count).map(|number| format!("127.0.0.1:{}", self.port_of(number))).collect();
        each.join(",")
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
