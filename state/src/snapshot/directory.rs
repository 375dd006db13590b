//! Named objects in a directory of this machine, or of another one that it has mounted.
//!
//! An object is whole or not there: it is written under a name that begins with a dot, synced, and only then given its own.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::objects::{Found, Objects};
use super::{Error, io_error};

/// A directory of objects; names are relative paths.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    root: PathBuf,
    /// Whether it is made where it is not there. One that is mounted is missed instead.
    is_ours: bool,
}

impl Directory {
    pub(crate) fn new(root: &Path, is_ours: bool) -> Directory {
        Directory { root: root.to_owned(), is_ours }
    }

    fn is_there(&self) -> Result<(), Error> {
        match self.is_ours || self.root.is_dir() {
            true => Ok(()),
            false => Err(Error::Io(self.place(), "it is not there; is it mounted?".to_owned())),
        }
    }

    fn walk(&self, dir: &Path, found: &mut Vec<Found>) -> Result<(), Error> {
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(io_error(dir))?,
        };
        for entry in entries {
            let path = entry.map_err(io_error(dir))?.path();
            let metadata = match fs::metadata(&path) {
                // It was removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(io_error(&path))?,
            };
            if metadata.is_dir() {
                self.walk(&path, found)?;
            } else if let Ok(name) = path.strip_prefix(&self.root) {
                let put_at = metadata.modified().map_err(io_error(&path))?;
                found.push(Found { name: name.to_string_lossy().into_owned(), bytes: metadata.len(), put_at });
            }
        }
        Ok(())
    }

    fn make_parent(&self, path: &Path) -> Result<PathBuf, Error> {
        self.is_there()?;
        let parent = path.parent().unwrap_or(&self.root).to_owned();
        fs::create_dir_all(&parent).map_err(io_error(&parent))?;
        Ok(parent)
    }
}

impl Objects for Directory {
    fn place(&self) -> String {
        self.root.display().to_string()
    }

    fn list(&self, folder: &str) -> Result<Vec<Found>, Error> {
        self.is_there()?;
        let mut found = Vec::new();
        self.walk(&self.root.join(folder), &mut found)?;
        Ok(found)
    }

    fn get(&self, name: &str) -> Result<Box<dyn Read + '_>, Error> {
        let path = self.root.join(name);
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.is_there()?;
                Err(Error::Missing(name.to_owned()))
            }
            other => Ok(Box::new(other.map_err(io_error(&path))?)),
        }
    }

    /// By a hard link where that is possible, else by a copy.
    fn put(&self, name: &str, from: &Path) -> Result<(), Error> {
        let path = self.root.join(name);
        let parent = self.make_parent(&path)?;
        match fs::hard_link(from, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(_) => copy(from, &path)?,
            Ok(()) => {}
        }
        // Only a file open for writing takes a time on every platform; nothing is written.
        let file = File::options().append(true).open(&path).map_err(io_error(&path))?;
        file.set_modified(SystemTime::now()).and_then(|()| file.sync_all()).map_err(io_error(&path))?;
        sync(&parent)
    }

    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, Error> {
        let path = self.root.join(name);
        let parent = self.make_parent(&path)?;
        let hidden = hidden(&path);
        let write = || {
            let mut file = File::create(&hidden)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            // Unlike a rename, a link never replaces what is there.
            fs::hard_link(&hidden, &path)
        };
        let written = write();
        let removed = fs::remove_file(&hidden);
        match written {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            other => other.and(removed).map_err(io_error(&path))?,
        }
        sync(&parent)?;
        Ok(true)
    }

    fn rename(&self, name: &str, to: &str) -> Result<(), Error> {
        let (path, to) = (self.root.join(name), self.root.join(to));
        let parent = self.make_parent(&to)?;
        fs::rename(&path, &to).map_err(io_error(&path))?;
        let touched = File::options().append(true).open(&to).and_then(|file| file.set_modified(SystemTime::now()));
        touched.map_err(io_error(&to))?;
        sync(&parent)
    }

    fn delete(&self, name: &str) -> Result<(), Error> {
        let path = self.root.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(io_error(&path)),
        }
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    let hidden = hidden(to);
    let copied = fs::copy(from, &hidden).and_then(|_| File::open(&hidden)?.sync_all()).and_then(|()| fs::rename(&hidden, to));
    copied.map_err(|error| {
        // What is left of it is removed with the other unnamed files.
        let _ = fs::remove_file(&hidden);
        io_error(to)(error)
    })
}

/// The name under which an object is written.
fn hidden(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}", std::process::id()))
}

/// Makes the names in a directory durable.
pub(crate) fn sync(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error(dir))
}
