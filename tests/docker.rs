//! What can be checked of the image and the composition without Docker: that they name what is there.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

fn read(path: &str) -> String {
    fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands between the first `before` and the next `after`.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let (_, found) = text.split_once(before).unwrap_or_else(|| panic!("no {before}"));
    found.split_once(after).map_or(found, |(found, _)| found)
}

#[test]
fn the_composition_configures_what_is_there() {
    let compose = read("config/ops/docker/compose.yaml");
    let pairs = compose.lines().filter_map(|line| line.trim().split_once(": ").filter(|(key, _)| key.starts_with("FINFLOW__")));
    let environment: BTreeMap<&str, &str> = pairs.map(|(key, value)| (key, value.trim_matches('"'))).collect();
    assert!(8 <= environment.len(), "{environment:?}");
    let dir = tempfile::tempdir().expect("a directory");
    let check = |environment: &BTreeMap<&str, &str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_finflow"));
        command.args(["config", "check"]).current_dir(dir.path()).envs(environment).output().expect("the program runs")
    };
    let output = check(&environment);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let wrong = BTreeMap::from([("FINFLOW__KAFKA__BROKER", "kafka:9092")]);
    assert_eq!(check(&wrong).status.code(), Some(78), "a key that is not there is found");
}

#[test]
fn the_image_is_built_with_what_the_project_is_built_with() {
    let (image, toolchain) = (read("config/ops/docker/Dockerfile"), read("rust-toolchain.toml"));
    assert_eq!(between(&image, "FROM rust:", "-"), between(&toolchain, "channel = \"", "\""));
    let (compose, jars) = (read("config/ops/docker/compose.yaml"), read("config/ops/kafka/pom.xml"));
    assert_eq!(between(&compose, "image: apache/kafka:", "\n"), between(&jars, "<kafka.version>", "<"));
    let script = read("config/ops/kafka/kafka");
    let kept = between(&script, "\noffsets.retention.minutes=", "\n");
    assert_eq!(
        between(&compose, "KAFKA_OFFSETS_RETENTION_MINUTES: \"", "\""),
        kept,
        "positions stay as long as with `make kafka`"
    );
    let makefile = read("Makefile");
    let packages = between(&image, "apt-get install -y -qq ", "\n").split_whitespace();
    for package in packages.filter(|package| *package != "make") {
        assert!(makefile.contains(&format!(",,{package})")), "{package} is none that `make setup` installs");
    }
}
