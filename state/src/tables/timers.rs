//! Timers by due time, then payment; a timer whose row is gone is ignored.

use finflow_ledger::PaymentId;
use serde::{Deserialize, Serialize};

use super::{Table, Tag, untagged};
use crate::codec::{self, Error};

/// (due time in ms, payment id) -> what is due.
#[derive(Debug)]
pub struct Timers;

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimerKind {
    /// A payment's deadline.
    Deadline,
}

const FORMAT: u8 = 1;

#[derive(Serialize, Deserialize)]
struct TimerV1 {
    kind: u8,
}

impl Table for Timers {
    const TAG: Tag = Tag::Timers;
    type Key = (i64, PaymentId);
    type Value = TimerKind;

    fn encode_key((due_ms, payment): &Self::Key, out: &mut Vec<u8>) {
        out.push(Tag::Timers as u8);
        // The sign bit is flipped so that byte order is time order.
        out.extend_from_slice(&(*due_ms as u64 ^ (1 << 63)).to_be_bytes());
        out.extend_from_slice(payment.as_bytes());
    }

    fn decode_key(bytes: &[u8]) -> Result<Self::Key, Error> {
        let bytes = untagged(Tag::Timers, bytes)?;
        let (due, payment) = bytes.split_first_chunk::<8>().ok_or(Error::Value("a timer key"))?;
        let payment = payment.try_into().map_err(|_| Error::Value("a payment id"))?;
        Ok(((u64::from_be_bytes(*due) ^ (1 << 63)) as i64, PaymentId::from_bytes(payment)))
    }

    fn encode(kind: &TimerKind, out: &mut Vec<u8>) {
        let kind = match kind {
            TimerKind::Deadline => 0,
        };
        codec::write(FORMAT, &TimerV1 { kind }, out);
    }

    fn decode(_key: &Self::Key, bytes: &[u8]) -> Result<TimerKind, Error> {
        match codec::read::<TimerV1>(FORMAT, bytes)?.kind {
            0 => Ok(TimerKind::Deadline),
            _ => Err(Error::Value("a timer")),
        }
    }

    fn size(_key: &Self::Key, _kind: &TimerKind) -> usize {
        48
    }
}
