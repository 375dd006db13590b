//! The program as tests run it: each in a directory of its own, and a service that does not outlive its test.

#![allow(dead_code, reason = "each test uses its part")]

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn finflow(dir: &Path, arguments: &[&str]) -> Output {
    command(dir, arguments).output().expect("the program runs")
}

/// The same with something to read.
pub(crate) fn fed(mut command: Command, input: &[u8]) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
    // Who refuses its arguments reads nothing.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    child.wait_with_output().expect("the program ends")
}

pub(crate) fn command(dir: &Path, arguments: &[&str]) -> Command {
    command_by(Command::new(env!("CARGO_BIN_EXE_finflow")), dir, arguments)
}

/// The program where no more than so many files may be open.
pub(crate) fn command_with_files(limit: u32, dir: &Path, arguments: &[&str]) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!(r#"ulimit -n {limit}; exec "$0" "$@""#)).arg(env!("CARGO_BIN_EXE_finflow"));
    command_by(shell, dir, arguments)
}

fn command_by(mut command: Command, dir: &Path, arguments: &[&str]) -> Command {
    command.args(arguments).arg("--data-dir").arg(dir.join("data")).current_dir(dir).stdin(Stdio::null()).env_remove("RUST_LOG");
    command
}

pub(crate) fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect()
}

pub(crate) fn json(dir: &Path, arguments: &[&str]) -> Vec<Value> {
    let output = finflow(dir, &[arguments, &["--format", "json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    lines(&output)
}

/// A service that is killed when the test ends, however it ends.
pub(crate) struct Service {
    pub(crate) child: Child,
}

impl Service {
    pub(crate) fn of(child: Child) -> Service {
        Service { child }
    }

    pub(crate) fn start(dir: &Path) -> Service {
        let mut command = command(dir, &["run", "--set", "lanes=2", "--admin", "127.0.0.1:0"]);
        let service = Service::of(command.stderr(Stdio::null()).spawn().expect("the program runs"));
        service.until_it_answers(dir);
        service
    }

    /// No other command may ask before: it would open the directory itself and keep the service out.
    pub(crate) fn until_it_answers(&self, dir: &Path) {
        let until = Instant::now() + PATIENCE;
        while std::os::unix::net::UnixStream::connect(dir.join("data/finflow.sock")).is_err() {
            assert!(Instant::now() < until, "the service does not answer");
            std::thread::yield_now();
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
