//! What a data directory belongs to: the embedded log that lies in it, or an application on Kafka whose state it has copies of. Noted
//! when it is first used, because the state of one is nothing that the other could go on with: every partition would be halted.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::departure::write;
use super::{Settings, StartError};

/// The note in the data directory.
const NOTE: &str = "BELONGS-TO";
/// Its words for the two logs.
const LOGS: [&str; 2] = ["embedded", "kafka"];

/// A data directory that belongs to something else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}: {remedy}")]
pub struct Foreign {
    /// What it belongs to.
    pub cause: String,
    /// What can be done.
    pub remedy: String,
}

/// The kind of a log and the prefix of an application, where that is known.
#[derive(Debug, PartialEq, Eq)]
struct Owner {
    is_kafka: bool,
    prefix: Option<String>,
}

/// Notes what the directory, which is there, belongs to from now on, or refuses it where that is something else.
pub(super) fn claim(settings: &Settings) -> Result<(), StartError> {
    let (dir, is_kafka, prefix) = (&settings.data_dir, settings.kafka.is_some(), &settings.prefix);
    belongs(dir, is_kafka, prefix)?;
    if dir.join(NOTE).exists() { Ok(()) } else { hand_over(settings) }
}

/// Notes what the directory belongs to from now on, whatever it has belonged to.
pub(super) fn hand_over(settings: &Settings) -> Result<(), StartError> {
    let note = settings.data_dir.join(NOTE);
    let text = format!("{} {}\n", LOGS[usize::from(settings.kafka.is_some())], settings.prefix);
    write(&note, &text).map_err(|error| StartError::Directory(note, error))
}

/// Whether an operator may have the state in a data directory adopted by this application: also where it is that of another one on Kafka.
pub(super) fn may_be_adopted(settings: &Settings) -> Result<(), StartError> {
    let (dir, is_kafka, prefix) = (&settings.data_dir, settings.kafka.is_some(), &settings.prefix);
    match owner(dir).map_err(|error| StartError::Directory(dir.join(NOTE), error))? {
        Some(owner) if is_kafka && owner.is_kafka => Ok(()),
        _ => belongs(dir, is_kafka, prefix),
    }
}

/// Whether a data directory is that of this log and this application, or could be; [`StartError::Foreign`] where it is not.
pub fn belongs(data_dir: &Path, is_kafka: bool, prefix: &str) -> Result<(), StartError> {
    let owner = owner(data_dir).map_err(|error| StartError::Directory(data_dir.join(NOTE), error))?;
    let fits = |owner: &Owner| owner.is_kafka == is_kafka && owner.prefix.as_ref().is_none_or(|noted| noted == prefix);
    owner.filter(|owner| !fits(owner)).map_or(Ok(()), |owner| Err(foreign(data_dir, &owner, is_kafka, prefix).into()))
}

/// What it belongs to by its note, or, where it was made before there were notes, by what lies in it.
fn owner(data_dir: &Path) -> io::Result<Option<Owner>> {
    let text = match fs::read_to_string(data_dir.join(NOTE)) {
        Ok(text) => text,
        // Copies of a state without a log may be those of either.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(data_dir.join("log").is_dir().then_some(Owner { is_kafka: false, prefix: None }));
        }
        Err(error) => return Err(error),
    };
    let (log, prefix) = text.trim_end().split_once(' ').ok_or(ErrorKind::InvalidData)?;
    let log = LOGS.iter().position(|known| *known == log).ok_or(ErrorKind::InvalidData)?;
    Ok(Some(Owner { is_kafka: log == 1, prefix: Some(prefix.to_owned()) }))
}

fn foreign(data_dir: &Path, owner: &Owner, is_kafka: bool, prefix: &str) -> Foreign {
    let log = |is_kafka| if is_kafka { "on Kafka" } else { "on the embedded log" };
    let of = match &owner.prefix {
        Some(noted) => format!("the application {noted} {}", log(owner.is_kafka)),
        None => "an application on the embedded log".to_owned(),
    };
    let dir = data_dir.display();
    let remedy = match owner.is_kafka {
        true => format!("name another one with --data-dir, or remove {dir}, which has only copies of what Kafka holds"),
        false => format!("name another one with --data-dir; whoever removes {dir} gives up the payments in it"),
    };
    Foreign { cause: format!("{dir} belongs to {of}, not to {prefix} {}", log(is_kafka)), remedy }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_belongs_to_what_has_used_it_first() {
        let rows: [(Option<&str>, bool, [bool; 4]); 6] = [
            // The note, whether there is an embedded log, and who may use it: embedded a, embedded b, Kafka a, Kafka b.
            (None, false, [true, true, true, true]),
            (None, true, [true, true, false, false]),
            (Some("embedded a\n"), true, [true, false, false, false]),
            (Some("embedded a\n"), false, [true, false, false, false]),
            (Some("kafka a\n"), false, [false, false, true, false]),
            (Some("kafka b"), false, [false, false, false, true]),
        ];
        for (note, has_log, expected) in rows {
            let dir = tempfile::tempdir().expect("a directory");
            if let Some(note) = note {
                fs::write(dir.path().join(NOTE), note).expect("a note");
            }
            if has_log {
                fs::create_dir(dir.path().join("log")).expect("a directory");
            }
            let may = [(false, "a"), (false, "b"), (true, "a"), (true, "b")].map(|(is_kafka, prefix)| {
                match belongs(dir.path(), is_kafka, prefix) {
                    Ok(()) => true,
                    Err(StartError::Foreign(_)) => false,
                    Err(error) => panic!("{error}"),
                }
            });
            assert_eq!(may, expected, "{note:?} {has_log}");
        }
    }

    #[test]
    fn what_is_no_note_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        for text in ["", "kafka", "tape a\n"] {
            fs::write(dir.path().join(NOTE), text).expect("a note");
            let told = belongs(dir.path(), true, "a").expect_err(text).to_string();
            assert!(told.contains(NOTE), "{told}");
        }
        assert!(belongs(&dir.path().join("none"), true, "a").is_ok());
    }
}
