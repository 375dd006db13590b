//! The commands and their options. Usage mistakes end with exit code 2.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use finflow_config::PARTITIONS_MAX;
use finflow_ledger::{PaymentId, WalletId};
use finflow_topologies::simulation::Planted;

use crate::version;

/// Wallets and transfers, exactly once, on one binary and its log.
#[derive(Debug, Parser)]
#[command(name = "finflow", version = version::text(), max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// Where the log and the state live
    #[arg(long, global = true, default_value = "./finflow-data")]
    pub(crate) data_dir: PathBuf,
    /// Whether the directory was named, and is not only the default.
    #[arg(skip)]
    pub(crate) is_data_dir_given: bool,
    /// A configuration file over the defaults; later ones win
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Vec<PathBuf>,
    /// One setting over all files, for example lanes=2
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Where health and metrics are served, instead of what admin.listen says
    #[arg(long, global = true, value_name = "ADDR")]
    pub(crate) admin: Option<SocketAddr>,
    /// Where the topics are, instead of what topics.log says
    #[arg(long, global = true, value_enum)]
    pub(crate) log: Option<LogKind>,
    /// The Kafka brokers to ask first, instead of what kafka."bootstrap.servers" says
    #[arg(long, short, global = true, value_name = "HOST:PORT,...")]
    pub(crate) brokers: Option<String>,
    /// A property of the Kafka client, for example security.protocol=ssl, over what [kafka] says
    #[arg(short = 'X', global = true, value_name = "NAME=VALUE")]
    pub(crate) properties: Vec<String>,
    /// How results are printed
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
    /// How logs are written to stderr, instead of what log.format says
    #[arg(long, global = true, value_enum)]
    pub(crate) log_format: Option<LogFormat>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
    /// For `topology` alone
    Mermaid,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogKind {
    /// The topics in a local RocksDB, for one process
    Embedded,
    /// The topics on Apache Kafka, for any number of processes
    Kafka,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Human,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the engine until SIGTERM or Ctrl-C
    Run(Run),
    /// Have the service of this directory hand its partitions over to the others at once, and stop
    Leave,
    /// Run a generated load, kill actors meanwhile, and audit every cent
    Demo(Demo),
    /// Measure throughput, latency and bytes written, and audit what was done
    Bench(Bench),
    /// Publish JSON lines (a file, or - for standard input) and run the engine until they are consumed
    Publish(Publish),
    /// Print the records of a topic
    Tail(Tail),
    /// Show wallets
    #[command(subcommand)]
    Wallet(WalletCommand),
    /// Show a payment
    #[command(subcommand)]
    Payment(PaymentCommand),
    /// Show how every partition is, or let a halted one go on
    Partitions {
        #[command(subcommand)]
        command: Option<PartitionsCommand>,
    },
    /// Show dead letters, or send them again
    #[command(subcommand)]
    Dlq(DlqCommand),
    /// Make or check the topics on Kafka
    #[command(subcommand)]
    Topics(TopicsCommand),
    /// Check the state, take snapshots of it, or have a partition's built again
    #[command(subcommand)]
    State(StateCommand),
    /// Move a stopped application to another number of partitions, under another prefix
    Rescale(Rescale),
    /// Look whether everything is ready: directories, disk, open files, clock, listeners; on Kafka brokers, topics, rights, transactions
    Check,
    /// Run simulated worlds in which everything goes wrong; exit 3 where one has a fault
    Simulate(Simulate),
    /// Draw how records travel
    Topology,
    /// Show or check the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print shell completions
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page of finflow, or of one of its commands
    Man {
        /// The command
        command: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Hand the partitions over to the other processes at the end, instead of keeping them for the next start
    #[arg(long)]
    pub(crate) leave_on_exit: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// How long the load lasts
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,
    /// Commands per second
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) rate: u64,
    /// Wallets
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(30..=10_000_000))]
    pub(crate) wallets: u64,
    /// The seed of the generated load
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Wallets, each opened with money in it
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(2..=100_000_000))]
    pub(crate) wallets: u64,
    /// Commands of the throughput phase; one in twenty repeats an earlier one
    #[arg(long, default_value_t = 400_000)]
    pub(crate) transfers: u64,
    /// Commands that the same engine carries out before them, unmeasured
    #[arg(long, default_value_t = 100_000)]
    pub(crate) warm: u64,
    /// Transfers per second of the latency phase
    #[arg(long, default_value_t = 1_400, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) rate: u64,
    /// How long the latency phase is measured; 0 leaves it out
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub(crate) seconds: u64,
    /// Processes of the latency phase that share the partitions, on Kafka
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=9))]
    pub(crate) processes: u32,
    /// The process of the Kafka broker, if it runs on this machine: its CPU time is told too
    #[arg(long, value_name = "PID")]
    pub(crate) broker_pid: Option<u32>,
    /// Seventy transfers of a hundred credit one of thirty wallets
    #[arg(long)]
    pub(crate) hot: bool,
    /// The seed of the load
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("place").multiple(true)))]
pub(crate) struct Publish {
    /// A file of JSON lines, or - for standard input
    pub(crate) file: PathBuf,
    /// Return once every command has ended, and count how
    #[arg(long)]
    pub(crate) wait: bool,
    /// How many seconds to wait at most after the last line was sent; then exit 75
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: u64,
    /// Send the whole input as the value of one record, whatever it is
    #[arg(long, requires = "place")]
    pub(crate) raw: bool,
    /// The key of the raw record
    #[arg(long, requires = "raw", group = "place")]
    pub(crate) key: Option<OsString>,
    /// The partition of the raw record, instead of its key's; without --key it has none
    #[arg(long, requires = "raw", value_name = "N", group = "place")]
    pub(crate) partition: Option<u32>,
    /// A header of every record, for example correlation-id=batch-7
    #[arg(long, value_name = "NAME=VALUE", value_parser = clap::value_parser!(OsString))]
    pub(crate) header: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Rescale {
    /// How many there will be
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(PARTITIONS_MAX)))]
    pub(crate) partitions: u32,
    /// The prefix of the new topics
    #[arg(long, value_name = "PREFIX")]
    pub(crate) to_prefix: String,
    /// The directory of the new application, on the embedded log; on Kafka its processes begin with empty ones
    #[arg(long, value_name = "DIR")]
    pub(crate) to_data_dir: Option<PathBuf>,
    /// Only say what stands against it
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// How many worlds
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    pub(crate) from: u64,
    /// The world of this seed alone
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    pub(crate) seed: Option<u64>,
    /// A bug on purpose, which must be found
    #[arg(long, value_name = "NAME", value_parser = planted)]
    pub(crate) planted: Option<Planted>,
}

fn planted(name: &str) -> Result<Planted, String> {
    let names = || Planted::ALL.map(Planted::name).join(", ");
    Planted::from_name(name).ok_or_else(|| format!("the bugs are {}", names()))
}

#[derive(Debug, Args)]
pub(crate) struct Tail {
    /// The topic
    #[arg(value_enum, default_value_t = TailTopic::Events)]
    pub(crate) topic: TailTopic,
    /// Where to begin
    #[arg(long, value_enum, default_value_t = From::End)]
    pub(crate) from: From,
    /// Stop at the end instead of waiting for more
    #[arg(long)]
    pub(crate) exit_at_end: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum TailTopic {
    Events,
    Commands,
    Dlq,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum From {
    Beginning,
    End,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WalletCommand {
    /// One wallet
    Show {
        /// Its id
        #[arg(value_parser = wallet_id)]
        wallet: WalletId,
    },
    /// All wallets, by partition and id
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PaymentCommand {
    /// One payment, or any other command
    Show {
        /// Its id: pay_ and 26 characters
        #[arg(value_parser = payment_id)]
        payment: PaymentId,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TopicsCommand {
    /// Make the topics that are missing, with the settings that the engine needs
    Create,
    /// List whatever about the topics would lose data or stop the engine; exit 1 if there is something
    Check,
    /// Have the topic of commands take nothing any more, as an application that is left for another needs it
    Seal,
    /// Have the topic of commands take commands again
    Unseal {
        /// Also if the application has moved to another place, which goes on all the same, or nobody knows any more whether it has
        #[arg(long)]
        yes: bool,
    },
    /// Print the commands that grant a principal what its part needs, and nothing else
    Acls(Acls),
}

#[derive(Debug, Args)]
pub(crate) struct Acls {
    /// Who is to be granted it, as Kafka calls him, for example User:finflow
    #[arg(long, value_parser = principal)]
    pub(crate) principal: String,
    /// Which part it plays
    #[arg(long, value_enum, default_value_t = Part::Engine)]
    pub(crate) role: Part,
    /// The consumer group of a consumer, instead of the prefix and -consumer
    #[arg(long, value_parser = group)]
    pub(crate) group: Option<String>,
    /// A file with the properties by which kafka-acls signs in as an administrator
    #[arg(long, value_name = "FILE")]
    pub(crate) command_config: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Every process that runs the engine
    Engine,
    /// The engine's second principal, which deletes what is not needed any more ([kafka.trim])
    Trimmer,
    /// What the engine needs besides, where people publish, tail and repair dead letters through it; it is trusted with every tenant
    Gateway,
    /// The engine of the application that these topics were left for, which watches that nobody goes on there
    Successor,
    /// Whoever writes commands; it is trusted with every tenant
    Producer,
    /// Whoever reads events
    Consumer,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StateCommand {
    /// Read every row and check the invariants; exit 3 on a difference
    Verify {
        /// Read every snapshot back too
        #[arg(long)]
        snapshots: bool,
    },
    /// Take a snapshot of every partition that has moved since its last one
    Snapshot,
    /// Write the whole state of a stopped application into a directory
    Dump {
        /// The directory, which must be empty or not there
        #[arg(long, value_name = "DIR")]
        into: PathBuf,
    },
    /// Bring a dump into new topics, or a new data directory, with the partitions that are configured
    Restore {
        /// The directory of the dump
        dump: PathBuf,
    },
    /// Have state directories take the place of what the log says of their partitions, where they are right and it is not
    Adopt {
        /// The partitions, all of them at once
        #[arg(required = true)]
        partitions: Vec<u32>,
        /// Do it, and do not only say what would be done
        #[arg(long)]
        yes: bool,
    },
    /// Move a partition's state directory aside, so that the next start builds it again
    Discard {
        /// The partition
        partition: u32,
        /// Do it, and do not only say what would be done
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PartitionsCommand {
    /// Lets a halted partition go on from its last committed block
    Resume(Resume),
}

#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// The partition; with --from-journal, every halted one if none is named
    #[arg(required_unless_present = "from_journal")]
    pub(crate) partition: Option<u32>,
    /// Where Kafka has lost the position, because the group's offsets have expired or were deleted: go on from the journal's last block
    #[arg(long, group = "basis")]
    pub(crate) from_journal: bool,
    /// Where `commands` has let go of some that were not consumed: accept that they are lost, and go on at the first one that is left
    #[arg(long, group = "basis")]
    pub(crate) skip_expired: bool,
    /// Only say where it would go on, or what stands against it
    #[arg(long, requires = "basis")]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DlqCommand {
    /// One line for each dead letter
    List,
    /// One dead letter, whole
    Show {
        /// Its place, as `list` gives it: partition:offset
        #[arg(value_parser = place)]
        place: (u32, u64),
    },
    /// Send dead letters again that would be carried out now; without --yes, only say which
    Replay(Replay),
}

#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// The places of dead letters, as `list` gives them; without any, all of them
    #[arg(value_parser = place, conflicts_with_all = ["partition", "from", "to"])]
    pub(crate) places: Vec<(u32, u64)>,
    /// Those in this partition alone
    #[arg(long, value_name = "N")]
    pub(crate) partition: Option<u32>,
    /// Those from this offset of the partition on
    #[arg(long, value_name = "OFFSET", requires = "partition")]
    pub(crate) from: Option<u64>,
    /// Those up to this offset of the partition, itself included
    #[arg(long, value_name = "OFFSET", requires = "partition")]
    pub(crate) to: Option<u64>,
    /// Those with this error code alone, for example panicked
    #[arg(long)]
    pub(crate) code: Option<String>,
    /// Send them, and do not only say what would be sent
    #[arg(long)]
    pub(crate) yes: bool,
    /// How many seconds to wait at most until all have ended; then exit 75
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print what is in force
    Show,
    /// List every problem with its place; exit 78 if there is one
    Check,
}

fn principal(text: &str) -> Result<String, &'static str> {
    // It becomes a word of a shell command.
    let is_plain =
        |name: &str| !name.is_empty() && name.chars().all(|letter| letter.is_ascii_graphic() && !"'\"\\".contains(letter));
    let named =
        text.split_once(':').filter(|(kind, name)| !kind.is_empty() && kind.chars().all(char::is_alphabetic) && is_plain(name));
    named.map(|_| text.to_owned()).ok_or("a principal is a kind and a name, as in User:finflow")
}

fn group(text: &str) -> Result<String, &'static str> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    let is_group = !text.is_empty() && text.chars().all(is_plain);
    is_group.then(|| text.to_owned()).ok_or("a group is letters, digits, `.`, `_` or `-`")
}

fn wallet_id(text: &str) -> Result<WalletId, &'static str> {
    WalletId::parse(text).ok_or("a wallet id is 1 to 64 letters, digits, `_`, `.`, `:` or `-`")
}

fn payment_id(text: &str) -> Result<PaymentId, &'static str> {
    PaymentId::parse(text).ok_or("a payment id is pay_ and 26 lower-case letters and digits")
}

fn place(text: &str) -> Result<(u32, u64), &'static str> {
    let place = text.split_once(':').and_then(|(partition, offset)| Some((partition.parse().ok()?, offset.parse().ok()?)));
    place.ok_or("a place is partition:offset, as `finflow dlq list` gives it")
}
