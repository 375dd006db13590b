//! Rights that are taken away from an engine that runs: what needs them waits, and goes on by itself once they are granted again.

use std::path::Path;

use crate::cluster::Cluster;
use crate::{ENGINE, OPENED, events, eventually, send, signed_in};

/// What a lane writes with, what it commits with, and what makes it a member of its group.
const TAKEN: [&str; 3] = [
    "--operation Write --topic finflow.events.v1",
    "--operation Write --resource-pattern-type prefixed --transactional-id finflow-",
    "--operation Read --group finflow",
];

pub(crate) fn what_is_taken_away_is_waited_for(cluster: &Cluster, dir: &Path) {
    let mut service = signed_in(cluster, dir, ENGINE, vec![]).run();
    let logged = || std::fs::read_to_string(dir.join("stderr.txt")).expect("a file");
    for (number, right) in TAKEN.into_iter().enumerate() {
        let before = logged().len();
        cluster.revoke(ENGINE, right);
        send(cluster, &[&OPENED[2].replace("t-1", &format!("taken-{number}"))]);
        // Why an epoch is aborted is told with what helps, though the library says of its records only that they were not sent.
        let is_told = |line: &str| match number {
            0 => line.contains("epoch aborted") && line.contains("uthorization failed") && line.contains("finflow topics acls"),
            _ => line.contains("uthorization failed") || line.contains("not authorized"),
        };
        eventually(|| match logged().get(before..).unwrap_or_default() {
            told if told.lines().any(is_told) => Ok(()),
            told => Err(format!("{right}: nothing is said of it: {told}")),
        });
        cluster.allow(ENGINE, right);
        assert_eq!(events(cluster, 1), ["alice payment.settled 100.00"], "{right}");
        let ended = service.0.try_wait().expect("a child");
        assert!(ended.is_none(), "{right}: {ended:?} {}", logged());
        println!("    {right}");
    }
}
