//! The command line: parse, load, start, report. What a payment may do is decided elsewhere.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use self::cli::{Cli, Command, Format};
use self::failure::Failure;

mod access;
mod admin;
mod cli;
mod demo;
mod dlq;
mod failure;
mod publish;
mod run;
mod show;
mod simulate;
mod tail;
mod topology;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.common.format == Format::Mermaid && !matches!(cli.command, Command::Topology) {
        let usage = "only `finflow topology --format mermaid` draws";
        Cli::command().error(clap::error::ErrorKind::InvalidValue, usage).exit();
    }
    start_logs(&cli);
    match carry_out(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("finflow: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

async fn carry_out(cli: Cli) -> Result<(), Failure> {
    let Cli { common, command } = cli;
    match command {
        Command::Run => run::run(&common).await,
        Command::Demo(options) => demo::demo(&common, &options).await,
        Command::Publish(options) => publish::publish(&common, &options).await,
        Command::Tail(options) => tail::tail(&common, &options).await,
        Command::Wallet(command) => show::wallet(&common, &command).await,
        Command::Payment(command) => show::payment(&common, &command).await,
        Command::Partitions { command } => show::partitions(&common, command.as_ref()).await,
        Command::Dlq(command) => dlq::dlq(&common, &command).await,
        Command::State(command) => show::state(&common, &command).await,
        Command::Simulate(options) => simulate::simulate(&common, &options),
        Command::Topology => {
            print!("{}", topology::draw(common.format));
            Ok(())
        }
        Command::Config(command) => {
            let config = access::configuration(&common)?;
            if let cli::ConfigCommand::Show = command {
                print!("{}", config.to_toml());
            }
            Ok(())
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "finflow", &mut std::io::stdout());
            Ok(())
        }
    }
}

/// Logs go to stderr; data goes to stdout.
fn start_logs(cli: &Cli) {
    let default = if matches!(cli.command, Command::Run) { "info" } else { "off" };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A wrong configuration is reported by the command itself.
    let configured = access::configuration(&cli.common).is_ok_and(|config| config.log.format == finflow_config::LogFormat::Json);
    let is_json = cli.common.log_format.map_or(configured, |format| format == cli::LogFormat::Json);
    if is_json { logs.json().init() } else { logs.init() }
}
