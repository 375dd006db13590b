//! Whether a start would succeed and what runs is well: one finding for each thing that has to be right, with what to do where it is not.
//! What this machine has to offer is looked at here; the cluster tells its part in `log/kafka/readiness.rs`.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::descriptors;
pub use crate::finding::{Finding, State};
use crate::node::{Foreign, PartitionStatus, StartError, belongs};
use crate::settings::{Settings, SnapshotPlace};
use crate::space::{existing, free_bytes};

/// Free space below which a log, its stores and their snapshots are about to fill the disk.
const FREE_BYTES_MIN: u64 = 1 << 30;
/// How far the clock may be behind what was written under it before.
const BEHIND_MAX: Duration = Duration::from_secs(5);
/// Written and removed again, to see whether that is possible.
const PROBE: &str = ".finflow-check";

/// What this machine has to offer: directories that can be written, room in them, enough open files, and, where the log is the node's
/// own, a clock that has not gone back.
pub fn machine(settings: &Settings) -> Vec<Finding> {
    let data_dir = &settings.data_dir;
    let what = "data directory";
    let mut found = vec![match belongs(data_dir, settings.kafka.is_some(), &settings.prefix) {
        Err(StartError::Foreign(Foreign { cause, remedy })) => Finding::wrong(what, cause, remedy),
        _ => directory(what, data_dir, "--data-dir"),
    }];
    found.push(room("disk", data_dir));
    match &settings.housekeeping.snapshots {
        SnapshotPlace::BesideData => {}
        SnapshotPlace::Directory(dir) | SnapshotPlace::Shared(dir) => {
            found.push(directory("snapshot directory", dir, "snapshots.url"));
            found.push(room("snapshot disk", dir));
        }
        SnapshotPlace::Bucket(_) => found.push(bucket(settings)),
    }
    found.push(descriptors::finding(settings));
    if settings.kafka.is_none() {
        found.push(own_clock(&data_dir.join("log")));
    }
    found
}

/// How a running service is, by the state of its partitions and what of it does not work.
pub fn service(partitions: &[PartitionStatus], faults: &[(String, String)]) -> Vec<Finding> {
    let mut found: Vec<Finding> = faults
        .iter()
        .map(|(what, cause)| {
            Finding::unavailable("service", format!("{what}: {cause}"), "it goes on by itself once that works again")
        })
        .collect();
    for PartitionStatus { partition, state, cause, .. } in partitions {
        match cause {
            Some(cause) => {
                let remedy = format!("find out why, then `finflow partitions resume {partition}`");
                found.push(Finding::unavailable("service", format!("partition {partition} is halted: {cause}"), remedy));
            }
            None if state != "running" => {
                let cause = format!("partition {partition} is {state}");
                found.push(Finding::unavailable("service", cause, "see whether enough processes run, and ask again"));
            }
            None => {}
        }
    }
    if found.is_empty() {
        found.push(Finding::well("service", format!("it runs, and {} partitions with it", partitions.len())));
    }
    found
}

/// Whether files can be made in a directory, or in the one that it will be made in.
fn directory(what: &'static str, dir: &Path, option: &str) -> Finding {
    let (place, shown) = (existing(dir), dir.display());
    let remedy =
        || format!("have {} be a directory that this user may write, or name another one with {option}", place.display());
    if !place.is_dir() {
        return Finding::wrong(what, format!("{} is no directory", place.display()), remedy());
    }
    let probe = place.join(format!("{PROBE}-{}", std::process::id()));
    let written = File::create_new(&probe).and_then(|file| file.sync_all()).and_then(|()| std::fs::remove_file(&probe));
    match written {
        Ok(()) if place == dir => Finding::well(what, format!("{shown} can be written")),
        Ok(()) => Finding::well(what, format!("{shown} is not there yet, and can be made")),
        Err(error) => Finding::wrong(what, format!("{}: {error}", place.display()), remedy()),
    }
}

/// Whether snapshots can be listed, written and removed in the bucket. This asks its server, and may take some minutes.
fn bucket(settings: &Settings) -> Finding {
    const WHAT: &str = "snapshot bucket";
    let probe = format!("{}-{}", settings.node_id, std::process::id());
    let probed = settings.snapshots().and_then(|snapshots| snapshots.probe(&probe).map(|()| snapshots.place()));
    match probed {
        Ok(place) => Finding::well(WHAT, format!("{place} can be listed and written")),
        Err(error) => {
            let remedy = "see whether its server is up, snapshots.url and snapshots.endpoint name it, and who asks may list, read, \
                          write and delete there";
            Finding::unavailable(WHAT, error.to_string(), remedy)
        }
    }
}

fn room(what: &'static str, dir: &Path) -> Finding {
    let place = existing(dir);
    match free_bytes(&place) {
        Ok(free_bytes) => room_of(what, &place, free_bytes),
        Err(error) => Finding::unavailable(what, format!("{}: {error}", place.display()), "see whether the disk is mounted"),
    }
}

fn room_of(what: &'static str, place: &Path, free_bytes: u64) -> Finding {
    let (shown, free_mib, min_mib) = (place.display(), free_bytes >> 20, FREE_BYTES_MIN >> 20);
    if FREE_BYTES_MIN <= free_bytes {
        return Finding::well(what, format!("{free_mib} MiB are free at {shown}"));
    }
    let cause = format!("{free_mib} MiB are free at {shown}, {min_mib} are needed");
    Finding::unavailable(what, cause, "make room on that disk, or move the directory to a larger one")
}

/// Nothing but what was written before can tell whether the clock of a machine that is alone is right.
fn own_clock(log_dir: &Path) -> Finding {
    let newest = std::fs::read_dir(log_dir).ok().and_then(|entries| {
        let times = entries.filter_map(|entry| entry.ok()?.metadata().ok()?.modified().ok());
        times.max()
    });
    match newest.and_then(|newest| newest.duration_since(SystemTime::now()).ok()).filter(|ahead| BEHIND_MAX < *ahead) {
        None => Finding::well("clock", "it is not behind what the log has written"),
        Some(ahead) => {
            let cause = format!("it is {} s behind what the log has written", ahead.as_secs());
            Finding::unavailable("clock", cause, "set the clock of this machine; no epoch begins before")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(finding: &Finding) -> String {
        match &finding.state {
            State::Well(seen) => format!("well: {seen}"),
            State::Skipped(why) => format!("skipped: {why}"),
            State::Unavailable { cause, .. } => format!("unavailable: {cause}"),
            State::Wrong { cause, .. } => format!("wrong: {cause}"),
        }
    }

    #[test]
    fn directories_and_room_are_told_with_their_causes() {
        let base = tempfile::tempdir().expect("a directory");
        let file = base.path().join("file");
        std::fs::write(&file, "x").expect("a file");
        for (dir, expected) in [
            (base.path().to_owned(), "can be written"),
            (base.path().join("a/b"), "is not there yet, and can be made"),
            (file.clone(), "is no directory"),
            (file.join("a"), "is no directory"),
        ] {
            let found = told(&directory("data directory", &dir, "--data-dir"));
            assert!(found.contains(expected), "{dir:?}: {found}");
        }
        assert_eq!(std::fs::read_dir(base.path()).expect("a directory").count(), 1, "nothing is left behind");
        for (free, expected) in [
            (FREE_BYTES_MIN, "well: 1024 MiB are free at x"),
            (FREE_BYTES_MIN - 1, "unavailable: 1023 MiB are free at x, 1024 are needed"),
            (0, "unavailable: 0 MiB"),
        ] {
            let found = told(&room_of("disk", Path::new("x"), free));
            assert!(found.starts_with(expected), "{found}");
        }
    }

    #[test]
    fn a_clock_that_has_gone_back_is_seen() {
        let base = tempfile::tempdir().expect("a directory");
        assert!(told(&own_clock(&base.path().join("none"))).starts_with("well"));
        let written = base.path().join("000001.log");
        std::fs::write(&written, "x").expect("a file");
        for (ahead_s, expected) in [(0, "well"), (3, "well"), (600, "unavailable")] {
            let file = File::options().append(true).open(&written).expect("a file");
            file.set_modified(SystemTime::now() + Duration::from_secs(ahead_s)).expect("a time");
            assert!(told(&own_clock(base.path())).starts_with(expected), "{ahead_s}");
        }
    }
}
