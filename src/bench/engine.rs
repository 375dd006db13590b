//! The measured engine: `finflow run` in a process of its own, so that its CPU and memory are nobody else's.
//! It is killed when it is dropped.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
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
const HTTP_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Engine {
    child: Child,
    admin: String,
    begun: Instant,
}

impl Engine {
    /// Starts it on the topics with this prefix, with the configuration that the benchmark was given.
    pub(super) fn start(common: &Common, prefix: &str, dir: &Path) -> Result<Engine, Failure> {
        let mut program = Command::new(std::env::current_exe()?);
        program.args(["run", "--log", "kafka", "--admin", "127.0.0.1:0", "--log-format", "json"]).arg("--data-dir").arg(dir);
        program.args(common.config.iter().flat_map(|file| ["--config".as_ref(), file.as_os_str()]));
        program.args(common.brokers.iter().flat_map(|brokers| ["--brokers", brokers]));
        program.args(common.properties.iter().flat_map(|property| ["-X", property]));
        program.args(common.set.iter().flat_map(|setting| ["--set", setting]));
        program.args(["--set", &format!("topics.prefix={prefix}")]);
        let begun = Instant::now();
        let mut child = program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
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

    /// A metric, summed over its labels where `labels` is contained in them.
    pub(super) fn metric(&self, name: &str, labels: &str) -> f64 {
        let exposed = self.get("/metrics").unwrap_or_default();
        let lines = exposed.lines().filter(|line| line.starts_with(name) && line.contains(labels));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
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
