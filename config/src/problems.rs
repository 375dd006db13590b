//! What is wrong with a configuration, and where: all of it at once, in the order of the layers.
//! Never a value, which could be a secret; only places, keys and what a value must be.

use std::fmt;

/// Where a problem was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In a file. Line and column count from 1, the column in characters.
    File {
        /// The name as it was given.
        name: String,
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// In the variable of this name.
    Variable(String),
    /// In the setting of this key.
    Setting(String),
}

impl Place {
    /// The place of the byte at `offset` of `text`.
    pub(crate) fn in_file(name: &str, text: &str, offset: usize) -> Place {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place::File {
            name: name.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File { name, line, column } => write!(f, "{name}:{line}:{column}"),
            Place::Variable(name) => write!(f, "variable {name}"),
            Place::Setting(key) => write!(f, "--set {key}"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{place}: {message}")]
pub struct Problem {
    /// Where it is.
    pub place: Place,
    /// What it is, naming the key.
    pub message: String,
}

/// All things that are wrong; never empty where it is an error. Displayed one a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// The problems, in the order of the layers and of the lines of a file.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Problem> {
        self.0.iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn add(&mut self, place: Place, message: String) {
        self.0.push(Problem { place, message });
    }

    /// Adds the problems of one layer in the order of their places.
    pub(crate) fn add_layer(&mut self, mut layer: Problems) {
        layer.0.sort();
        self.0.append(&mut layer.0);
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if 0 < index {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
