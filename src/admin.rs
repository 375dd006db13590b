//! The admin listener: `/livez`, `/readyz`, `/metrics`, `/version`. For operators inside the cluster; it tells nothing personal.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::routing::get;
use finflow_actors::{Node, PartitionStatus, Restoring};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tracing::info;

use crate::failure::Failure;
use crate::version;

/// Upper edges of every duration's buckets, in seconds.
const SECONDS: [f64; 10] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0];
/// How often the exporter folds what was recorded since.
const UPKEEP: Duration = Duration::from_secs(5);

/// What of this process is shown: the node as soon as there is one, which may take as long as a restore.
#[derive(Clone)]
struct Shown {
    node: Arc<OnceLock<Node>>,
    metrics: PrometheusHandle,
}

/// The listener while it is served.
pub(crate) struct Admin {
    node: Arc<OnceLock<Node>>,
    server: JoinHandle<()>,
}

impl Admin {
    /// The node is there: from now on it says itself whether it is ready.
    pub(crate) fn show(&self, node: Node) {
        // A process has one.
        let _ = self.node.set(node);
    }

    /// Nothing is answered any more.
    pub(crate) fn end(&self) {
        self.server.abort();
    }
}

/// Takes in every metric from here on.
pub(crate) fn recorder() -> Result<PrometheusHandle, Failure> {
    let builder = PrometheusBuilder::new().set_buckets(&SECONDS).map_err(failed)?;
    let metrics = builder.install_recorder().map_err(failed)?;
    for (name, _, help) in finflow_actors::metrics::CATALOGUE.into_iter().chain(finflow_state::metrics::CATALOGUE) {
        if name.ends_with("_duration_seconds") {
            metrics::describe_histogram!(name, help);
        } else if name.ends_with("_total") {
            metrics::describe_counter!(name, help);
        } else {
            metrics::describe_gauge!(name, help);
        }
    }
    Ok(metrics)
}

/// Takes the address, before anything else begins that would have to be undone where it cannot be had.
pub(crate) async fn bind(listen: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(listen).await.map_err(|error| Failure::Configuration(format!("admin.listen {listen}: {error}")))
}

/// Serves the listener, at first without a node: alive and not ready, so that nobody ends a process because its restore takes long.
pub(crate) fn serve(listener: TcpListener, metrics: PrometheusHandle) -> Result<Admin, Failure> {
    info!(address = %listener.local_addr()?, "admin listener");
    let node = Arc::<OnceLock<Node>>::default();
    let folding = metrics.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            folding.run_upkeep();
        }
    });
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(exposed))
        .route("/version", get(|| async { format!("finflow {}\n", version::text()) }))
        .with_state(Shown { node: node.clone(), metrics });
    let server = tokio::spawn(async move {
        // It ends with the process; an error of one connection does not end it.
        let _ = axum::serve(listener, router).await;
    });
    Ok(Admin { node, server })
}

async fn ready(State(shown): State<Shown>, RawQuery(query): RawQuery) -> (StatusCode, String) {
    let Some(node) = shown.node.get() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "[-]node starting\nnot ready\n".to_owned());
    };
    let (status, faults) = (node.conditions(), node.faults());
    let is_restoring = |partition: &PartitionStatus| partition.state == "restoring";
    let is_ready = faults.is_empty() && !status.iter().any(|partition| partition.cause.is_some() || is_restoring(partition));
    let is_verbose = query.is_some_and(|query| query.split('&').any(|word| word == "verbose"));
    let faults = faults.into_iter().map(|(what, cause)| format!("[-]{what} {cause}\n"));
    let partitions =
        status.iter().filter(|partition| is_verbose || partition.cause.is_some()).map(|partition| match &partition.cause {
            None if is_restoring(partition) => match &partition.restoring {
                Some(Restoring { block, target }) => {
                    format!("[-]partition {} restoring, block {block} of {target}\n", partition.partition)
                }
                None => format!("[-]partition {} restoring\n", partition.partition),
            },
            None => format!("[+]partition {} ok\n", partition.partition),
            Some(cause) => format!("[-]partition {} {cause}\n", partition.partition),
        });
    let warnings = node.warnings().into_iter().map(|(topic, what)| format!("[!]{topic} {what}\n"));
    let code = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let verdict = if is_ready { "ok\n" } else { "not ready\n" };
    (code, faults.chain(warnings).chain(partitions).chain([verdict.to_owned()]).collect())
}

async fn exposed(State(shown): State<Shown>) -> String {
    metrics_process::Collector::default().collect();
    shown.metrics.render()
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::Failed(error.to_string())
}
