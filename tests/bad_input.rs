//! Bad input through the program: the catalogue with `publish --raw`, files of lines, and what a configuration may not be.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use finflow_ledger::WalletId;
use finflow_topologies::topics::partition_of_wallet;
use serde_json::{Value, json};

use self::catalogue::{Outcome, Row, catalogue, opening};
use self::program::{Service, command, fed, finflow, json, lines};

#[path = "../topologies/tests/bad_input/catalogue.rs"]
mod catalogue;
#[path = "support/program.rs"]
mod program;

const PARTITIONS: u32 = 8;
/// No argument may be longer on Linux.
const ARGUMENT_BYTES_MAX: usize = 128 * 1024;

/// Whether a command line can say it: no null value, no NUL and nothing too long in an argument.
fn can_be_typed(row: &Row) -> bool {
    let arguments = row.key.iter().chain(row.headers.iter().map(|(_, value)| value));
    row.value.is_some() && arguments.into_iter().all(|bytes| !bytes.contains(&0) && bytes.len() < ARGUMENT_BYTES_MAX - 100)
}

/// Where a producer sends it; see the same in the catalogue's other test.
fn partition(row: &Row) -> u32 {
    let command: Option<Value> = row.value.as_deref().and_then(|value| serde_json::from_slice(value).ok());
    let wallet = command.and_then(|command| WalletId::parse(command["wallet"].as_str()?));
    (wallet.map_or(0, |wallet| partition_of_wallet(&wallet, PARTITIONS)) + row.astray) % PARTITIONS
}

fn publish(dir: &Path, row: &Row) -> Value {
    let mut command =
        command(dir, &["publish", "-", "--raw", "--wait", "--format", "json", "--partition", &partition(row).to_string()]);
    if let Some(key) = &row.key {
        command.arg("--key").arg(OsStr::from_bytes(key));
    }
    for (name, value) in &row.headers {
        command.arg("--header").arg(OsStr::from_bytes(&[name.as_bytes(), b"=", value].concat()));
    }
    let output = fed(command, row.value.as_deref().unwrap_or_default());
    assert!(output.status.success(), "{}: {}", row.name, String::from_utf8_lossy(&output.stderr));
    lines(&output).remove(0)
}

#[test]
fn the_catalogue_ends_as_the_contract_says() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join("data")).expect("a directory");
    let _service = Service::start(dir.path());
    let commands: Vec<String> = opening().into_iter().map(|(_, command)| command).collect();
    std::fs::write(dir.path().join("opening.jsonl"), commands.join("\n")).expect("a file");
    assert_eq!(json(dir.path(), &["publish", "opening.jsonl", "--wait"])[0]["rejected"], 0);

    let rows: Vec<Row> = catalogue().into_iter().filter(can_be_typed).collect();
    let mut dead = Vec::new();
    for row in &rows {
        let (settled, rejected, dead_lettered, duplicates) = match row.outcome {
            Outcome::Done(_) => (1, 0, 0, 0),
            Outcome::Duplicate => (1, 0, 0, 1),
            Outcome::Refused(..) => (0, 1, 0, 0),
            Outcome::Dead(code) => {
                dead.push(code.to_owned());
                (0, 0, 1, 0)
            }
        };
        let expected = json!({
            "published": 1, "refused": 0, "settled": settled, "rejected": rejected, "dead_lettered": dead_lettered,
            "applied": 0, "duplicates": duplicates, "unanswered": 0,
        });
        assert_eq!(publish(dir.path(), row), expected, "{}", row.name);
    }
    let listed = json(dir.path(), &["dlq", "list"]);
    let mut codes: Vec<String> = listed.iter().map(|line| line["code"].as_str().unwrap_or_default().to_owned()).collect();
    codes.sort();
    dead.sort();
    assert_eq!(codes, dead);
    let place = listed[0]["place"].as_str().expect("a place");
    assert_eq!(json(dir.path(), &["dlq", "show", place])[0]["headers"]["x-error-code"], listed[0]["code"]);
    assert_eq!(json(dir.path(), &["wallet", "show", "frozen"])[0]["ledger"], "10.00");
    let verified = json(dir.path(), &["state", "verify"]);
    assert!(verified.iter().all(|partition| partition["differences"] == json!([])), "{verified:?}");
}

const OPEN: &str = r#"{"type":"open_wallet","tenant":"acme","idempotency_key":"o","wallet":"W","currency":"AED","country":"AE","kind":"personal","holder":"H"}"#;

#[test]
fn lines_are_refused_by_number_and_the_rest_is_published() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = |wallet: &str| OPEN.replace("\"W\"", &format!("\"{wallet}\""));
    let long = format!("{{\"wallet\":\"a\",\"x\":\"{}\"}}", "x".repeat(3 << 20));
    let file =
        [&open("a"), "", "\u{feff}{}", &open("b"), "[1]", &open("c d"), &long, "  \r", &open("a"), &open("e")].join("\r\n");
    let output = fed(command(dir.path(), &["publish", "-", "--wait", "--format", "json"]), file.as_bytes());
    let errors = String::from_utf8_lossy(&output.stderr);
    let refused: Vec<&str> = errors.lines().filter(|line| line.starts_with("line ")).collect();
    let expected =
        ["line 3: not a JSON object", "line 5: not a JSON object", "line 6: no valid wallet", "line 7: longer than 65536 bytes"];
    assert_eq!(refused, expected);
    assert_eq!(output.status.code(), Some(1));
    let told = json!({
        "published": 4, "refused": 4, "settled": 0, "rejected": 0, "dead_lettered": 0, "applied": 4, "duplicates": 1, "unanswered": 0,
    });
    assert_eq!(lines(&output), vec![told]);
    // Without --wait nothing is claimed about what became of them.
    let output = fed(command(dir.path(), &["publish", "-", "--format", "json"]), open("f").as_bytes());
    assert_eq!(lines(&output), vec![json!({ "published": 1, "refused": 0 })]);
    assert_eq!(json(dir.path(), &["wallet", "list"]).len(), 4);
}

#[test]
fn what_no_log_takes_is_refused_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    for (arguments, input, code, told) in [
        (&["--raw", "--key", "k"][..], vec![b'x'; 256 << 10], 1, "262145 bytes; at most 262144 are taken"),
        (&["--raw", "--key", "k"], vec![b'x'; 4 << 20], 1, "at most 262144 are taken"),
        (&["--raw", "--partition", "8"], vec![], 1, "there is no partition 8: they are 0 to 7"),
        (&["--raw"], vec![], 2, "for example: finflow publish"),
        (&["--raw", "--key", "k", "--header", "novalue"], vec![], 2, "a header is NAME=VALUE"),
        (&["--key", "k"], vec![], 2, "--raw"),
    ] {
        let output = fed(command(dir.path(), &[&["publish", "-"], arguments].concat()), &input);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), errors.lines().count()), (Some(code), 1), "{arguments:?}: {errors}");
        assert!(errors.contains(told), "{arguments:?}: {errors}");
    }
    let largest = fed(
        command(dir.path(), &["publish", "-", "--raw", "--key", "k", "--wait", "--format", "json"]),
        &vec![b'x'; (256 << 10) - 1],
    );
    assert_eq!(lines(&largest)[0]["dead_lettered"], 1);
    let dead = json(dir.path(), &["tail", "dlq", "--from", "beginning", "--exit-at-end"]);
    assert_eq!(dead[0]["headers"]["x-error-code"], "too_large");
    assert_eq!(dead[0]["value_base64"].as_str().map(str::len), Some((256_usize << 10).saturating_sub(1).div_ceil(3) * 4));
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let dir = tempfile::tempdir().expect("a directory");
    let poison = "{\"wallet\":\"a\"}\n".repeat(20_000);
    assert!(fed(command(dir.path(), &["publish", "-"]), poison.as_bytes()).status.success());
    for arguments in [&["tail", "commands", "--from", "beginning"][..], &["dlq", "list"], &["tail", "dlq", "--from", "beginning"]]
    {
        let mut child =
            command(dir.path(), arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
        let mut first = [0];
        std::io::Read::read_exact(child.stdout.as_mut().expect("a pipe"), &mut first).expect("a first byte");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("the program ends");
        assert_eq!((output.status.code(), &*String::from_utf8_lossy(&output.stderr)), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn every_problem_of_a_configuration_is_told_with_its_place() {
    // The rows of the reliability notes, 4.3, that need files and variables; the rest is in config/tests/load.rs.
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).expect("a file");
    file("empty.toml", b"");
    file("latin.toml", b"# gr\xfc\xdfe\nlanes = 1\n");
    file("typo.toml", b"[topics]\npartitons = 4\n");
    file("syntax.toml", b"lanes = = 1\n");
    file("marked.toml", b"\xef\xbb\xbflanes = 2\n");
    std::fs::create_dir(dir.path().join("directory.toml")).expect("a directory");
    let check = |arguments: &[&str], variables: &[(&str, &[u8])], code: i32, told: &[&str]| {
        let mut command = command(dir.path(), &[&["config", "check"], arguments].concat());
        command.envs(variables.iter().map(|(name, value)| (*name, OsStr::from_bytes(value))));
        let output = command.output().expect("the program runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert_eq!(errors.lines().count(), told.len(), "{arguments:?}: {errors}");
        told.iter().for_each(|told| assert!(errors.contains(told), "{arguments:?}: {told}: {errors}"));
    };
    check(&[], &[], 0, &[]);
    check(&["--config", "empty.toml"], &[("FINFLOW__LANES", b"2")], 0, &[]);
    check(&["--config", "marked.toml"], &[], 0, &[]);
    check(&[], &[("OTHERS_SECRET", b"\xff\xfe")], 0, &[]);
    check(&["--config", "missing.toml"], &[], 78, &["missing.toml: No such file"]);
    check(&["--config", "directory.toml"], &[], 78, &["directory.toml: Is a directory"]);
    check(&["--config", "latin.toml"], &[], 78, &["latin.toml: stream did not contain valid UTF-8"]);
    check(&[], &[("FINFLOW__NODE__ID", b"\xff")], 78, &["variable FINFLOW__NODE__ID: is not UTF-8"]);
    check(&[], &[("RUST_LOG", b"finflow=loud")], 78, &["variable RUST_LOG"]);
    let all = ["--config", "missing.toml", "--config", "typo.toml", "--config", "syntax.toml", "--set", "lanes=0"];
    let told = [
        "missing.toml: No such file",
        "typo.toml:2:1: unknown key `topics.partitons`; did you mean",
        "syntax.toml:1:9",
        "syntax.toml:1:11",
        "--set lanes:",
    ];
    check(&all, &[("FINFLOW__EPOCH__INTERVAL", b"10")], 78, &[&told[..], &["variable FINFLOW__EPOCH__INTERVAL"]].concat());
    // 3: who may read the file has the secret. 40 and what exactly-once rests on: what the engine does not send or leave to others.
    for (mode, code, told) in
        [(0o644, 78, &["secret.toml: holds a secret, and every user"][..]), (0o640, 0, &[]), (0o600, 0, &[])]
    {
        let of_bucket = "[snapshots]\naccess_key_id = \"a\"\nsecret_access_key = \"s\"\n";
        for text in ["internal.secret = \"s\"\n", "[kafka]\n\"sasl.password\" = \"s\"\n", of_bucket] {
            file("secret.toml", text.as_bytes());
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(dir.path().join("secret.toml"), mode).expect("a file");
            check(&["--config", "secret.toml"], &[], code, told);
        }
    }
    for (properties, told) in [
        (&["enable.auto.commit=true", "acks=1"][..], &["-X: acks cannot be set", "-X: enable.auto.commit cannot"][..]),
        (&["delivery.timeout.ms=1"], &["-X: delivery.timeout.ms cannot be set"]),
        (&["foo.bar=1"], &["-X: foo.bar is no property of the Kafka client library"]),
        (&["bootstrap.servers=a:1"], &["-X: bootstrap.servers cannot be set here"]),
        (&["security.protocol=sasl_plaintext", "sasl.mechanism=PLAIN"], &["sasl.mechanism: PLAIN sends the password as it is"]),
        (&["client.rack=a"], &[]),
    ] {
        let set: Vec<&str> = properties.iter().flat_map(|property| ["-X", property]).collect();
        check(&[&["--log", "kafka"], &set[..]].concat(), &[], if told.is_empty() { 0 } else { 78 }, told);
    }
    // Each by its own name and in its own place, whatever the log is.
    let properties: &[u8] = b"[kafka]\n\"acks\" = \"0\"\nsecurity.protokol = \"ssl\"\nbrokers = \"a:1\"\n\
        [kafka.trim]\n\"enable.idempotence\" = false\n\"bootstrap.servers\" = \"a:1\"\n";
    file("kafka.toml", properties);
    let told = [
        "kafka.toml:2:10: `kafka.acks` cannot be set, the engine's exactly-once or its memory rests on it",
        "kafka.toml:3:21: `kafka.\"security.protokol\"` is no property of the Kafka client library; did you mean \"security.protocol\"?",
        "kafka.toml:4:11: `kafka.brokers` is no property of the Kafka client library",
        "kafka.toml:6:24: `kafka.trim.\"enable.idempotence\"` cannot be set, the engine's",
        "kafka.toml:7:23: `kafka.trim.\"bootstrap.servers\"` cannot be set here",
    ];
    for log in ["embedded", "kafka"] {
        check(&["--log", log, "--config", "kafka.toml"], &[], 78, &told);
    }
    // By two names, also from two places; the trimmer's own are others.
    let queue = "kafka.\"queue.buffering.max.ms\"=1";
    check(&["--set", queue, "--set", "kafka.trim.\"linger.ms\"=2"], &[], 0, &[]);
    check(
        &["--set", "kafka.\"linger.ms\"=2", "--set", queue],
        &[],
        78,
        &["`kafka.\"queue.buffering.max.ms\"` is the same property as linger.ms"],
    );
    check(
        &["--set", "kafka.\"linger.ms\"=long"],
        &[],
        78,
        &["--set kafka.\"linger.ms\": `kafka.\"linger.ms\"` has a value that"],
    );
    check(&[], &[("FINFLOW__KAFKA__RETRIES", b"1")], 78, &["variable FINFLOW__KAFKA__RETRIES: `kafka.retries` cannot be set"]);
    check(&["--log", "kafka"], &[("FINFLOW__KAFKA__CLIENT_ID", b"a"), ("FINFLOW__KAFKA__TRIM__CLIENT_ID", b"b")], 0, &[]);
    // A bucket needs somebody who asks there, whom the environment may name; what is refused is not repeated.
    let key = [("AWS_ACCESS_KEY_ID", &b"id"[..]), ("AWS_SECRET_ACCESS_KEY", b"secret")];
    let nobody =
        [("AWS_ACCESS_KEY_ID", &b""[..]), ("AWS_WEB_IDENTITY_TOKEN_FILE", b""), ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", b"")];
    let bucket = ["--set", "snapshots.url=s3://payments/finflow"];
    check(&bucket, &key, 0, &[]);
    check(&bucket, &nobody, 78, &["snapshots.url is a bucket, and nobody asks there: set snapshots.access_key_id and"]);
    check(
        &["--set", "snapshots.url=s3://id:secret@payments"],
        &key,
        78,
        &["--set snapshots.url: `snapshots.url` must be \"file:///"],
    );
    // 36, 37 and 34: what the directory and the machine say against it, before anything begins.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("an address").to_string();
    let long = dir.path().join("x".repeat(120));
    std::fs::create_dir(&long).expect("a directory");
    for (base, admin, told) in
        [(dir.path(), &*taken, "admin.listen 127.0.0.1:"), (&long, "127.0.0.1:0", "--data-dir: its socket")]
    {
        let output = finflow(base, &["run", "--admin", admin]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), errors.lines().count()), (Some(78), 1), "{errors}");
        assert!(errors.contains(told) && !base.join("data").exists(), "{errors}");
    }
    // What is to outlive the data cannot lie in it.
    for inside in ["data/shared", "data"] {
        let url = format!("snapshots.url=file://{}", dir.path().join(inside).display());
        let output = finflow(dir.path(), &["run", "--admin", "127.0.0.1:0", "--set", "snapshots.shared=true", "--set", &url]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{errors}");
        assert!(errors.contains("snapshots.url lies in the data directory") && !dir.path().join("data").exists(), "{errors}");
    }
    // A directory is refused with another log or application than it was first used with, before anybody is asked.
    assert!(finflow(dir.path(), &["publish", "empty.toml"]).status.success());
    for (asked, told) in [
        (
            &["run", "--log", "kafka", "--admin", "127.0.0.1:0"][..],
            "finflow on the embedded log, not to finflow on Kafka: name another",
        ),
        (
            &["publish", "empty.toml", "--set", "topics.prefix=other"],
            "finflow on the embedded log, not to other on the embedded log",
        ),
    ] {
        let output = finflow(dir.path(), asked);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(78) && errors.contains(told), "{errors}");
    }
    let _service = Service::start(dir.path());
    let second = finflow(dir.path(), &["run", "--admin", "127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(75), "{}", String::from_utf8_lossy(&second.stderr));
}
