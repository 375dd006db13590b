//! Rules of the repository that a machine can check: which crate may use which, and the shape of the source files.
//! Needs nothing but the standard library. Each rule is shown to refuse something before it is applied.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Most lines of a file. A ratchet: lowered when the longest file gets shorter, never raised.
const FILE_LINES_MAX: usize = 520;
/// Most characters of a line.
const LINE_CHARS_MAX: usize = 140;

/// Every package with what it may use: to the right of the arrow in `ledger <- state <- topologies <- actors <- root`, never back.
/// The configuration is a leaf, which only the root reads.
const MAY_USE: [(&str, &str, &[&str]); 6] = [
    ("state/ledger", "finflow-ledger", &[]),
    ("state", "finflow-state", &["finflow-ledger"]),
    ("topologies", "finflow-topologies", &["finflow-ledger", "finflow-state"]),
    ("actors", "finflow-actors", &["finflow-ledger", "finflow-state", "finflow-topologies"]),
    ("config", "finflow-config", &[]),
    (".", "finflow", &["finflow-ledger", "finflow-state", "finflow-topologies", "finflow-actors", "finflow-config"]),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names of our own packages that a manifest depends on, for building, running or testing.
fn used(manifest: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut dependencies = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            // `[dependencies]`, `[dev-dependencies]`, `[target.'cfg(..)'.dependencies]`, and `[dependencies.finflow-x]`.
            dependencies = section.ends_with("dependencies") && !section.starts_with("workspace");
            if let Some((_, name)) = section.split_once("dependencies.").filter(|_| !section.starts_with("workspace")) {
                found.push(name.to_owned());
            }
        } else if dependencies && !line.starts_with('#') {
            // A renamed package is still named somewhere in its line.
            let words = line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
            found.extend(words.filter(|word| word.starts_with("finflow")).map(str::to_owned));
        }
    }
    found.retain(|name| name.starts_with("finflow"));
    found
}

#[test]
fn manifests_are_read() {
    let rows: [(&str, &[&str]); 6] = [
        ("[dependencies]\nfinflow-state.workspace = true\nserde = \"1\"", &["finflow-state"]),
        ("[dev-dependencies]\nfinflow-actors = { path = \"../actors\" }", &["finflow-actors"]),
        ("[target.'cfg(unix)'.dependencies]\nx = { package = \"finflow-config\" }", &["finflow-config"]),
        ("[build-dependencies.finflow-ledger]\nworkspace = true", &["finflow-ledger"]),
        ("[package]\nname = \"finflow-state\"\n[lints]\nworkspace = true", &[]),
        ("[workspace.dependencies]\nfinflow-state = { path = \"state\" }", &[]),
    ];
    for (manifest, expected) in rows {
        assert_eq!(used(manifest), expected, "{manifest}");
    }
}

#[test]
fn crates_use_each_other_in_one_direction() {
    for (directory, package, may_use) in MAY_USE {
        let manifest = read(&root().join(directory).join("Cargo.toml"));
        assert!(manifest.contains(&format!("name = \"{package}\"")), "{directory} is {package}");
        for name in used(&manifest) {
            assert!(may_use.contains(&name.as_str()), "{package} must not use {name}");
        }
    }
    let manifest = read(&root().join("Cargo.toml"));
    let members = manifest.lines().find(|line| line.starts_with("members")).expect("a workspace");
    for member in members.split('"').skip(1).step_by(2) {
        assert!(MAY_USE.iter().any(|(directory, ..)| *directory == member), "{member} has no place in the order of crates");
    }
}

/// What is wrong with the source file of this path and text.
fn flaws(path: &str, text: &str) -> Vec<String> {
    // Assembled, so that this file does not hold what it forbids.
    let ignore = concat!("#[", "ignore");
    let sleep = concat!("thread::", "sleep");

    let mut found = Vec::new();
    if path.ends_with("/mod.rs") {
        found.push(format!("{path}: a module is foo.rs beside foo/"));
    }
    if !text.starts_with("//!") {
        found.push(format!("{path}: opens without `//!`"));
    }
    let lines = text.lines().count();
    if FILE_LINES_MAX < lines {
        found.push(format!("{path}: {lines} lines, at most {FILE_LINES_MAX}"));
    }
    let mut tests = path.contains("tests/") || path.ends_with("/tests.rs");
    for (index, line) in text.lines().enumerate() {
        let place = format!("{path}:{}", index + 1);
        tests |= line.contains("#[cfg(test)]") || line.contains("#[test]");
        // A JSON document of a test's data stays on its line, as a record does.
        let is_record = tests && line.contains("{\"");
        if LINE_CHARS_MAX < line.chars().count() && !is_record {
            found.push(format!("{place}: longer than {LINE_CHARS_MAX} characters"));
        }
        if line.trim_start().starts_with(ignore) {
            found.push(format!("{place}: a test is run or deleted"));
        }
        if tests && line.contains(sleep) {
            found.push(format!("{place}: a test polls a condition with a deadline"));
        }
    }
    found
}

#[test]
fn flaws_are_found() {
    let sleep = concat!("//! x\nthread::", "sleep(x)");
    let rows = [
        ("a/src/lane.rs", "//! x\n".to_owned(), None),
        ("a/src/lane/mod.rs", "//! x\n".to_owned(), Some("a/src/lane/mod.rs: a module is")),
        ("a/src/lane.rs", "use std;\n//! x".to_owned(), Some("a/src/lane.rs: opens without")),
        ("a/src/lane.rs", String::new(), Some("a/src/lane.rs: opens without")),
        ("a/src/lane.rs", "//! x\n".repeat(FILE_LINES_MAX), None),
        ("a/src/lane.rs", "//! x\n".repeat(FILE_LINES_MAX + 1), Some("a/src/lane.rs: 521 lines")),
        ("a/src/lane.rs", format!("//!{}", "é".repeat(LINE_CHARS_MAX - 3)), None),
        ("a/src/lane.rs", format!("//! x\n//{}", "x".repeat(LINE_CHARS_MAX - 1)), Some("a/src/lane.rs:2: longer")),
        ("a/tests/lane.rs", format!("//! x\n{{\"a\":{}}}", "1".repeat(LINE_CHARS_MAX)), None),
        ("a/src/lane.rs", concat!("//! x\n  #[", "ignore = \"slow\"]").to_owned(), Some("a/src/lane.rs:2: a test is run")),
        ("a/src/lane.rs", sleep.to_owned(), None),
        ("a/tests/lane.rs", sleep.to_owned(), Some("a/tests/lane.rs:2: a test polls")),
        ("a/src/lane/tests.rs", sleep.to_owned(), Some("a/src/lane/tests.rs:2: a test polls")),
        ("a/src/lane.rs", format!("//! x\n#[cfg(test)]\n{sleep}"), Some("a/src/lane.rs:4: a test polls")),
    ];
    for (path, text, expected) in rows {
        let found = flaws(path, &text);
        match expected {
            None => assert_eq!(found, Vec::<String>::new(), "{path}"),
            Some(start) => assert!(found.len() == 1 && found[0].starts_with(start), "{path}: {found:?}, not {start}"),
        }
    }
}

/// All source files below `directory`, build outputs and hidden directories left out.
fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry")) {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let kind = entry.file_type().expect("a kind of file");
        if kind.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, found);
        } else if kind.is_file() && name.ends_with(".rs") {
            found.push(path);
        }
    }
}

#[test]
fn sources_are_tidy() {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    files.sort();
    assert!(files.iter().any(|path| path.ends_with("tests/tidy.rs")), "the sources are found");

    let name = |path: &Path| path.strip_prefix(root()).unwrap_or(path).to_string_lossy().into_owned();
    let found = files.iter().flat_map(|path| flaws(&name(path), &read(path))).collect::<Vec<_>>();
    assert!(found.is_empty(), "{}", found.join("\n"));
}
