//! The chunk: the records of one commit and partition as one value with a checksum.
//!
//! `format u8 | timestamp i64 | repeated (key length + 1 u32, value length + 1 u32, headers length u32, key, value, headers) | crc32c`,
//! big-endian; length 0 stands for no key or no value. Reading slices the records out without copying.

use bytes::{Buf, BufMut, Bytes};
use finflow_state::Stamp;
use finflow_topologies::log::{Headers, Outgoing, Position, Record};

const FORMAT: u8 = 1;

pub(super) fn encode(timestamp_ms: i64, records: &[Outgoing]) -> Vec<u8> {
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, |bytes| bytes.len());
    let sizes = records.iter().map(|record| 12 + length(&record.key) + length(&record.value) + record.headers.as_bytes().len());
    let mut out = Vec::with_capacity(sizes.sum::<usize>() + 13);
    out.put_u8(FORMAT);
    out.put_i64(timestamp_ms);
    for record in records {
        out.put_u32(record.key.as_ref().map_or(0, |key| key.len() as u32 + 1));
        out.put_u32(record.value.as_ref().map_or(0, |value| value.len() as u32 + 1));
        out.put_u32(record.headers.as_bytes().len() as u32);
        out.put_slice(record.key.as_deref().unwrap_or_default());
        out.put_slice(record.value.as_deref().unwrap_or_default());
        out.put_slice(record.headers.as_bytes());
    }
    let checksum = crc32c::crc32c(&out);
    out.put_u32(checksum);
    out
}

/// `None` where the bytes are not a chunk.
pub(super) fn decode(base: u64, bytes: Bytes) -> Option<Vec<Record>> {
    let body_length = bytes.len().checked_sub(4)?;
    let mut body = bytes.slice(..body_length);
    let checksum = u32::from_be_bytes(bytes.get(body_length..)?.try_into().ok()?);
    if crc32c::crc32c(&body) != checksum || body.try_get_u8().ok()? != FORMAT {
        return None;
    }
    let timestamp_ms = body.try_get_i64().ok()?;
    let mut records = Vec::new();
    while body.has_remaining() {
        let key = body.try_get_u32().ok()?.checked_sub(1);
        let value = body.try_get_u32().ok()?.checked_sub(1);
        let headers = body.try_get_u32().ok()?;
        let mut take = |length: u32| (length as usize <= body.len()).then(|| body.split_to(length as usize));
        let key = match key {
            Some(length) => Some(take(length)?),
            None => None,
        };
        let value = match value {
            Some(length) => Some(take(length)?),
            None => None,
        };
        let headers = Headers::from_bytes(take(headers)?)?;
        records.push(Record { offset: base.checked_add(records.len() as u64)?, timestamp_ms, key, value, headers });
    }
    Some(records)
}

pub(super) fn encode_position(position: &Position) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u8(FORMAT);
    out.put_u64(position.commands);
    out.put_u64(position.block);
    out.put_slice(position.stamp.to_string().as_bytes());
    out
}

pub(super) fn decode_position(partition: u32, mut row: &[u8]) -> Option<Position> {
    if row.try_get_u8().ok()? != FORMAT {
        return None;
    }
    let (commands, block) = (row.try_get_u64().ok()?, row.try_get_u64().ok()?);
    let stamp = Stamp::parse(std::str::from_utf8(row).ok()?)?;
    Some(Position { partition, commands, block, stamp })
}
