//! Mistakes on the command line: one line that says what is wrong, and an example of right use. Exit code 2.

use clap::CommandFactory;
use clap::error::{Error, ErrorKind};

use crate::cli::Cli;

/// Right use of each command; the first is shown where no command was recognised.
const EXAMPLES: &[(&str, &str)] = &[
    ("demo", "finflow demo --seconds 5"),
    ("run", "finflow run --data-dir ./finflow-data"),
    ("leave", "finflow leave --data-dir ./finflow-data"),
    ("publish", "finflow publish payments.jsonl --wait"),
    ("tail", "finflow tail events --from beginning --exit-at-end"),
    ("wallet", "finflow wallet show alice"),
    ("payment", "finflow payment show pay_00000000000000000000000000"),
    ("partitions", "finflow partitions resume 3"),
    ("partitions", "finflow partitions resume 3 --from-journal"),
    ("partitions", "finflow partitions resume 3 --skip-expired"),
    ("dlq", "finflow dlq show 3:0"),
    ("dlq", "finflow dlq replay 3:0 --yes"),
    ("state", "finflow state verify"),
    ("state", "finflow state dump --into ./dump"),
    ("state", "finflow state restore ./dump --data-dir ./other-data"),
    ("state", "finflow state adopt 3"),
    ("state", "finflow state discard 3"),
    ("state", "finflow state snapshot"),
    ("rescale", "finflow rescale --partitions 32 --to-prefix finflow2 --log kafka"),
    ("check", "finflow check --log kafka --brokers 127.0.0.1:9092"),
    ("simulate", "finflow simulate --seeds 2000"),
    ("bench", "finflow bench --log embedded"),
    ("topics", "finflow topics check --log kafka --brokers 127.0.0.1:9092"),
    ("topics", "finflow topics seal --log kafka"),
    ("topics", "finflow topics acls --principal User:finflow"),
    ("topology", "finflow topology --format mermaid"),
    ("config", "finflow config check --config finflow.toml --set lanes=2"),
    ("completions", "finflow completions bash"),
    ("man", "finflow man publish"),
];

/// Help and versions are printed as they are; a mistake in one line.
pub(crate) fn exit(error: &Error, words: &[String]) -> ! {
    let is_asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if is_asked || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand && words.len() <= 1 {
        error.exit();
    }
    eprintln!("finflow: {}", mistake(error, words));
    std::process::exit(2);
}

/// What is wrong, in one line, with an example.
fn mistake(error: &Error, words: &[String]) -> String {
    format!("{}; for example: {}", what(error), example(words))
}

/// Right use of what was typed: of its subcommand, where that has one of its own.
fn example(words: &[String]) -> &'static str {
    let typed = words.iter().skip(1).position(|word| EXAMPLES.iter().any(|(name, _)| name == word));
    let typed = typed.and_then(|at| words.get(at.saturating_add(1)..)).unwrap_or_default();
    let matches = |example: &str| example.split(' ').skip(1).zip(typed).take_while(|(word, typed)| word == typed).count();
    // The first of those that match as well.
    let best = EXAMPLES.iter().rev().map(|(_, example)| *example).max_by_key(|example| matches(example));
    best.unwrap_or_default()
}

/// Clap's own words, from its lines before the usage: `error: ...`, details, and a tip.
fn what(error: &Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "a command is missing".to_owned();
    }
    let rendered = error.render().to_string();
    let lines = rendered.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let text = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    let text = text.strip_prefix("error: ").unwrap_or(&text).replace(" tip: ", "; ");
    // A value that was typed may hold what would break the line.
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// The manual page of finflow, or of one of its commands.
pub(crate) fn manual(command: Option<&str>) -> Result<Vec<u8>, String> {
    let mut root = Cli::command();
    root.build();
    let command = match command {
        None => root,
        Some(name) => {
            let found = root.find_subcommand(name).cloned();
            let found = found.ok_or_else(|| format!("there is no command {name}; for example: finflow man publish"))?;
            // Its page is called as git calls its own: finflow-publish(1).
            found.display_name(format!("finflow-{name}"))
        }
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).map_err(|error| error.to_string())?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn every_command_has_an_example_that_is_accepted() {
        for command in Cli::command().get_subcommands() {
            assert!(EXAMPLES.iter().any(|(name, _)| *name == command.get_name()), "{} has no example", command.get_name());
        }
        for (name, example) in EXAMPLES {
            assert!(example.starts_with(&format!("finflow {name}")), "{example}");
            assert!(Cli::try_parse_from(example.split(' ')).is_ok(), "{example}");
        }
    }

    #[test]
    fn every_command_has_a_manual_page() {
        for command in Cli::command().get_subcommands() {
            let page = manual(Some(command.get_name())).expect("a page");
            assert!(String::from_utf8_lossy(&page).contains(&format!("finflow\\-{}", command.get_name())));
        }
        assert!(String::from_utf8_lossy(&manual(None).expect("a page")).contains("publish"));
        assert_eq!(
            manual(Some("frobnicate")),
            Err("there is no command frobnicate; for example: finflow man publish".to_owned())
        );
    }

    #[test]
    fn mistakes_are_told_in_one_line_with_an_example() {
        let rows = [
            ("finflow frobnicate", "unrecognized subcommand 'frobnicate'", "demo"),
            ("finflow publsh x", "unrecognized subcommand 'publsh'; a similar subcommand exists: 'publish'", "demo"),
            ("finflow publish", "the following required arguments were not provided: <FILE>", "publish"),
            ("finflow wallet", "a command is missing", "wallet"),
            ("finflow wallet show", "the following required arguments were not provided: <WALLET>", "wallet"),
            (
                "finflow wallet show ../x",
                "invalid value '../x' for '<WALLET>': a wallet id is 1 to 64 letters, digits, `_`, `.`, `:` or `-`",
                "wallet",
            ),
            (
                "finflow payment show pay_x",
                "invalid value 'pay_x' for '<PAYMENT>': a payment id is pay_ and 26 lower-case letters and digits",
                "payment",
            ),
            (
                "finflow dlq show 3",
                "invalid value '3' for '<PLACE>': a place is partition:offset, as `finflow dlq list` gives it",
                "dlq",
            ),
            (
                "finflow tail payments",
                "invalid value 'payments' for '[TOPIC]' [possible values: events, commands, dlq]; a similar value exists: 'events'",
                "tail",
            ),
            (
                "finflow publish x --timeout soon",
                "invalid value 'soon' for '--timeout <SECONDS>': invalid digit found in string",
                "publish",
            ),
            (
                "finflow publish x --raw",
                "the following required arguments were not provided: <--key <KEY>|--partition <N>>",
                "publish",
            ),
            (
                "finflow topics acls --principal finflow",
                "invalid value 'finflow' for '--principal <PRINCIPAL>': a principal is a kind and a name, as in User:finflow",
                "topics acls",
            ),
            ("finflow state discard", "the following required arguments were not provided: <PARTITION>", "state discard"),
            ("finflow publish x --key a", "the following required arguments were not provided: --raw", "publish"),
            ("finflow run --lanes 2", "unexpected argument '--lanes' found", "run"),
            ("finflow demo --rate 0", "invalid value '0' for '--rate <RATE>': 0 is not in 1..=1000000", "demo"),
            (
                "finflow run --admin localhost",
                "invalid value 'localhost' for '--admin <ADDR>': invalid socket address syntax",
                "run",
            ),
        ];
        for (typed, wrong, command) in rows {
            let words: Vec<String> = typed.split(' ').map(str::to_owned).collect();
            let error = Cli::try_parse_from(&words).err().unwrap_or_else(|| panic!("{typed} is accepted"));
            let is_its = |example: &&str| example.starts_with(&format!("finflow {command}"));
            let example = EXAMPLES.iter().map(|(_, example)| *example).find(is_its).expect("an example");
            assert_eq!(mistake(&error, &words), format!("{wrong}; for example: {example}"), "{typed}");
        }
    }
}
