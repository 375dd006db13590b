//! A service as its users start it: a process of its own, known by its pid, and killed when the test lets go of it.
//! What it logs is kept, and shown by a test that fails.

#![allow(dead_code, reason = "each test binary uses its part of it")]

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use finflow_actors::socket::Client;
use serde_json::Value;

/// How often a condition is looked at.
pub(crate) const POLL: Duration = Duration::from_millis(2);
/// How long a test waits for what should take a moment.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Service {
    child: Child,
    data_dir: PathBuf,
    logs: Arc<Mutex<String>>,
}

impl Service {
    /// Starts `finflow run` on `dir/data` with two lanes and more settings.
    pub(crate) fn start(dir: &Path, settings: &[&str]) -> Service {
        Service::start_by(Command::new(env!("CARGO_BIN_EXE_finflow")), dir, settings)
    }

    /// Starts it through another program, which must end by becoming it: its pid is what is signalled.
    pub(crate) fn start_by(mut program: Command, dir: &Path, settings: &[&str]) -> Service {
        program.args(arguments(dir, &["run", "--log-format", "json", "--set", "lanes=2", "--set", "admin.listen=127.0.0.1:0"]));
        program.args(settings.iter().flat_map(|setting| ["--set", setting]));
        let child = program.current_dir(dir).stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("the program runs");
        let logs = keep(child.stderr.take().expect("a pipe"));
        Service { child, data_dir: dir.join("data"), logs }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its admin listener is.
    pub(crate) async fn admin_address(&self) -> String {
        self.logged("admin listener").await;
        let logs = self.logs();
        let lines = logs.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let address = lines.into_iter().find_map(|line| Some(line["fields"]["address"].as_str()?.to_owned()));
        address.expect("the listener's line tells its address")
    }

    /// Returns when it has logged this.
    pub(crate) async fn logged(&self, text: &str) {
        let begun = Instant::now();
        while !self.logs().contains(text) {
            assert!(begun.elapsed() < DEADLINE, "{text} is not logged: {}", self.logs());
            tokio::time::sleep(POLL).await;
        }
    }

    /// A connection, as soon as it answers; `None` if it ends first.
    pub(crate) async fn client(&mut self) -> Option<Client> {
        let begun = Instant::now();
        loop {
            if let Some(client) = Client::connect(&self.data_dir).await {
                return Some(client);
            }
            if self.child.try_wait().expect("a child").is_some() {
                return None;
            }
            assert!(begun.elapsed() < DEADLINE, "the service does not answer: {}", self.logs());
            tokio::time::sleep(POLL).await;
        }
    }

    /// A connection to a service that must answer.
    pub(crate) async fn expect_client(&mut self) -> Client {
        match self.client().await {
            Some(client) => client,
            None => panic!("the service ended: {}", self.logs()),
        }
    }

    /// Asks it to stop, as an operator does.
    pub(crate) fn terminate(&self) {
        let sent = Command::new("sh").arg("-c").arg(format!("kill -TERM {}", self.child.id())).status();
        assert!(sent.expect("a shell").success(), "the service cannot be signalled");
    }

    /// Kills it at once and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    /// How it ended, which must be before the deadline.
    pub(crate) async fn ended(&mut self, deadline: Duration) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(begun.elapsed() < deadline, "the service did not end in {deadline:?}: {}", self.logs());
            tokio::time::sleep(POLL).await;
        }
    }

    /// What it has logged.
    pub(crate) fn logs(&self) -> String {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn end(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.end();
    }
}

/// The program, told by a failed write that a file is too large rather than ended by a signal, as on a disk that is full.
pub(crate) fn on_a_small_disk(limit: &str) -> Command {
    let mut shell = Command::new("sh");
    let script = format!(r#"trap "" XFSZ; ulimit -f {limit}; exec "$0" "$@""#);
    shell.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_finflow"));
    shell
}

/// The program, begun with so many open files allowed, which it may raise to the most that its user may have.
pub(crate) fn with_few_files(limit: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!(r#"ulimit -S -n {limit}; exec "$0" "$@""#)).arg(env!("CARGO_BIN_EXE_finflow"));
    shell
}

/// Sets the size that no file of a process may pass, in bytes; `unlimited` makes room again.
pub(crate) fn set_room(service: &Service, bytes: &str) {
    let set = Command::new("prlimit").args(["--pid", &service.pid().to_string(), &format!("--fsize={bytes}:")]).status();
    assert!(set.expect("prlimit of util-linux").success());
}

/// Keeps what a process writes until it ends.
fn keep(stderr: ChildStderr) -> Arc<Mutex<String>> {
    let logs = Arc::<Mutex<String>>::default();
    let kept = logs.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.push_str(&line);
            kept.push('\n');
        }
    });
    logs
}

/// `arguments` for the data directory in `dir`.
fn arguments(dir: &Path, arguments: &[&str]) -> Vec<OsString> {
    let data_dir = [OsString::from("--data-dir"), dir.join("data").into_os_string()];
    arguments.iter().map(OsString::from).chain(data_dir).collect()
}

/// Runs a command on the data directory in `dir` to its end.
pub(crate) fn finflow(dir: &Path, words: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_finflow")).args(arguments(dir, words)).current_dir(dir).output();
    output.expect("the program runs")
}

/// What a command that must succeed prints.
pub(crate) fn json(dir: &Path, words: &[&str]) -> Vec<Value> {
    let output = finflow(dir, &[words, &["--format", "json"]].concat());
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect()
}
