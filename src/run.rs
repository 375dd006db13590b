//! `finflow run`: the engine until it is told to stop; and `finflow leave`, which tells it to stop for good.

use std::io::Write;
use std::time::Duration;

use finflow_actors::socket::{self, Client, Door};
use finflow_actors::{Node, STOP_MAX, Settings, descriptors};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::access::{configuration, settings};
use crate::admin;
use crate::cli::{self, Common};
use crate::failure::Failure;

/// How long leaving takes at most: as long as stopping, and until the group has seen it.
const LEAVE_MAX: Duration = STOP_MAX.saturating_add(Duration::from_secs(5));
/// How a process ends that should be started again.
const TEMPORARY: i32 = 75;

pub(crate) async fn run(common: &Common, options: &cli::Run) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let config = configuration(common)?;
    let metrics = admin::recorder()?;
    let mut settings = settings(common)?;
    descriptors::raise(&settings);
    // Nobody else is disturbed by a process that cannot be asked anything.
    let listener = listener(common, &config).await?;
    let door = door(&mut settings, &config.internal).await?;
    let admin = admin::serve(listener, metrics)?;
    // On a thread of its own, because opening and restoring do not wait for anybody, and whoever asks meanwhile is to be answered.
    let runtime = tokio::runtime::Handle::current();
    let starting = tokio::task::spawn_blocking(move || runtime.block_on(Node::start(settings)));
    let node = tokio::select! {
        started = starting => {
            let started = started.map_err(|error| Failure::Failed(format!("the engine died: {error}")));
            started.and_then(|started| started.map_err(Failure::from)).unwrap_or_else(|failure| fail(&failure))
        }
        name = signals.next() => {
            info!("stopping on {name}, before it has started");
            end(0);
        }
    };
    admin.show(node.clone());
    let server = socket::serve(node.clone(), &common.data_dir).unwrap_or_else(|error| fail(&error.into()));
    let door = door.map(|door| door.serve(node.clone(), config.internal.secret.clone()));
    info!(data_dir = %common.data_dir.display(), "running");
    let name = tokio::select! {
        name = signals.next() => name,
        () = node.gone() => {
            // Everything is finished, and whoever asked for it has been told.
            let _ = std::fs::remove_file(socket::path(&common.data_dir));
            info!("left");
            end(0);
        }
        cause = node.ended() => fall(&cause),
    };
    info!("stopping on {name}");
    server.abort();
    admin.end();
    let is_done = tokio::select! {
        is_done = stop(&node, options.leave_on_exit) => is_done,
        name = signals.next() => {
            warn!("ending at once on {name}");
            false
        }
        cause = node.ended() => fall(&cause),
    };
    door.into_iter().for_each(|door| door.abort());
    // A socket that is left behind is replaced by the next service.
    let _ = std::fs::remove_file(socket::path(&common.data_dir));
    if !is_done {
        let _ = writeln!(std::io::stderr(), "finflow: ended before all work was finished; what was accepted is in the log");
        end(1);
    }
    info!("stopped");
    // Not by returning, which would wait for a snapshot that a disk holds.
    end(0)
}

/// Has the service that runs in the directory leave, and waits until it has.
pub(crate) async fn leave(common: &Common) -> Result<(), Failure> {
    let client = Client::connect(&common.data_dir).await;
    let client = client.ok_or_else(|| Failure::Failed(format!("no service runs in {}", common.data_dir.display())))?;
    if client.leave(LEAVE_MAX).await? {
        return Ok(());
    }
    let late = "it has stopped, and the others may take over what it had only when they miss it";
    Err(Failure::Temporary(late.to_owned()))
}

async fn stop(node: &Node, leaves: bool) -> bool {
    if leaves && node.is_shared() {
        let left = tokio::time::timeout(LEAVE_MAX, node.leave()).await;
        return left.is_ok_and(|left| left == Ok(true));
    }
    tokio::time::timeout(STOP_MAX, node.stop()).await.unwrap_or(false)
}

/// The admin listener, where the service can have it and its socket.
async fn listener(common: &Common, config: &finflow_config::Config) -> Result<TcpListener, Failure> {
    socket::check(&common.data_dir).map_err(Failure::Configuration)?;
    match admin::bind(config.admin.listen).await {
        Err(_) if Client::connect(&common.data_dir).await.is_some() => {
            let dir = common.data_dir.display();
            Err(Failure::Temporary(format!("{dir} is in use by another finflow process, a service that runs; stop it first")))
        }
        other => other,
    }
}

/// Where other processes will ask this one, which the group is told when it is joined; none on the embedded log, and none without a
/// secret: who may connect to an address is not yet one of the application.
async fn door(settings: &mut Settings, internal: &finflow_config::Internal) -> Result<Option<Door>, Failure> {
    let Some(kafka) = &mut settings.kafka else { return Ok(None) };
    if internal.secret.is_empty() {
        warn!("internal.secret is not set: processes do not ask each other, and this one answers for its own partitions only");
        return Ok(None);
    }
    let listen = internal.listen;
    let door = Door::open(listen).await.map_err(|error| Failure::Configuration(format!("internal.listen {listen}: {error}")))?;
    let address = door.address()?.to_string();
    kafka.advertised = Some(if internal.advertise.is_empty() { address } else { internal.advertise.clone() });
    Ok(Some(door))
}

/// Ends a process that must not go on, not even to finish: whatever it holds is another's by now. A supervisor starts it again.
fn fall(cause: &str) -> ! {
    let _ = writeln!(std::io::stderr(), "finflow: {cause}; start it again");
    end(TEMPORARY)
}

/// Ends a process whose engine cannot be had, also where parts of it have begun: what is still being restored is not waited for.
fn fail(failure: &Failure) -> ! {
    let _ = writeln!(std::io::stderr(), "finflow: {failure}");
    end(failure.code().into())
}

/// Ends the process without waiting for threads that a disk may hold for ever. The log is the truth: nothing is lost by it. Nothing is
/// destroyed either, as an ordinary exit does while those threads still use it: RocksDB aborts the process then.
fn end(code: i32) -> ! {
    signal_hook::low_level::exit(code)
}

/// What tells a service to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "Ctrl-C",
        }
    }
}
