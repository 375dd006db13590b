//! What this program is, for `--version` and `/version`: FinFlow, the commit it was built from where the build says so (`make` does),
//! and the RocksDB inside.

use std::sync::LazyLock;

/// The RocksDB that librocksdb-sys brings; a test holds it against `Cargo.lock`.
pub(crate) const ROCKSDB: &str = "11.8.1";

static TEXT: LazyLock<String> = LazyLock::new(|| {
    let commit = option_env!("FINFLOW_COMMIT").filter(|commit| !commit.is_empty());
    let commit = commit.map(|commit| format!("commit {commit}, ")).unwrap_or_default();
    format!("{} ({commit}RocksDB {ROCKSDB})", env!("CARGO_PKG_VERSION"))
});

/// For example `0.1.0 (commit 504ff7c, RocksDB 11.8.1)`.
pub(crate) fn text() -> &'static str {
    &TEXT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rocksdb_is_the_one_that_is_built_in() {
        let lock = include_str!("../Cargo.lock");
        let package = lock.split("[[package]]").find(|package| package.contains("name = \"librocksdb-sys\"")).expect("a package");
        assert!(package.contains(&format!("+{ROCKSDB}\"")), "{package}");
        assert!(text().starts_with(env!("CARGO_PKG_VERSION")) && text().contains(ROCKSDB), "{}", text());
    }
}
