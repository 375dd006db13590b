//! The chunk: the records of one commit and partition as one value with a checksum.
//!
//! `format u8 | timestamp i64 | body length u32 | body | crc32c`, big-endian; a body repeats
//! `key length plus 1 u32 | value length plus 1 u32 | headers length u32 | key | value | headers`, where length 0 stands for no key
//! or no value. In formats 2 and 4 the body is compressed with LZ4, and the length is what it was before: records of one commit are
//! much alike, and every byte goes to the disk twice. In formats 3 and 4 each record begins with its own time, `i64`; elsewhere it
//! has that of the chunk, when the log took it.
//! Reading slices the records out without copying.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use finflow_state::Stamp;
use finflow_topologies::log::{Headers, Outgoing, Position, Record};

use super::view::Appended;

const PLAIN: u8 = 1;
const COMPRESSED: u8 = 2;
const TIMED: u8 = 3;
const TIMED_COMPRESSED: u8 = 4;
/// Of a position's row.
const FORMAT: u8 = 1;
/// Shorter bodies are not worth compressing.
const COMPRESSED_BYTES_MIN: usize = 256;
/// A compressed body is read back only up to this length, in bytes: longer than any commit.
const BODY_BYTES_MAX: usize = 1 << 30;

const HEAD_BYTES: usize = 13;
const TAIL_BYTES: usize = 4;
/// What a record takes in memory besides its bytes.
const RECORD_BYTES: usize = size_of::<Record>();

/// A chunk on its way to the disk.
pub(super) struct Encoded {
    /// The chunk.
    pub(super) stored: Vec<u8>,
    /// The number of its records.
    pub(super) count: u64,
    /// The records themselves, slices of the body with offsets from 0 on, where they are wanted.
    records: Option<(Vec<Record>, usize)>,
}

impl Encoded {
    /// What readers may keep once it is durable at `base`.
    pub(super) fn appended(self, base: u64) -> Option<Arc<Appended>> {
        let (records, body_bytes) = self.records.filter(|(records, _)| !records.is_empty())?;
        let bytes = body_bytes.saturating_add(records.len().saturating_mul(RECORD_BYTES));
        Some(Arc::new(Appended { base, records, bytes }))
    }
}

/// Encodes records, with times of their own where those are kept, and keeps them at hand if they are wanted; `None` for what could
/// not be read back.
pub(super) fn encode(timestamp_ms: i64, records: &[Outgoing], are_timed: bool, are_wanted: bool) -> Option<Encoded> {
    let body = body(timestamp_ms, records, are_timed);
    if BODY_BYTES_MAX < body.len() {
        return None;
    }
    let packed = (COMPRESSED_BYTES_MIN <= body.len()).then(|| lz4_flex::block::compress(&body));
    let packed = packed.filter(|packed| packed.len() < body.len());
    let (plain, compressed) = if are_timed { (TIMED, TIMED_COMPRESSED) } else { (PLAIN, COMPRESSED) };
    let (format, packed) = packed.as_deref().map_or((plain, &*body), |packed| (compressed, packed));
    let mut stored = Vec::with_capacity(packed.len().saturating_add(HEAD_BYTES).saturating_add(TAIL_BYTES));
    stored.put_u8(format);
    stored.put_i64(timestamp_ms);
    stored.put_u32(body.len() as u32);
    stored.put_slice(packed);
    let checksum = crc32c::crc32c(&stored);
    stored.put_u32(checksum);
    let body_bytes = body.len();
    let kept = match are_wanted {
        true => Some((slices(timestamp_ms, body.into(), are_timed)?, body_bytes)),
        false => None,
    };
    Some(Encoded { stored, count: records.len() as u64, records: kept })
}

fn body(timestamp_ms: i64, records: &[Outgoing], are_timed: bool) -> Vec<u8> {
    let mut body = Vec::with_capacity(records.iter().map(|record| 20 + record.bytes()).sum());
    for record in records {
        if are_timed {
            body.put_i64(record.timestamp_ms.unwrap_or(timestamp_ms));
        }
        body.put_u32(record.key.as_ref().map_or(0, |key| key.len() as u32 + 1));
        body.put_u32(record.value.as_ref().map_or(0, |value| value.len() as u32 + 1));
        body.put_u32(record.headers.as_bytes().len() as u32);
        body.put_slice(record.key.as_deref().unwrap_or_default());
        body.put_slice(record.value.as_deref().unwrap_or_default());
        body.put_slice(record.headers.as_bytes());
    }
    body
}

/// The records of a chunk, with offsets from 0 on; `None` where the bytes are not a chunk.
pub(super) fn decode(stored: Bytes) -> Option<Vec<Record>> {
    let (checked, checksum) = stored.split_last_chunk::<TAIL_BYTES>()?;
    if crc32c::crc32c(checked) != u32::from_be_bytes(*checksum) {
        return None;
    }
    let mut body = stored.slice(..checked.len());
    let (format, timestamp_ms, length) = (body.try_get_u8().ok()?, body.try_get_i64().ok()?, body.try_get_u32().ok()?);
    let length = usize::try_from(length).ok().filter(|length| *length <= BODY_BYTES_MAX)?;
    let body = match format {
        PLAIN | TIMED => body,
        COMPRESSED | TIMED_COMPRESSED => Bytes::from(lz4_flex::block::decompress(&body, length).ok()?),
        _ => return None,
    };
    if body.len() == length { slices(timestamp_ms, body, matches!(format, TIMED | TIMED_COMPRESSED)) } else { None }
}

fn slices(taken_ms: i64, mut body: Bytes, are_timed: bool) -> Option<Vec<Record>> {
    let mut records = Vec::new();
    while body.has_remaining() {
        let timestamp_ms = if are_timed { body.try_get_i64().ok()? } else { taken_ms };
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
        records.push(Record { offset: records.len() as u64, timestamp_ms, key, value, headers });
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

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing(key: Option<&str>, value: Option<Vec<u8>>, timestamp_ms: Option<i64>) -> Outgoing {
        let headers = Headers::from_pairs([("a", &b"1"[..]), ("a", &b"2"[..])]);
        let key = key.map(|key| Bytes::copy_from_slice(key.as_bytes()));
        Outgoing { key, value: value.map(Bytes::from), headers, timestamp_ms }
    }

    #[test]
    fn records_come_back_compressed_or_not_and_damage_is_noticed() {
        let mut random = fastrand::Rng::with_seed(1);
        let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(1_000).collect();
        for (values, own_ms, format) in [
            (vec![None, Some(Vec::new())], None, PLAIN),
            (vec![Some(b"short".to_vec())], None, PLAIN),
            (vec![Some(noise.clone())], None, PLAIN),
            (vec![Some(vec![7; 100_000])], None, COMPRESSED),
            (vec![Some(b"{\"event\":\"payment.settled\"}".to_vec()); 50], None, COMPRESSED),
            (Vec::new(), None, PLAIN),
            (vec![Some(noise)], Some(-7), TIMED),
            (vec![Some(vec![7; 100_000]); 2], Some(1_700_000_000_000), TIMED_COMPRESSED),
        ] {
            // Every other record brings no time of its own.
            let own = |n: usize| own_ms.filter(|_| n.is_multiple_of(2));
            let records = values.into_iter().enumerate().map(|(n, value)| outgoing(Some("k"), value, own(n)));
            let records: Vec<Outgoing> = records.collect();
            let encoded = encode(42, &records, own_ms.is_some(), true).expect("records that can be read back");
            let stored = encoded.stored.clone();
            assert_eq!((stored.first(), encoded.count), (Some(&format), records.len() as u64));
            let found = decode(stored.clone().into()).expect("a chunk");
            let told = |record: &Record| (record.key.clone(), record.value.clone(), record.headers.clone(), record.timestamp_ms);
            let time = |sent: &Outgoing| sent.timestamp_ms.unwrap_or(42);
            let expected = records.iter().map(|sent| (sent.key.clone(), sent.value.clone(), sent.headers.clone(), time(sent)));
            assert!(found.iter().map(told).eq(expected));
            let kept = encoded.appended(9).map(|appended| appended.records.clone()).unwrap_or_default();
            assert_eq!(kept, found);
            for _ in 0..50 {
                let mut broken = stored.clone();
                let at = random.usize(..broken.len());
                broken[at] ^= 1 << random.u8(..8);
                assert_eq!(decode(broken.into()), None, "byte {at}");
                assert_eq!(decode(stored[..random.usize(..stored.len())].to_vec().into()), None);
            }
        }
    }
}
