//! The processes of an application on Kafka, each with a directory and a name of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

pub(crate) use crate::child::Service;

const DEADLINE: Duration = Duration::from_secs(120);

/// One process of an application: a directory, a name, and the broker.
#[derive(Clone, Copy)]
pub(crate) struct Process<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) name: &'a str,
    pub(crate) brokers: &'a str,
    pub(crate) prefix: &'a str,
    pub(crate) secret: &'a str,
    /// The application's number of partitions, where it is not the default.
    pub(crate) partitions: Option<u32>,
    /// Further settings of all its commands, each `key=value`.
    pub(crate) settings: &'a [&'a str],
}

impl<'a> Process<'a> {
    /// One of an application with the default number of partitions, and nothing set.
    pub(crate) fn new(dir: &'a Path, name: &'a str, brokers: &'a str, prefix: &'a str) -> Process<'a> {
        Process { dir, name, brokers, prefix, secret: "s", partitions: None, settings: &[] }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_finflow"));
        command.args(arguments).arg("--data-dir").arg(self.data_dir()).current_dir(self.dir);
        command.args(["--log", "kafka", "--brokers", self.brokers]);
        command.args(["--set", &format!("node.id={}", self.name), "--set", &format!("topics.prefix={}", self.prefix)]);
        command.args(["--set", &format!("internal.secret={}", self.secret)]);
        if let Some(partitions) = self.partitions {
            command.args(["--set", &format!("topics.partitions={partitions}")]);
        }
        command.args(self.settings.iter().flat_map(|setting| ["--set", setting]));
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn finflow(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program runs")
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.finflow(&[arguments, &["--format", "json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect()
    }

    /// Starts a service and waits until it answers.
    pub(crate) fn run(&self, lanes: u32) -> Service {
        self.run_with(lanes, &[])
    }

    /// The same with more arguments.
    pub(crate) fn run_with(&self, lanes: u32, more: &[&str]) -> Service {
        let service = self.begin(lanes, more);
        let socket = self.data_dir().join("finflow.sock");
        eventually(|| match std::os::unix::net::UnixStream::connect(&socket) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{} does not answer: {error}\n{}", self.name, self.logged())),
        });
        service
    }

    /// Starts a service and does not wait for it. What an earlier one has logged is kept beside.
    pub(crate) fn begin(&self, lanes: u32, more: &[&str]) -> Service {
        std::fs::create_dir_all(self.data_dir()).expect("a directory");
        let path = self.data_dir().join("stderr.txt");
        if path.exists() {
            let kept = (1..).map(|life| self.data_dir().join(format!("stderr.{life}.txt"))).find(|kept| !kept.exists());
            std::fs::rename(&path, kept.expect("a free name")).expect("the log is kept");
        }
        let log = std::fs::File::create(path).expect("a file");
        let lanes = format!("lanes={lanes}");
        let arguments = [&["run", "--set", &lanes, "--set", "admin.listen=127.0.0.1:0"], more].concat();
        Service(self.command(&arguments).stderr(log).spawn().expect("the program runs"))
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.join(self.name)
    }

    /// What its service has logged.
    pub(crate) fn logged(&self) -> String {
        std::fs::read_to_string(self.data_dir().join("stderr.txt")).unwrap_or_default()
    }

    /// The partitions that a service of this name runs, as any service tells it.
    pub(crate) fn partitions_of(&self, name: &str) -> Vec<u64> {
        let lane = format!("{}-{name}-lane-", self.prefix);
        let is_its = |of: &&Value| of["state"] == "running" && of["lane"].as_str().is_some_and(|found| found.starts_with(&lane));
        self.json(&["partitions"]).iter().filter(is_its).filter_map(|of| of["partition"].as_u64()).collect()
    }

    pub(crate) fn events(&self) -> Vec<Value> {
        self.json(&["tail", "events", "--from", "beginning", "--exit-at-end"])
    }
}

impl Service {
    /// Signals its process.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.0.id())).status();
        assert!(sent.expect("a shell").success(), "the service cannot be signalled");
    }

    /// The code that it ends with; none where a signal ended it.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        eventually(|| self.0.try_wait().expect("a child").ok_or_else(|| "the service runs on".to_owned())).code()
    }
}

/// Asks again until it is so, within the time that a rebalance may take.
pub(crate) fn eventually<T>(ask: impl FnMut() -> Result<T, String>) -> T {
    crate::child::eventually(DEADLINE, ask)
}
