//! Room on the disk that holds a directory, or will once it is made.

use std::path::{Path, PathBuf};

/// The nearest directory, or whatever else is in the way, that is there.
pub(crate) fn existing(dir: &Path) -> PathBuf {
    let named = dir.ancestors().find(|path| !path.as_os_str().is_empty() && std::fs::symlink_metadata(path).is_ok());
    named.map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// What the disk has room for that holds the directory, or will.
pub(crate) fn free_bytes(dir: &Path) -> std::io::Result<u64> {
    let disk = rustix::fs::statvfs(existing(dir))?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_looked_for_where_it_will_be() {
        let base = tempfile::tempdir().expect("a directory");
        let file = base.path().join("file");
        std::fs::write(&file, "x").expect("a file");
        let rows = [
            (base.path().to_owned(), base.path().to_owned()),
            (base.path().join("a/b"), base.path().to_owned()),
            (file.join("a"), file.clone()),
            (PathBuf::from("finflow-no-such-directory/x"), PathBuf::from(".")),
        ];
        for (dir, expected) in rows {
            assert_eq!(existing(&dir), expected, "{dir:?}");
        }
        assert!(0 < free_bytes(&base.path().join("a/b")).expect("a disk"));
    }
}
