//! Named objects in a local directory: put, create, get, list, rename, delete, and nothing else, so that an object store can do the
//! same.
//!
//! An object is whole or not there: it is written under a name that begins with a dot, synced, and only then given its own.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Error, io_error};

/// A directory of objects; names are relative paths.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    root: PathBuf,
}

impl Directory {
    pub(crate) fn new(root: &Path) -> Directory {
        Directory { root: root.to_owned() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Keeps the file `from` as the object `name`: by a hard link where that is possible, else by a copy. An object of that name
    /// stays, and counts as written now, so that nobody takes it for forgotten.
    pub(crate) fn put(&self, name: &str, from: &Path) -> Result<(), Error> {
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

    /// Writes an object that must not be there yet; `false` where it is.
    pub(crate) fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, Error> {
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

    /// Opens an object. One that is missing is a damage of what names it.
    pub(crate) fn get(&self, name: &str) -> Result<File, Error> {
        let path = self.root.join(name);
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::Damaged(format!("{name} is missing"))),
            other => other.map_err(io_error(&path)),
        }
    }

    /// Every object below `prefix` with the time when it was last put.
    pub(crate) fn list(&self, prefix: &str) -> Result<Vec<(String, SystemTime)>, Error> {
        let mut found = Vec::new();
        self.walk(&self.root.join(prefix), &mut found)?;
        Ok(found)
    }

    /// When an object was last put; `None` where there is none.
    pub(crate) fn touched(&self, name: &str) -> Result<Option<SystemTime>, Error> {
        let path = self.root.join(name);
        match fs::metadata(&path).and_then(|metadata| metadata.modified()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some).map_err(io_error(&path)),
        }
    }

    fn walk(&self, dir: &Path, found: &mut Vec<(String, SystemTime)>) -> Result<(), Error> {
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
                found.push((name.to_string_lossy().into_owned(), metadata.modified().map_err(io_error(&path))?));
            }
        }
        Ok(())
    }

    /// Gives an object another name, at which it counts as written now. What had that name is replaced.
    pub(crate) fn rename(&self, name: &str, to: &str) -> Result<(), Error> {
        let (path, to) = (self.root.join(name), self.root.join(to));
        let parent = self.make_parent(&to)?;
        fs::rename(&path, &to).map_err(io_error(&path))?;
        let touched = File::options().append(true).open(&to).and_then(|file| file.set_modified(SystemTime::now()));
        touched.map_err(io_error(&to))?;
        sync(&parent)
    }

    /// Removes an object, if it is there.
    pub(crate) fn delete(&self, name: &str) -> Result<(), Error> {
        let path = self.root.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(io_error(&path)),
        }
    }

    fn make_parent(&self, path: &Path) -> Result<PathBuf, Error> {
        let parent = path.parent().unwrap_or(&self.root).to_owned();
        fs::create_dir_all(&parent).map_err(io_error(&parent))?;
        Ok(parent)
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
