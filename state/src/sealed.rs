//! Sealed JSON: a document with the checksum of its own bytes, for what lies in directories and is not believed when it is read back.
//!
//! `{"sha256":"...","manifest":{"format":1,...}}`: the checksum is over the bytes of the inner object as they stand. Where a partition
//! stood is written in the same fields in each of them.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::journal::{Generation, Head, Positions, Stamp};

/// Why bytes are not a sealed document of a known format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Broken {
    /// It is not what it was when it was written, in words that follow "its manifest".
    Damaged(String),
    /// Written by a newer version.
    Format(u32),
}

#[derive(Serialize, Deserialize)]
struct Sealed<'a> {
    sha256: String,
    #[serde(borrow)]
    manifest: &'a RawValue,
}

#[derive(Deserialize)]
struct Versioned {
    format: u32,
}

/// The bytes of `document`, sealed.
pub(crate) fn seal(document: &impl Serialize) -> Vec<u8> {
    // Texts, whole numbers and lists of them: JSON can write them all.
    let manifest = serde_json::value::to_raw_value(document).unwrap_or_default();
    let sha256 = hex(&Sha256::digest(manifest.get()));
    serde_json::to_vec(&Sealed { sha256, manifest: &manifest }).unwrap_or_default()
}

/// Reads what [`seal`] wrote, of this format alone.
pub(crate) fn unseal<T: DeserializeOwned>(bytes: &[u8], due: u32) -> Result<T, Broken> {
    let damaged = |error: serde_json::Error| Broken::Damaged(format!("cannot be read: {error}"));
    let sealed: Sealed<'_> = serde_json::from_slice(bytes).map_err(damaged)?;
    if sealed.sha256 != hex(&Sha256::digest(sealed.manifest.get())) {
        return Err(Broken::Damaged("has another checksum".to_owned()));
    }
    let Versioned { format } = serde_json::from_str(sealed.manifest.get()).map_err(damaged)?;
    if format != due {
        return Err(Broken::Format(format));
    }
    serde_json::from_str(sealed.manifest.get()).map_err(damaged)
}

/// Where a partition stood, as documents have it; the generation stands beside it.
#[derive(Serialize, Deserialize)]
pub(crate) struct HeadV1 {
    pub(crate) partition: u32,
    block: u64,
    stamp: String,
    at_ms: i64,
    commands: u64,
    postings: u64,
    sent: Vec<(u32, u64)>,
    received: Vec<(u32, u64)>,
}

impl From<&Head> for HeadV1 {
    fn from(head: &Head) -> HeadV1 {
        HeadV1 {
            partition: head.partition,
            block: head.number,
            stamp: head.stamp.to_string(),
            at_ms: head.at_ms,
            commands: head.positions.commands,
            postings: head.positions.postings,
            sent: head.sent.iter().map(|(to, sequence)| (*to, *sequence)).collect(),
            received: head.received.iter().map(|(from, sequence)| (*from, *sequence)).collect(),
        }
    }
}

impl HeadV1 {
    /// The head, or what the document does not name.
    pub(crate) fn prove(self, generation: Generation) -> Result<Head, &'static str> {
        Ok(Head {
            generation,
            partition: self.partition,
            number: self.block,
            stamp: Stamp::parse(&self.stamp).ok_or("a stamp")?,
            at_ms: self.at_ms,
            positions: Positions { commands: self.commands, postings: self.postings },
            sent: self.sent.into_iter().collect(),
            received: self.received.into_iter().collect(),
        })
    }
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Lower-case hex of exactly `N` bytes.
pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let is_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if text.len() != N * 2 || !is_hex {
        return None;
    }
    let mut bytes = [0; N];
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(place * 2..place * 2 + 2)?, 16).ok()?;
    }
    Some(bytes)
}
