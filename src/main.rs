//! The command line: parse, load, start, report. What a payment may do is decided elsewhere.

#![deny(clippy::print_stdout)]

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches};
use tracing_subscriber::EnvFilter;

use self::cli::{Cli, Command, Format};
use self::failure::Failure;

mod access;
mod admin;
mod audited;
mod bench;
mod check;
mod cli;
mod config;
mod demo;
mod dlq;
mod failure;
mod output;
mod panics;
mod publish;
mod rescale;
mod resume;
mod run;
mod show;
mod simulate;
mod snapshots;
mod state;
mod tail;
mod topics;
mod topology;
mod usage;
mod version;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    panics::hook();
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let cli = parse().unwrap_or_else(|error| usage::exit(&error, &words));
    let outcome = match start_logs(&cli) {
        Ok(()) => carry_out(cli).await,
        Err(failure) => Err(failure),
    };
    match outcome {
        Ok(()) | Err(Failure::ReaderGone) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("finflow: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

fn parse() -> Result<Cli, clap::Error> {
    let matches = Cli::command().try_get_matches()?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    // An option that stands behind the command's name is found there.
    let mut innermost = &matches;
    while let Some((_, inner)) = innermost.subcommand() {
        innermost = inner;
    }
    cli.common.is_data_dir_given = innermost.value_source("data_dir") != Some(ValueSource::DefaultValue);
    if cli.common.format == Format::Mermaid && !matches!(cli.command, Command::Topology) {
        let usage = "only `finflow topology --format mermaid` draws";
        return Err(Cli::command().error(clap::error::ErrorKind::InvalidValue, usage));
    }
    Ok(cli)
}

async fn carry_out(cli: Cli) -> Result<(), Failure> {
    let Cli { common, command } = cli;
    match command {
        Command::Run(options) => run::run(&common, &options).await,
        Command::Leave => run::leave(&common).await,
        Command::Demo(options) => demo::demo(&common, &options).await,
        Command::Bench(options) => bench::bench(&common, &options).await,
        Command::Publish(options) => publish::publish(&common, &options).await,
        Command::Tail(options) => tail::tail(&common, &options).await,
        Command::Wallet(command) => show::wallet(&common, &command).await,
        Command::Payment(command) => show::payment(&common, &command).await,
        Command::Partitions { command } => show::partitions(&common, command.as_ref()).await,
        Command::Dlq(command) => dlq::dlq(&common, &command).await,
        Command::Topics(command) => topics::topics(&common, &command).await,
        Command::Simulate(options) => simulate::simulate(&common, &options),
        Command::State(command) => state::state(&common, &command).await,
        Command::Rescale(options) => rescale::rescale(&common, &options).await,
        Command::Check => check::check(&common).await,
        Command::Topology => output::text(&topology::draw(common.format)),
        Command::Config(command) => config::config(&common, &command),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "finflow", &mut script);
            output::text(&String::from_utf8_lossy(&script))
        }
        Command::Man { command } => {
            let page = usage::manual(command.as_deref()).map_err(Failure::Usage)?;
            output::text(&String::from_utf8_lossy(&page))
        }
    }
}

/// Logs go to stderr; data goes to stdout.
fn start_logs(cli: &Cli) -> Result<(), Failure> {
    let default = match cli.command {
        Command::Run(_) => "info",
        // It kills its own actors, and says so in its report.
        Command::Demo(_) => "off",
        _ => "warn",
    };
    let filter = match std::env::var_os("RUST_LOG") {
        None => EnvFilter::new(default),
        Some(asked) => EnvFilter::try_new(asked.to_string_lossy())
            .map_err(|error| Failure::Configuration(format!("variable RUST_LOG: {error}; for example: RUST_LOG=info")))?,
    };
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A wrong configuration is reported by the command itself.
    let configured = access::configuration(&cli.common).is_ok_and(|config| config.log.format == finflow_config::LogFormat::Json);
    let is_json = cli.common.log_format.map_or(configured, |format| format == cli::LogFormat::Json);
    if is_json {
        logs.json().init()
    } else {
        logs.with_ansi(std::io::stderr().is_terminal()).init()
    }
    Ok(())
}
