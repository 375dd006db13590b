//! Where an application has gone that was left for another: noted before anything is brought there, so that nobody goes on with it
//! here, or takes it to a third place.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use finflow_topologies::log::Error;

use super::Settings;
use crate::log::kafka::{KafkaLog, departure};

/// The note in the data directory of an embedded log.
const RESCALED: &str = "RESCALED";

/// Where the application has gone, or is on its way to.
pub(super) fn departed(settings: &Settings) -> Result<Option<String>, Error> {
    match &settings.kafka {
        Some(kafka) => KafkaLog::departed(kafka),
        None => match fs::read_to_string(note(settings)) {
            Ok(place) => Ok(Some(place)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unwritten(settings, &error)),
        },
    }
}

/// Notes where it goes. [`Error::Refused`] where it has gone elsewhere. On the embedded log the caller holds the log.
pub(super) fn depart(settings: &Settings, to: &Settings) -> Result<(), Error> {
    let place = place(to);
    match (&settings.kafka, departed(settings)?) {
        (_, Some(found)) if found != place => Err(Error::Refused(format!("{}; it cannot go to {place}", gone(settings, &found)))),
        (_, Some(_)) => Ok(()),
        (Some(kafka), None) => KafkaLog::depart(kafka, &place),
        (None, None) => write(&note(settings), &place).map_err(|error| unwritten(settings, &error)),
    }
}

/// That it is gone, and how to have it back.
pub(super) fn gone(settings: &Settings, place: &str) -> String {
    match &settings.kafka {
        Some(_) => departure::gone(place),
        None => {
            let note = note(settings);
            let back = format!("{} says so, and keeps it from going on here", note.display());
            format!("the application has moved to {place}, or is on its way there; {back}")
        }
    }
}

/// What tells a place from others.
pub(super) fn place(to: &Settings) -> String {
    let place = format!("{} with {} partitions", to.prefix, to.partitions);
    let dir = std::path::absolute(&to.data_dir).unwrap_or_else(|_| to.data_dir.clone());
    if to.kafka.is_some() { place } else { format!("{place} in {}", dir.display()) }
}

fn note(settings: &Settings) -> PathBuf {
    settings.data_dir.join(RESCALED)
}

/// All of it or nothing, also after a loss of power.
pub(super) fn write(note: &Path, place: &str) -> io::Result<()> {
    let part = note.with_extension("part");
    let mut file = File::create(&part)?;
    file.write_all(place.as_bytes())?;
    file.sync_all()?;
    fs::rename(&part, note)?;
    let dir = note.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

fn unwritten(settings: &Settings, error: &io::Error) -> Error {
    Error::Lasting(format!("{}: {error}", note(settings).display()))
}
