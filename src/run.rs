//! `finflow run`: the engine until it is told to stop.

use finflow_actors::{Node, socket};
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use crate::access::{configuration, settings};
use crate::admin;
use crate::cli::Common;
use crate::failure::Failure;

pub(crate) async fn run(common: &Common) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let listen = configuration(common)?.admin.listen;
    let metrics = admin::recorder()?;
    let node = Node::start(settings(common)?).await?;
    let admin = admin::serve(node.clone(), listen, metrics).await?;
    let server = socket::serve(node.clone(), &common.data_dir)?;
    info!(data_dir = %common.data_dir.display(), "running");
    tokio::select! {
        _ = terminate.recv() => info!("stopping on SIGTERM"),
        _ = tokio::signal::ctrl_c() => info!("stopping on Ctrl-C"),
    }
    server.abort();
    admin.abort();
    node.stop().await;
    // A socket that is left behind is replaced by the next service.
    let _ = std::fs::remove_file(socket::path(&common.data_dir));
    info!("stopped");
    Ok(())
}
