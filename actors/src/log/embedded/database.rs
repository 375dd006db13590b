//! The database, open or closed. After a write that failed nobody builds on a guess: it is closed, and opened again by whoever writes
//! next or by itself; what is found then is durable, and tells what became of the write.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use finflow_topologies::log::Error;
use rocksdb::DB;
use tracing::{error, info, warn};

use super::view::{TAIL_BYTES_MAX, View};
use super::{EmbeddedLog, disk};

/// How long a closed log waits before it tries to open again.
const REOPEN_EVERY: Duration = Duration::from_millis(100);

pub(super) enum Database {
    Open(DB),
    /// A write has failed, for this cause: what is on disk is not known until it is opened again.
    Closed(Error),
}

impl Database {
    pub(super) fn db(&self) -> Result<&DB, Error> {
        match self {
            Database::Open(db) => Ok(db),
            Database::Closed(cause) => Err(cause.clone()),
        }
    }
}

impl EmbeddedLog {
    /// Closes the log after a write that failed, until what it left behind is known. The caller has the pen.
    pub(super) fn close(&self, error: &Error) {
        error!(cause = %error, "the log's disk failed, it is closed until it can be opened again");
        *self.0.database.write().unwrap_or_else(PoisonError::into_inner) = Database::Closed(error.clone());
        let shared = Arc::downgrade(&self.0);
        let reopen = move || {
            while let Some(log) = shared.upgrade().map(EmbeddedLog) {
                if log.0.line.alone(|| log.ensure_open()).is_ok() {
                    break;
                }
                drop(log);
                std::thread::sleep(REOPEN_EVERY);
            }
        };
        if let Err(cause) = std::thread::Builder::new().name("log-reopen".to_owned()).spawn(reopen) {
            warn!(%cause, "the log stays closed until somebody writes");
        }
    }

    /// Opens a closed log again, so that nobody builds on a guess. The caller has the pen: an end that is read beside a write would
    /// hide that write, and the next one would overwrite it.
    pub(super) fn ensure_open(&self) -> Result<(), Error> {
        if self.fault().is_none() {
            return Ok(());
        }
        let opened = self.open_again();
        let mut database = self.0.database.write().unwrap_or_else(PoisonError::into_inner);
        match opened {
            Ok(db) => *database = Database::Open(db),
            Err(error) => {
                *database = Database::Closed(error.clone());
                return Err(error);
            }
        }
        drop(database);
        info!("the log is open again");
        self.tick();
        Ok(())
    }

    fn open_again(&self) -> Result<DB, Error> {
        let db = self.0.disk.open(&self.0.dir)?;
        let view = View::new(disk::ranges(&db, self.0.partitions)?, TAIL_BYTES_MAX);
        self.owners().positions = disk::positions(&db, self.0.partitions)?;
        *self.0.view.write().unwrap_or_else(PoisonError::into_inner) = view;
        Ok(db)
    }
}

/// What is told about a write whose writer panicked.
pub(super) fn died() -> Error {
    Error::Unavailable("the writer of this write died".to_owned())
}
