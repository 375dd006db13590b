//! The README is true: its tour gives what it shows, and its commands exist.

use std::path::Path;

use self::program::{command, finflow};

#[path = "support/program.rs"]
mod program;

const README: &str = include_str!("../README.md");

/// The tour's commands, each with the lines that it prints.
fn tour() -> Vec<(String, Vec<String>)> {
    let section = README.split("## A tour").nth(1).expect("a tour");
    let block = section.split("```console\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a console");
    let mut steps: Vec<(String, Vec<String>)> = Vec::new();
    for line in block.lines() {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(typed), _) => steps.push((typed.split(" #").next().unwrap_or(typed).trim().to_owned(), Vec::new())),
            (None, Some((_, shown))) => shown.push(line.to_owned()),
            (None, None) => panic!("the tour begins with a command"),
        }
    }
    steps
}

/// Whether a line is what is shown; `...` stands for anything.
fn is_shown(line: &str, shown: &str) -> bool {
    let mut parts = shown.split("...");
    let Some(mut rest) = parts.next().and_then(|start| line.strip_prefix(start)) else { return false };
    let mut is_open = false;
    for part in parts {
        let Some(place) = rest.find(part) else { return false };
        rest = &rest[place + part.len()..];
        is_open = part.is_empty();
    }
    rest.is_empty() || is_open
}

#[test]
fn shown_lines_are_compared() {
    for (line, shown, expected) in [
        ("a b", "a b", true),
        ("a b", "a", false),
        ("a 1 b", "a ... b", true),
        ("a 1 b", "a ... c", false),
        ("a 1 b", "a ...", true),
        ("b 1", "a ...", false),
        ("a 1 b x", "a ... b", false),
    ] {
        assert_eq!(is_shown(line, shown), expected, "{line}: {shown}");
    }
}

#[test]
fn the_tour_gives_what_it_shows() {
    let dir = tempfile::tempdir().expect("a directory");
    let steps = tour();
    assert!(6 <= steps.len() && steps.iter().filter(|(_, shown)| !shown.is_empty()).count() == steps.len(), "{steps:?}");
    for (typed, shown) in steps {
        if let Some(file) = typed.strip_prefix("cat ") {
            let shipped = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("a file");
            assert_eq!(shipped.lines().collect::<Vec<_>>(), shown, "{file}");
            let copy = dir.path().join(file);
            std::fs::create_dir_all(copy.parent().expect("a directory")).expect("a directory");
            std::fs::write(copy, shipped).expect("a file");
            continue;
        }
        let words: Vec<&str> = typed.split(' ').collect();
        assert_eq!(words[0], "finflow", "{typed}");
        let output = finflow(dir.path(), &words[1..]);
        assert!(output.status.success(), "{typed}: {}", String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8_lossy(&output.stdout);
        let printed: Vec<&str> = printed.lines().collect();
        let is_same = printed.len() == shown.len() && printed.iter().zip(&shown).all(|(line, shown)| is_shown(line, shown));
        assert!(is_same, "{typed} prints\n{}", printed.join("\n"));
    }
}

/// The words behind `finflow` in every code of the README that begins with it.
fn commands() -> Vec<Vec<String>> {
    let mut found: Vec<&str> = README.split('`').skip(1).step_by(2).filter(|code| code.starts_with("finflow ")).collect();
    let consoles = README.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next());
    let scripts = README.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    found.extend(scripts.flat_map(str::lines).filter(|line| line.starts_with("finflow ")));
    found.extend(
        consoles.flat_map(str::lines).filter_map(|line| line.strip_prefix("$ ")).filter(|line| line.starts_with("finflow ")),
    );
    let command =
        |code: &str| code.split(" #").next().unwrap_or_default().split_whitespace().skip(1).map(str::to_owned).collect();
    found.into_iter().map(command).collect()
}

#[test]
fn every_command_of_the_readme_exists() {
    let commands = commands();
    assert!(15 < commands.len(), "the commands are found: {commands:?}");
    for words in commands {
        let names: Vec<&str> =
            words.iter().map(String::as_str).take_while(|word| word.bytes().all(|byte| byte.is_ascii_lowercase())).collect();
        let output =
            command(Path::new("."), &[&names[..names.len().min(2)], &["--help"]].concat()).output().expect("the program runs");
        let help = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "finflow {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr));
        for option in words.iter().filter_map(|word| word.strip_prefix("--")) {
            let option = option.split('=').next().unwrap_or(option);
            assert!(help.contains(&format!("--{option}")), "finflow {} has no --{option}", words.join(" "));
        }
    }
    let help = finflow(Path::new("."), &["--help"]);
    let help = String::from_utf8_lossy(&help.stdout);
    let known = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // What is wrapped stands further in.
    let known = known.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    for name in known.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
        assert!(README.contains(&format!("`finflow {name}")), "the README does not tell of `finflow {name}`");
    }
}
