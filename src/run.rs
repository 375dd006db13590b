//! `finflow run`: the engine until it is told to stop.

use std::io::Write;

use finflow_actors::{Node, STOP_MAX, socket};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::access::{configuration, settings};
use crate::admin;
use crate::cli::Common;
use crate::failure::Failure;

pub(crate) async fn run(common: &Common) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let listen = configuration(common)?.admin.listen;
    let metrics = admin::recorder()?;
    // A task of its own, because opening and restoring do not wait for anybody.
    let starting = tokio::spawn(Node::start(settings(common)?));
    let node = tokio::select! {
        started = starting => started.map_err(|error| Failure::Failed(format!("the engine died: {error}")))??,
        name = signals.next() => {
            info!("stopping on {name}, before it has started");
            end(0);
        }
    };
    let admin = admin::serve(node.clone(), listen, metrics).await?;
    let server = socket::serve(node.clone(), &common.data_dir)?;
    info!(data_dir = %common.data_dir.display(), "running");
    let name = signals.next().await;
    info!("stopping on {name}");
    server.abort();
    admin.abort();
    let is_drained = tokio::select! {
        is_drained = tokio::time::timeout(STOP_MAX, node.stop()) => is_drained.unwrap_or(false),
        name = signals.next() => {
            warn!("ending at once on {name}");
            false
        }
    };
    // A socket that is left behind is replaced by the next service.
    let _ = std::fs::remove_file(socket::path(&common.data_dir));
    if !is_drained {
        let _ = writeln!(std::io::stderr(), "finflow: ended before all work was finished; what was accepted is in the log");
        end(1);
    }
    info!("stopped");
    // Not by returning, which would wait for a snapshot that a disk holds.
    end(0)
}

/// Ends the process without waiting for threads that a disk may hold for ever. The log is the truth: nothing is lost by it.
fn end(code: i32) -> ! {
    std::process::exit(code)
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
