//! The measured engine: `finflow run` in a process of its own, or in several, so that its CPU and memory are nobody else's.
//! It is killed when it is dropped.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::usage::Usage;
use crate::cli::Common;
use crate::failure::Failure;

/// How long the engine may take to begin, to become ready, and to stop.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(2);
/// What the directory of a process keeps its snapshots in.
pub(super) const SNAPSHOTS: &str = "snapshots";
/// How often several processes are asked whether they have shared the partitions out: each time costs a process.
const SHARED_POLL: Duration = Duration::from_millis(500);
const HTTP_TIMEOUT: Duration = Duration::from_secs(5);

/// Where an engine runs: the topics with a prefix, and a directory with one for each process.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) common: &'a Common,
    pub(super) prefix: &'a str,
    pub(super) dir: &'a Path,
    /// What its processes show each other.
    pub(super) secret: &'a str,
}

impl Place<'_> {
    pub(super) fn data_dir(self, number: u32) -> PathBuf {
        self.dir.join(number.to_string())
    }

    /// A command of the process with this number, with the configuration that the benchmark was given.
    fn command(self, number: u32, arguments: &[&str]) -> Result<Command, Failure> {
        let common = self.common;
        let mut program = Command::new(std::env::current_exe()?);
        program.args(arguments).args(["--log", "kafka"]).arg("--data-dir").arg(self.data_dir(number));
        program.args(common.config.iter().flat_map(|file| ["--config".as_ref(), file.as_os_str()]));
        program.args(common.brokers.iter().flat_map(|brokers| ["--brokers", brokers]));
        program.args(common.properties.iter().flat_map(|property| ["-X", property]));
        program.args(common.set.iter().flat_map(|setting| ["--set", setting]));
        program.args(["--set", &format!("topics.prefix={}", self.prefix), "--set", &format!("node.id=bench-{number}")]);
        program.args(["--set", &format!("internal.secret={}", self.secret)]);
        // Its snapshots are no application's.
        let snapshots = format!("snapshots.url=file://{}", self.data_dir(number).join(SNAPSHOTS).display());
        program.args(["--set", "snapshots.shared=false", "--set", &snapshots]).stdin(Stdio::null());
        Ok(program)
    }

    /// What a command of the process with this number tells, a value a line.
    pub(super) fn ask(self, number: u32, arguments: &[&str]) -> Result<Vec<Value>, Failure> {
        let output = self.command(number, &[arguments, &["--format", "json"]].concat())?.output()?;
        if !output.status.success() {
            return Err(Failure::Failed(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        let told = String::from_utf8_lossy(&output.stdout);
        told.lines().map(|line| serde_json::from_str(line).map_err(|error| Failure::Failed(error.to_string()))).collect()
    }

    /// Starts so many processes, and waits until every partition is there, and each process has its share.
    pub(super) fn start_several(self, count: u32) -> Result<Vec<Engine>, Failure> {
        let engines = (0..count).map(|number| Engine::start(self, number)).collect::<Result<Vec<_>, _>>()?;
        for engine in &engines {
            engine.ready()?;
        }
        let begun = Instant::now();
        while !self.are_shared_out(count) {
            if PATIENCE < begun.elapsed() {
                return Err(Failure::Temporary("the partitions are not shared out in time".to_owned()));
            }
            std::thread::sleep(SHARED_POLL);
        }
        Ok(engines)
    }

    fn are_shared_out(self, count: u32) -> bool {
        // While they are being shared out, not each of them can be told of.
        let told = self.ask(0, &["partitions"]).unwrap_or_default();
        let nodes: BTreeSet<&str> = told.iter().filter_map(|of| of["lane"].as_str()?.split("-lane-").next()).collect();
        nodes.len() == count as usize && told.iter().all(|of| of["state"] == "running")
    }
}

pub(super) struct Engine {
    child: Child,
    admin: String,
    begun: Instant,
}

impl Engine {
    /// Starts one process.
    pub(super) fn start(place: Place<'_>, number: u32) -> Result<Engine, Failure> {
        let mut program = place.command(number, &["run", "--admin", "127.0.0.1:0", "--log-format", "json"])?;
        // The first one goes on alone, with everything, when the others are stopped.
        program.args((0 < number).then_some("--leave-on-exit"));
        let begun = Instant::now();
        let mut child = program.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let lines = child.stderr.take().map(listen);
        let mut engine = Engine { child, admin: String::new(), begun };
        let address = lines.and_then(|lines| lines.recv_timeout(PATIENCE).ok());
        engine.admin = address.ok_or_else(|| Failure::Failed("the measured engine does not start".to_owned()))?;
        Ok(engine)
    }

    /// Waits until every partition is there, and gives the time since its start.
    pub(super) fn ready(&self) -> Result<Duration, Failure> {
        while self.begun.elapsed() < PATIENCE {
            if self.get("/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200")) {
                return Ok(self.begun.elapsed());
            }
            std::thread::sleep(POLL);
        }
        Err(Failure::Temporary("the measured engine is not ready in time".to_owned()))
    }

    /// What it has used so far.
    pub(super) fn usage(&self) -> Usage {
        Usage::of(self.child.id())
    }

    /// What it counts, as it is now.
    pub(super) fn metrics(&self) -> Result<Metrics, Failure> {
        Ok(Metrics(self.get("/metrics")?))
    }

    /// Asks it to stop, as an operator does, and waits until it has.
    pub(super) fn stop(mut self) -> Result<(), Failure> {
        Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status()?;
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(POLL);
        }
        Err(Failure::Failed("the measured engine does not stop".to_owned()))
    }

    fn get(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(&self.admin)?;
        stream.set_read_timeout(Some(HTTP_TIMEOUT))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.admin)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

/// What an engine has counted at one moment.
pub(super) struct Metrics(String);

impl Metrics {
    /// A metric, summed over its labels where `labels` is contained in them.
    pub(super) fn sum(&self, name: &str, labels: &str) -> f64 {
        let lines = self.0.lines().filter(|line| line.starts_with(name) && line.contains(labels));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads the log lines until the engine ends: the address of its admin listener comes through the channel, warnings are shown.
fn listen(stderr: ChildStderr) -> Receiver<String> {
    let (found, address) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let logged: Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(address) = logged["fields"]["address"].as_str() {
                // Nobody waits any more if the benchmark has ended.
                let _ = found.send(address.to_owned());
            } else if logged["level"] != "INFO" {
                let _ = writeln!(std::io::stderr(), "{line}");
            }
        }
    });
    address
}
