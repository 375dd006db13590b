//! Snapshots in a directory; an object store is held to the same where it is brought along.

use std::path::Path;

use finflow_state::snapshot::in_directory;

use self::snapshots::{CASES, Place};

#[path = "support/snapshots.rs"]
mod snapshots;

#[test]
fn a_directory_is_a_place_for_snapshots() {
    let make = |root: &Path| Place { objects: in_directory(root), root: root.to_owned() };
    for (what, case) in CASES {
        eprintln!("{what}");
        case(&make);
    }
}
