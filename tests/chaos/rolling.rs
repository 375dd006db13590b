//! A rolling restart: one process after the other is stopped and started again, each when the one before settles everywhere again.

use std::time::Instant;

use crate::application::{Application, NAMES, PARTITIONS};
use crate::costs::{Kind, Mark, report};
use crate::process::eventually;
use crate::witness::Witness;

pub(crate) fn restart_all(app: &mut Application<'_>, witness: &Witness) {
    settles_everywhere(app, witness);
    let (begun, mut marks) = (Instant::now(), Vec::new());
    for name in NAMES {
        let at = Instant::now();
        marks.push(Mark { kind: Kind::Restarted, at, partitions: app.partitions_of(name) });
        app.stop(name, at);
        app.all_run();
        settles_everywhere(app, witness);
    }
    assert_eq!(app.faults, Vec::<String>::new(), "every process has stopped as it was asked\n{}", app.logged());
    println!("    took {:.1} s", begun.elapsed().as_secs_f64());
    report(&marks, &witness.seen().gaps, begun);
}

/// Waits until every partition has settled something.
pub(crate) fn settles_everywhere(app: &mut Application<'_>, witness: &Witness) {
    let since = Instant::now();
    eventually(|| {
        app.look(Instant::now());
        let settled_at = witness.seen().settled_at.clone();
        let late: Vec<u32> =
            (0..PARTITIONS).zip(settled_at).filter(|(_, at)| at.is_none_or(|at| at < since)).map(|(id, _)| id).collect();
        if late.is_empty() { Ok(()) } else { Err(format!("partitions {late:?} settle nothing\n{}", app.logged())) }
    });
}
