//! The value codec: one format byte, then the row's private struct of that format in postcard.
//!
//! Domain types have no serialised form of their own: each format is a struct here in the tables, and frozen by a fixture.

use serde::{Deserialize, Serialize};

/// Why stored bytes are not a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Written by a newer version.
    #[error("format {0} is not known")]
    Format(u8),
    /// Too short, or not what the format says.
    #[error("malformed: {0}")]
    Malformed(String),
    /// Well formed, but no value of the domain.
    #[error("not a value: {0}")]
    Value(&'static str),
}

/// Appends `value` after the format byte.
pub(crate) fn write<T: Serialize>(format: u8, value: &T, out: &mut Vec<u8>) {
    out.push(format);
    let buffer = std::mem::take(out);
    // Serialising plain structs into a growing buffer cannot fail; an empty row would be refused when read.
    *out = postcard::to_extend(value, buffer).unwrap_or_default();
}

/// Reads what [`write()`] wrote, without copying texts.
pub(crate) fn read<'a, T: Deserialize<'a>>(format: u8, bytes: &'a [u8]) -> Result<T, Error> {
    let Some((found, body)) = bytes.split_first() else { return Err(Error::Malformed("empty".to_owned())) };
    if *found != format {
        return Err(Error::Format(*found));
    }
    let (value, rest) = postcard::take_from_bytes(body).map_err(|error| Error::Malformed(error.to_string()))?;
    if !rest.is_empty() {
        return Err(Error::Malformed("bytes follow the row".to_owned()));
    }
    Ok(value)
}
