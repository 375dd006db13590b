//! `finflow run`: the engine until it is told to stop.

use finflow_actors::Node;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use crate::access::settings;
use crate::cli::Common;
use crate::failure::Failure;

pub(crate) async fn run(common: &Common) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let node = Node::start(settings(common)?).await?;
    info!(data_dir = %common.data_dir.display(), "running");
    tokio::select! {
        _ = terminate.recv() => info!("stopping on SIGTERM"),
        _ = tokio::signal::ctrl_c() => info!("stopping on Ctrl-C"),
    }
    node.stop().await;
    info!("stopped");
    Ok(())
}
