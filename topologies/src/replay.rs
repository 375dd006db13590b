//! Dead letters that are sent again: what the engine would make of each of them now. Pure; the caller looks up records and sends.
//!
//! Only what can be carried out for the first time is worth sending. The payment id is the same however often a command is sent, so
//! that one which slips through twice is a duplicate; and it is as old as its first sending, so that one whose record may have been
//! forgotten is refused, here as a forecast and in the partition for good.

use finflow_ledger::{CommandKind, Coordinates, PaymentId};

use crate::log::{Outgoing, Record};
use crate::partition::Rules;
use crate::topics::{RECORD_BYTES_MAX, partition_of_key, payment_id};
use crate::wire::v1::{Code, Malformed, decode, first_sent_ms, replayed};

/// A command that can be understood now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// What is to be sent.
    pub record: Outgoing,
    /// The partition of its key, where it is to be sent; from there it is forwarded if its home is another one.
    pub partition: u32,
    /// What it asks for.
    pub kind: CommandKind,
    /// The payment, or other command, that it is.
    pub id: PaymentId,
    /// What it says; see `Command::fingerprint`.
    pub fingerprint: [u8; 16],
}

/// Why a dead letter is not sent again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// What it holds is no command that was sent, or not the whole of it.
    #[error("{0}")]
    Unsendable(&'static str),
    /// It would be dead-lettered once more.
    #[error("{}", .0.message)]
    Malformed(Malformed),
    /// The record that would answer for it may have been forgotten.
    #[error("it was sent longer ago than a command's key is remembered (dedup.retention)")]
    Expired,
    /// The very same command has been taken: there is nothing left to do.
    #[error("the same command has been taken meanwhile")]
    Duplicate,
    /// Its key stands for another request.
    #[error("its key stands for another request, which stays as it is")]
    KeyReused,
}

impl Refusal {
    /// Its word, that of the header `x-error-code` or of an event's reason where there is one.
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::Unsendable(_) => "unsendable",
            Refusal::Malformed(malformed) => malformed.code.as_str(),
            Refusal::Expired => "expired",
            Refusal::Duplicate => "duplicate",
            Refusal::KeyReused => "key_reused",
        }
    }
}

/// The command of a dead letter at `place`, if it can be understood at `now_ms` and is not too old.
pub fn candidate(letter: &Record, place: Coordinates, rules: &Rules, now_ms: i64) -> Result<Candidate, Refusal> {
    let record = replayed(letter, place, &rules.prefix).map_err(Refusal::Unsendable)?;
    let command = decode(record.value.as_deref(), &record.headers).map_err(Refusal::Malformed)?;
    if RECORD_BYTES_MAX < record.bytes() {
        let message = format!("a record longer than {RECORD_BYTES_MAX} bytes is not taken");
        return Err(Refusal::Malformed(Malformed { code: Code::TooLarge, message }));
    }
    if rules.is_expired(first_sent_ms(&record.headers, now_ms), now_ms) {
        return Err(Refusal::Expired);
    }
    Ok(Candidate {
        partition: partition_of_key(record.key.as_deref().unwrap_or_default(), rules.partitions),
        kind: command.kind(),
        id: payment_id(&command.tenant, &command.wallet, &command.key),
        fingerprint: command.fingerprint,
        record,
    })
}

impl Candidate {
    /// Whether it is the first command of its key, given the fingerprint of the one that is known.
    pub fn against(&self, known: Option<[u8; 16]>) -> Result<(), Refusal> {
        match known {
            None => Ok(()),
            Some(known) if known == self.fingerprint => Err(Refusal::Duplicate),
            Some(_) => Err(Refusal::KeyReused),
        }
    }
}
