//! The block: header and changed rows in one record with a checksum.
//!
//! `format u8 | header length u32 | header | rows | crc32c of all before`, little-endian. A row is
//! `key length u16 | value length + 1, or 0 for a removal, u32 | key | value`. Restoring copies rows without decoding them.

use bytes::Bytes;

use super::header::HeaderV1;
use super::{Generation, Header, Positions, Stamp};
use crate::overlay::Overlay;

const FORMAT: u8 = 1;
const CHECKSUM_BYTES: usize = 4;
/// The rows of block 0.
const COUNT_KEY: [u8; 1] = [0];
const DUMP_KEY: [u8; 1] = [1];

/// Why bytes are not a block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Cut short, or not a block at all.
    #[error("the block is cut short")]
    Truncated,
    /// The checksum does not match.
    #[error("the block's checksum does not match")]
    Checksum,
    /// Written by a newer version.
    #[error("block format {0} is not known")]
    Format(u8),
    /// The header cannot be read.
    #[error("the block's header cannot be read: {0}")]
    Header(String),
}

/// A block as it stands in the journal, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedBlock {
    bytes: Bytes,
    rows_at: usize,
    header: Header,
}

impl EncodedBlock {
    /// Writes a block.
    pub fn encode(header: &Header, overlay: &Overlay) -> EncodedBlock {
        let mut out = start(header, overlay.bytes_estimate());
        let rows_at = out.len();
        overlay.encode_sorted(&mut |key, value| write_row(&mut out, key, value));
        finish(out, rows_at, header.clone())
    }

    /// Writes a block of rows as they stand: key, and value or `None` where the row is removed.
    pub fn of_rows<'a>(header: &Header, rows: impl IntoIterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> EncodedBlock {
        let mut out = start(header, 0);
        let rows_at = out.len();
        rows.into_iter().for_each(|(key, value)| write_row(&mut out, key, value));
        finish(out, rows_at, header.clone())
    }

    /// Block 0 of a partition: it holds the generation, and as a row the partition count.
    pub fn genesis(generation: Generation, partition: u32, partitions: u32, at_ms: i64) -> EncodedBlock {
        EncodedBlock::begin(generation, partition, partitions, at_ms, None)
    }

    /// Block 0 of a partition whose state is brought here from the dump of this id. Until the last block of that, in which all
    /// partitions share one transaction, nothing of it may be served.
    pub fn import(generation: Generation, partition: u32, partitions: u32, at_ms: i64, dump: [u8; 32]) -> EncodedBlock {
        EncodedBlock::begin(generation, partition, partitions, at_ms, Some(dump))
    }

    fn begin(generation: Generation, partition: u32, partitions: u32, at_ms: i64, dump: Option<[u8; 32]>) -> EncodedBlock {
        let stamp = Stamp::genesis();
        let header = Header {
            generation,
            partition,
            number: 0,
            stamp: stamp.clone(),
            previous: stamp,
            at_ms,
            positions: Positions::default(),
            sent: vec![],
            received: vec![],
        };
        let mut out = start(&header, 64);
        let rows_at = out.len();
        write_row(&mut out, &COUNT_KEY, Some(&partitions.to_le_bytes()));
        if let Some(dump) = dump {
            write_row(&mut out, &DUMP_KEY, Some(&dump));
        }
        finish(out, rows_at, header)
    }

    /// The partition count that block 0 holds.
    pub fn partition_count(&self) -> Option<u32> {
        Some(u32::from_le_bytes(self.row_of_genesis(COUNT_KEY)?.try_into().ok()?))
    }

    /// The id of the dump from which the partition's state is brought, which block 0 holds.
    pub fn dump(&self) -> Option<[u8; 32]> {
        self.row_of_genesis(DUMP_KEY)?.try_into().ok()
    }

    fn row_of_genesis(&self, key: [u8; 1]) -> Option<&[u8]> {
        self.rows().find(|(found, _)| self.header.number == 0 && **found == key)?.1
    }

    /// Checks the bytes of a block.
    pub fn parse(bytes: Bytes) -> Result<EncodedBlock, BlockError> {
        let format = *bytes.first().ok_or(BlockError::Truncated)?;
        let (body, checksum) =
            bytes.len().checked_sub(CHECKSUM_BYTES).and_then(|at| bytes.split_at_checked(at)).ok_or(BlockError::Truncated)?;
        if crc32c::crc32c(body).to_le_bytes() != *checksum {
            return Err(BlockError::Checksum);
        }
        if format != FORMAT {
            return Err(BlockError::Format(format));
        }
        let (length, rest) = body.get(1..).and_then(|rest| rest.split_first_chunk::<4>()).ok_or(BlockError::Truncated)?;
        let length = u32::from_le_bytes(*length) as usize;
        let header = rest.get(..length).ok_or(BlockError::Truncated)?;
        let header: HeaderV1<'_> = postcard::from_bytes(header).map_err(|error| BlockError::Header(error.to_string()))?;
        let header = Header::from(header);
        Ok(EncodedBlock { rows_at: 5 + length, header, bytes })
    }

    /// Its header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Its bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Its rows: key, and value or `None` where the row is removed.
    pub fn rows(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let end = self.bytes.len().saturating_sub(CHECKSUM_BYTES);
        Rows(self.bytes.get(self.rows_at..end).unwrap_or_default())
    }
}

/// Rows as a block and a dump have them.
pub(crate) struct Rows<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Rows<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let (lengths, rest) = self.0.split_first_chunk::<6>()?;
        let [a, b, c, d, e, f] = *lengths;
        let (key, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([a, b])))?;
        let value = u32::from_le_bytes([c, d, e, f]).checked_sub(1);
        let (bytes, rest) = rest.split_at_checked(value.unwrap_or_default() as usize)?;
        self.0 = rest;
        Some((key, value.map(|_| bytes)))
    }
}

/// The header in the block's own form, for a store's head row.
pub(crate) fn encode_header(header: &Header) -> Vec<u8> {
    let mut out = start(header, 0);
    let checksum = crc32c::crc32c(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

fn start(header: &Header, rows_estimate: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(rows_estimate + 256);
    out.extend_from_slice(&[FORMAT, 0, 0, 0, 0]);
    out = postcard::to_extend(&header.to_v1(), out).unwrap_or_default();
    let length = (out.len().saturating_sub(5) as u32).to_le_bytes();
    if let Some(place) = out.get_mut(1..5) {
        place.copy_from_slice(&length);
    }
    out
}

/// Appends a row; a key is at most 65,535 bytes long.
pub(crate) fn write_row(out: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    out.extend_from_slice(&(key.len() as u16).to_le_bytes());
    out.extend_from_slice(&value.map_or(0, |value| value.len() as u32 + 1).to_le_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(value.unwrap_or_default());
}

fn finish(mut out: Vec<u8>, rows_at: usize, header: Header) -> EncodedBlock {
    let checksum = crc32c::crc32c(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    EncodedBlock { bytes: Bytes::from(out), rows_at, header }
}
