//! How a command fails: what the user reads, and the exit code that scripts read.

use std::fmt;

use finflow_actors::{MoveError, ReadError, StartError, socket};
use finflow_topologies::{log, rescale};

/// A failure with its exit code.
#[derive(Debug)]
pub(crate) enum Failure {
    /// 1: it did not work.
    Failed(String),
    /// 2: a mistake on the command line that the parser cannot see.
    Usage(String),
    /// 3: a verification found a difference.
    Difference(String),
    /// 75: it may work later.
    Temporary(String),
    /// 78: the configuration is wrong.
    Configuration(String),
    /// 0: nobody reads standard output any more, and there is nothing to tell about it.
    ReaderGone,
}

impl Failure {
    pub(crate) fn code(&self) -> u8 {
        match self {
            Failure::Failed(_) => 1,
            Failure::Usage(_) => 2,
            Failure::Difference(_) => 3,
            Failure::Temporary(_) => 75,
            Failure::Configuration(_) => 78,
            Failure::ReaderGone => 0,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Failed(text)
            | Failure::Usage(text)
            | Failure::Difference(text)
            | Failure::Temporary(text)
            | Failure::Configuration(text) => f.write_str(text),
            Failure::ReaderGone => f.write_str("nobody reads the output any more"),
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Failure {
        let text = error.to_string();
        match error {
            StartError::Log(log::Error::Busy(cause)) => {
                Failure::Temporary(format!("the data directory is in use by another finflow process: {cause}"))
            }
            // Nobody was asked: what is set makes no sense.
            StartError::Snapshots(_) | StartError::Foreign(_) => Failure::Configuration(text),
            StartError::Log(error) => error.into(),
            _ => Failure::Failed(text),
        }
    }
}

impl From<MoveError> for Failure {
    fn from(error: MoveError) -> Failure {
        let text = error.to_string();
        match error {
            MoveError::Start(error) => error.into(),
            MoveError::Rescale(rescale::Error::Log(log::Error::Fenced)) => Failure::Temporary(goes_on(&text)),
            MoveError::Rescale(rescale::Error::Log(cause)) => match cause.into() {
                Failure::Temporary(told) => Failure::Temporary(goes_on(&told)),
                other => other,
            },
            MoveError::Rescale(rescale::Error::Unsound(_) | rescale::Error::Different(_)) => Failure::Difference(text),
            MoveError::Rescale(_) | MoveError::Dump(_) | MoveError::Obstacles(_) | MoveError::Directory(..) => {
                Failure::Failed(text)
            }
        }
    }
}

/// What a move that has ended too early leaves to be done.
fn goes_on(cause: &str) -> String {
    format!("{cause}; run it again, it goes on there")
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Failure {
        match error {
            ReadError::Elsewhere(_) => Failure::Temporary(error.to_string()),
            ReadError::Store(_) | ReadError::Halted(..) => Failure::Failed(error.to_string()),
        }
    }
}

impl From<log::Error> for Failure {
    fn from(error: log::Error) -> Failure {
        match error {
            log::Error::Refused(cause) | log::Error::Forbidden(cause) => Failure::Configuration(cause),
            log::Error::Unavailable(_) => Failure::Temporary(error.to_string()),
            error => Failure::Failed(error.to_string()),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::Failed(error.to_string())
    }
}

/// What a running service answered.
impl From<socket::Error> for Failure {
    fn from(error: socket::Error) -> Failure {
        match error {
            socket::Error::Failed(cause) => Failure::Failed(cause),
            socket::Error::Unavailable(cause) => Failure::Temporary(cause),
            socket::Error::Refused(cause) => Failure::Configuration(cause),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_says_by_its_code_whether_it_may_work_later() {
        let rows = [
            (log::Error::Unavailable("no broker answers at 127.0.0.1:9092 after 10 s".to_owned()), 75),
            (log::Error::Lasting("there is no topic finflow.commands.v1".to_owned()), 1),
            (log::Error::Busy("locked".to_owned()), 75),
            (log::Error::Refused("the log has 8 partitions, 4 are configured".to_owned()), 78),
            (log::Error::Forbidden("not authorized".to_owned()), 78),
            (log::Error::Corrupt("a record cannot be read".to_owned()), 1),
        ];
        for (error, code) in rows {
            let text = error.to_string();
            assert_eq!(Failure::from(StartError::Log(error)).code(), code, "{text}");
        }
    }

    #[test]
    fn a_move_goes_on_unless_somebody_has_to_change_something_first() {
        let rows = [
            (log::Error::Unavailable("no answer in time".to_owned()), 75),
            (log::Error::Lasting("IO error: No space left on device".to_owned()), 1),
            (log::Error::Fenced, 75),
            (log::Error::Forbidden("not authorized".to_owned()), 78),
            (log::Error::Refused("it has gone elsewhere".to_owned()), 78),
            (log::Error::Corrupt("a record cannot be read".to_owned()), 1),
        ];
        for (error, code) in rows {
            let failure = Failure::from(MoveError::Rescale(rescale::Error::Log(error)));
            assert_eq!((failure.code(), failure.to_string().contains("run it again")), (code, code == 75), "{failure}");
        }
    }
}
