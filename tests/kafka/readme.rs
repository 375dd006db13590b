//! What the README says under "Run it on Kafka", typed line by line: by `make kafka`, whose broker is on a port and in a directory of the
//! test's own, as the listeners are.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::child::Service;
use crate::process::eventually;

const README: &str = include_str!("../../README.md");
/// The port of the second process's admin listener in the README.
const ADMIN: &str = "127.0.0.1:9465";
/// What `finflow wallet show alice` tells of the example once all of it is carried out, in the README's tour too.
const BALANCE: &str = "available 87.50";

/// The lines that are typed, each without its remark.
fn lines() -> Vec<&'static str> {
    let section = README.split("\n## Run it on Kafka\n").nth(1).and_then(|rest| rest.split("\n##").next()).expect("the section");
    let scripts = section.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let typed = scripts.flat_map(str::lines).map(|line| line.split(" #").next().unwrap_or(line).trim());
    typed.filter(|line| !line.is_empty()).collect()
}

/// The broker that `make kafka` has started.
struct Made(PathBuf);

impl Made {
    fn kafka(dir: &Path) -> Made {
        let made = Made(dir.to_owned());
        let mut make = Command::new("make");
        // What it needs is here, or no other broker would run.
        make.args(["-o", "setup", "kafka", "KAFKA_PORT=0", &format!("KAFKA_DIR={}", dir.display())]);
        // It may be a make that runs this.
        make.current_dir(env!("CARGO_MANIFEST_DIR")).env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
        let started = make.output().expect("make");
        assert!(started.status.success(), "{}", told(&started));
        assert!(told(&made.script("status")).contains("answers on"), "{}", told(&made.script("status")));
        made
    }

    fn port(&self) -> String {
        std::fs::read_to_string(self.0.join("port")).expect("the port that it has picked").trim().to_owned()
    }

    fn script(&self, act: &str) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/ops/kafka/kafka");
        Command::new(script).arg(act).arg(&self.0).output().expect("the script")
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let wiped = self.script("wipe");
        if !wiped.status.success() {
            eprintln!("the broker in {} may still run: {}", self.0.display(), told(&wiped));
        }
    }
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Two ports that nobody listens on.
fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"));
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}

pub(crate) fn what_the_readme_says_is_typed() {
    let dir = tempfile::tempdir().expect("a directory");
    let made = Made::kafka(&dir.path().join("kafka"));
    let [first, second] = free_ports();
    std::fs::create_dir_all(dir.path().join("config/examples")).expect("a directory");
    for example in ["config/examples/wallets.jsonl", "config/examples/payments.jsonl"] {
        std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join(example), dir.path().join(example)).expect("a file");
    }
    let mut exported = vec![
        ("FINFLOW__KAFKA__BOOTSTRAP_SERVERS".to_owned(), format!("127.0.0.1:{}", made.port())),
        ("FINFLOW__ADMIN__LISTEN".to_owned(), format!("127.0.0.1:{first}")),
    ];
    let mut services = Vec::new();
    let (mut typed, mut shown, mut left) = (0, false, false);
    for line in lines() {
        typed += 1;
        if let Some((name, value)) = line.strip_prefix("export ").and_then(|rest| rest.split_once('=')) {
            exported.push((name.to_owned(), value.to_owned()));
            continue;
        }
        let line = line.replace(ADMIN, &format!("127.0.0.1:{second}"));
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[0], "finflow", "{line}");
        let command = || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_finflow"));
            command.args(&words[1..]).current_dir(dir.path()).stdin(Stdio::null()).envs(exported.iter().cloned());
            command
        };
        if words[1] == "run" {
            let place = words.iter().skip_while(|word| **word != "--data-dir").nth(1).expect("a directory");
            let logged = dir.path().join(format!("{place}.txt"));
            let log = std::fs::File::create(&logged).expect("a file");
            let mut service = Service(command().stderr(log).spawn().expect("the program runs"));
            let socket = dir.path().join(place).join("finflow.sock");
            eventually(|| {
                let ended = service.0.try_wait().expect("a child");
                assert!(ended.is_none(), "{line}: {}", std::fs::read_to_string(&logged).unwrap_or_default());
                std::os::unix::net::UnixStream::connect(&socket).map(drop).map_err(|error| error.to_string())
            });
            services.push(service);
            continue;
        }
        // A command may have to be asked again while a partition is on its way, and one that was published is carried out a moment later.
        let says = if words[1..3] == ["wallet", "show"] { BALANCE } else { "" };
        let printed = eventually(|| match command().output().expect("the program runs") {
            output if output.status.success() && told(&output).contains(says) => Ok(told(&output)),
            output => Err(format!("{line}: {}", told(&output))),
        });
        shown |= !says.is_empty();
        left |= words[1] == "leave";
        assert!(left || !printed.is_empty(), "{line} prints nothing");
    }
    assert!(7 <= typed && services.len() == 2 && shown && left, "{typed} lines");
    let mut second = services.pop().expect("two of them");
    eventually(|| match second.0.try_wait().expect("a child") {
        Some(status) if status.success() => Ok(()),
        other => Err(format!("it was told to leave: {other:?}")),
    });
    drop(services);
    let wiped = made.script("wipe");
    assert!(wiped.status.success() && !made.0.exists(), "{}", told(&wiped));
}
