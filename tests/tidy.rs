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

/// Every file that people or programs read, with its path below the root.
fn texts() -> Vec<(String, String)> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry")) {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let kind = entry.file_type().expect("a kind of file");
            let is_hidden = name.starts_with('.') && name != ".ci";
            if kind.is_dir() && name != "target" && !is_hidden {
                walk(&path, found);
            } else if kind.is_file() && !is_hidden && name != "Cargo.lock" {
                found.push(path);
            }
        }
    }
    let mut files = Vec::new();
    walk(&root(), &mut files);
    files.sort();
    let named = |path: PathBuf| {
        let text = fs::read_to_string(&path).ok()?;
        Some((path.strip_prefix(root()).unwrap_or(&path).to_string_lossy().into_owned(), text))
    };
    files.into_iter().filter_map(named).collect()
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    // Assembled, so that this file does not hold what it forbids.
    let forbidden = [
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/"),
        concat!("../sha", "red"),
        concat!("/ho", "me/"),
        concat!("arti", "factory"),
    ];
    let found = |text: &str| forbidden.iter().find(|word| text.contains(**word)).copied();
    assert_eq!(found(concat!("see /ro", "ot/x")), Some(forbidden[0]));
    assert_eq!(found("$HOME/.cache and ./finflow-data"), None);
    let texts = texts();
    assert!(texts.iter().any(|(path, _)| path == "README.md") && texts.iter().any(|(path, _)| path == "Makefile"));
    for (path, text) in texts {
        assert_eq!(found(&text), None, "{path}");
    }
}

/// A constant of a catalogue of metrics.
#[derive(Debug, PartialEq)]
struct Metric {
    constant: String,
    name: String,
    /// What its `CATALOGUE` has for it.
    entry: Option<(Vec<String>, String)>,
}

/// The constants of a catalogue of metrics.
fn metrics(text: &str) -> Vec<Metric> {
    let constants = text.lines().filter_map(|line| {
        let (constant, rest) = line.trim().strip_prefix("pub const ")?.split_once(": &str = \"")?;
        Some((constant.to_owned(), rest.split('"').next()?.to_owned()))
    });
    let entry = |constant: &str| {
        let entry = text.split(&format!("({constant}, &[")).nth(1)?;
        let (labels, rest) = entry.split_once("], ")?;
        Some((quoted(labels), quoted(rest).into_iter().next()?))
    };
    constants.map(|(constant, name)| Metric { entry: entry(&constant), constant, name }).collect()
}

/// The literals of a text that holds no escapes.
fn quoted(text: &str) -> Vec<String> {
    text.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The labels of a use of a metric, from behind the bracket of the macro on; `None` where they are not literals.
fn labels_used(text: &str) -> Option<Vec<String>> {
    let mut depth = 1;
    let end = text.find(|next: char| {
        depth += i32::from(next == '(') - i32::from(next == ')');
        depth == 0
    });
    let arguments = text.get(..end?)?;
    let mut parts: Vec<&str> = arguments.split("\" =>").collect();
    parts.pop();
    let mut labels: Vec<String> = parts.into_iter().filter_map(|part| Some(part.rsplit('"').next()?.to_owned())).collect();
    labels.sort();
    (!arguments.contains('&')).then_some(labels)
}

/// What is wrong with a metric, by the conventions of Prometheus.
fn metric_flaw(name: &str, help: Option<&str>) -> Option<&'static str> {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if !name.starts_with("finflow_") || !name.bytes().all(is_word) || name.contains("__") {
        return Some("is no name such as finflow_epochs_total");
    }
    if ["_ms", "_millis", "_us", "_micros", "_kb", "_mb", "_percent", "_count"].iter().any(|unit| name.ends_with(unit)) {
        return Some("is not in seconds, bytes, ratios or totals");
    }
    match help {
        None => Some("is not in the catalogue"),
        Some(help) if help.len() < 10 || help.ends_with('.') || !help.starts_with(char::is_uppercase) => {
            Some("has no help that helps")
        }
        Some(_) => None,
    }
}

#[test]
fn flawed_metrics_are_found() {
    let text = concat!(
        "pub const A: &str = \"finflow_a_total\";\npub const B: &str = \"b\";\n",
        "= [\n    (A, &[\"x\", \"y\"], \"Things counted\"),\n];"
    );
    let entry = Some((vec!["x".to_owned(), "y".to_owned()], "Things counted".to_owned()));
    let found = metrics(text);
    assert_eq!(found[0], Metric { constant: "A".to_owned(), name: "finflow_a_total".to_owned(), entry });
    assert_eq!(found[1], Metric { constant: "B".to_owned(), name: "b".to_owned(), entry: None });
    let uses: [(&str, Option<&[&str]>); 5] = [
        ("A).set(\"z\")", Some(&[])),
        ("A, \"x\" => f(1)).increment(1)", Some(&["x"])),
        ("A, \"y\" => \"z\", \"x\" => 1)", Some(&["x", "y"])),
        ("A, &labels)", None),
        ("A", None),
    ];
    for (used, labels) in uses {
        assert_eq!(labels_used(used), labels.map(|labels| labels.iter().map(|label| (*label).to_owned()).collect()), "{used}");
    }
    let rows = [
        ("finflow_epochs_total", Some("Epochs by outcome"), None),
        ("epochs_total", Some("Epochs by outcome"), Some("is no name such as finflow_epochs_total")),
        ("finflow_Epochs", Some("Epochs by outcome"), Some("is no name such as finflow_epochs_total")),
        ("finflow_commit_ms", Some("Time of a commit"), Some("is not in seconds, bytes, ratios or totals")),
        ("finflow_epochs_total", None, Some("is not in the catalogue")),
        ("finflow_epochs_total", Some(""), Some("has no help that helps")),
    ];
    for (name, help, flaw) in rows {
        assert_eq!(metric_flaw(name, help), flaw, "{name}");
    }
}

#[test]
fn metrics_are_catalogued_and_used_by_their_constants() {
    let texts = texts();
    let mut known: Vec<Metric> = Vec::new();
    for (path, text) in texts.iter().filter(|(path, _)| path.ends_with("/metrics.rs")) {
        for metric in metrics(text) {
            let help = metric.entry.as_ref().map(|(_, help)| help.as_str());
            assert_eq!(metric_flaw(&metric.name, help), None, "{path}: {}", metric.name);
            assert!(!known.iter().any(|other| other.name == metric.name), "{} stands twice", metric.name);
            known.push(metric);
        }
    }
    assert!(5 < known.len(), "the catalogues are found");
    let mut unused: Vec<&str> = known.iter().map(|metric| metric.constant.as_str()).collect();
    for (path, text) in texts.iter().filter(|(path, _)| path.ends_with(".rs") && path != "tests/tidy.rs") {
        for (kind, suffix) in [("::counter!(", "_total"), ("::histogram!(", "_duration_seconds"), ("::gauge!(", "")] {
            for used in text.split(kind).skip(1) {
                let word = used.trim_start().split([',', ')']).next().unwrap_or_default().trim();
                let constant = word.rsplit("::").next().unwrap_or_default();
                let metric = known.iter().find(|metric| metric.constant == constant);
                let Metric { name, entry, .. } = metric.unwrap_or_else(|| panic!("{path}: {kind}{word} is in no catalogue"));
                assert!(name.ends_with(suffix), "{path}: {name} is used with {kind}");
                if let Some(labels) = labels_used(used) {
                    assert_eq!(entry.as_ref().map(|(catalogued, _)| catalogued), Some(&labels), "{path}: labels of {name}");
                }
                unused.retain(|unused| *unused != constant);
            }
        }
    }
    assert_eq!(unused, Vec::<&str>::new(), "catalogued, and used by nothing");
}

/// Functions with their lines, roughly: from `fn` to the closing brace of the same depth.
fn functions(text: &str) -> Vec<(usize, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let start = line.trim_start();
        let words = start.split_once("fn ").filter(|(before, _)| {
            before.split(' ').all(|word| word.is_empty() || word.starts_with("pub") || word == "async" || word == "const")
        });
        let Some((_, rest)) = words else { continue };
        let closing = format!("{}}}", &line[..line.len() - start.len()]);
        if let Some(length) = lines[index..].iter().position(|line| *line == closing) {
            found.push((length + 1, rest.split(['(', '<']).next().unwrap_or_default().to_owned()));
        }
    }
    found
}

/// Printed with `cargo test --test tidy -- --nocapture`: where to look first for what could be shorter.
#[test]
fn sizes_are_reported() {
    assert_eq!(
        functions("    pub(crate) async fn a<T>(\n    ) {\n        if x {\n        }\n    }\n"),
        vec![(5, "a".to_owned())]
    );
    let sources: Vec<_> = texts().into_iter().filter(|(path, _)| path.ends_with(".rs")).collect();
    let mut files: Vec<_> = sources.iter().map(|(path, text)| (text.lines().count(), path.clone())).collect();
    let named = |(path, text): &(String, String)| {
        functions(text).into_iter().map(|(lines, name)| (lines, format!("{path}: {name}"))).collect::<Vec<_>>()
    };
    let mut functions: Vec<_> = sources.iter().flat_map(named).collect();
    let all: usize = files.iter().map(|(lines, _)| lines).sum();
    println!("{} files, {all} lines; {} functions", files.len(), functions.len());
    for sizes in [&mut files, &mut functions] {
        sizes.sort_by(|a, b| b.cmp(a));
        sizes.iter().take(10).for_each(|(lines, name)| println!("  {lines:>5}  {name}"));
    }
    assert!(functions.iter().any(|(_, name)| name.ends_with(": sizes_are_reported")), "functions are found");
}

const MAP: &str = include_str!("../ARCHITECTURE.md");

/// The code spans of a text, each with the prose between it and the next one.
fn spans(text: &str) -> Vec<(&str, String)> {
    let parts: Vec<&str> = text.split('`').collect();
    let prose = |index: usize| parts.get(index).unwrap_or(&"").split_whitespace().collect::<Vec<_>>().join(" ");
    (1..parts.len()).step_by(2).map(|index| (parts[index], prose(index + 1))).collect()
}

fn is_name(span: &str) -> bool {
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    span.split("::").all(is_word)
}

/// Paths of source files that a text names, each with the names that it says are there: `path.rs`, `a` and `b`; or `a` in `path.rs`.
fn places(text: &str) -> Vec<(String, Vec<String>)> {
    let spans = spans(text);
    let mut found = Vec::new();
    for (index, (path, _)) in spans.iter().enumerate().filter(|(_, (span, _))| span.ends_with(".rs")) {
        let mut names = Vec::new();
        if let Some((name, _)) =
            index.checked_sub(1).map(|before| &spans[before]).filter(|(name, prose)| prose == "in" && is_name(name))
        {
            names.push((*name).to_owned());
        }
        let joined = |index: usize| matches!(spans[index].1.as_str(), "," | "and" | "or" | "(");
        let behind = (index + 1..spans.len()).take_while(|index| joined(index - 1) && is_name(spans[*index].0));
        names.extend(behind.map(|index| spans[index].0.to_owned()));
        found.push(((*path).to_owned(), names));
    }
    found
}

/// Whether a source defines this function, type, constant or, for `Type::name`, both of them.
fn defines(source: &str, name: &str) -> bool {
    let is_defined = |word: &str| {
        let kinds = ["fn ", "struct ", "enum ", "trait ", "type ", "const ", "impl ", "for "];
        let is_whole = |rest: &str| !rest.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '_');
        kinds.iter().any(|kind| source.split(&format!("{kind}{word}")).skip(1).any(is_whole))
    };
    name.split("::").all(is_defined)
}

#[test]
fn places_on_a_map_are_read() {
    let text =
        "See `a/b.rs`,\n  `Lane::offer` and `round` (`c.rs`, `x`, `d/e.rs`). It is `f` in `g.rs`, which `h` uses; `i.rs` is `j`.";
    let rows: [(&str, &[&str]); 5] =
        [("a/b.rs", &["Lane::offer", "round"]), ("c.rs", &["x"]), ("d/e.rs", &[]), ("g.rs", &["f"]), ("i.rs", &[])];
    let expected = rows.map(|(path, names)| (path.to_owned(), names.iter().map(|name| (*name).to_owned()).collect()));
    assert_eq!(places(text), expected);
    for (source, name, expected) in [
        ("pub fn offer(", "offer", true),
        ("fn offers(", "offer", false),
        ("impl Lane {\n fn offer<T>(", "Lane::offer", true),
        ("impl State {\n fn offer(", "Lane::offer", false),
        ("self.offer()", "offer", false),
    ] {
        assert_eq!(defines(source, name), expected, "{source}: {name}");
    }
}

#[test]
fn every_place_on_the_map_exists() {
    let sources: Vec<_> = texts().into_iter().filter(|(path, _)| path.ends_with(".rs")).collect();
    let places = places(MAP);
    assert!(60 < places.len() && places.iter().filter(|(_, names)| !names.is_empty()).count() > 20, "{places:?}");
    let mut flaws = Vec::new();
    for (place, names) in places {
        let is_meant = |path: &str| path == place || path.ends_with(&format!("/{place}"));
        // A path from the root is meant exactly, however many others end in it.
        let exact = sources.iter().filter(|(path, _)| *path == place);
        let meant: Vec<_> = if exact.clone().count() == 1 {
            exact.collect()
        } else {
            sources.iter().filter(|(path, _)| is_meant(path)).collect()
        };
        match meant[..] {
            [(path, source)] => {
                flaws.extend(names.iter().filter(|name| !defines(source, name)).map(|name| format!("{path} has no {name}")))
            }
            [] => flaws.push(format!("{place} does not exist")),
            _ => flaws.push(format!("{place} may be any of {:?}", meant.iter().map(|(path, _)| path).collect::<Vec<_>>())),
        }
    }
    let roots = ["actors/", "benches/", "config/", "src/", "state/", "tests/", "topologies/"];
    let below = spans(MAP)
        .into_iter()
        .map(|(span, _)| span)
        .filter(|span| !span.contains(' ') && roots.iter().any(|root| span.starts_with(root)));
    flaws.extend(below.filter(|span| !root().join(span).exists()).map(|span| format!("{span} does not exist")));
    // The walk through the code is exact: whatever it names is written somewhere.
    let walk = MAP.split("## ").nth(1).expect("a first section");
    let words: std::collections::BTreeSet<&str> =
        sources.iter().flat_map(|(_, text)| text.split(|next: char| !(next.is_ascii_alphanumeric() || next == '_'))).collect();
    let names = spans(walk).into_iter().map(|(span, _)| span).filter(|span| is_name(span));
    flaws
        .extend(names.filter(|name| !name.split("::").all(|word| words.contains(word))).map(|name| format!("{name} is nowhere")));
    assert!(flaws.is_empty(), "{}", flaws.join("\n"));
}
