//! Sealed JSON: a document with the checksum of its own bytes, for what lies in directories and is not believed when it is read back.
//!
//! `{"sha256":"...","manifest":{"format":1,...}}`: the checksum is over the bytes of the inner object as they stand.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

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
