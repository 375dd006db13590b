//! Postings: what one partition tells another - a credit, the answer to one, or a command that came to the wrong place.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use finflow_ledger::{
    CommandKind, Coordinates, Currency, IdempotencyKey, Money, PaymentId, Private, Rejection, Tenant, WalletId,
};
use serde::{Deserialize, Serialize};

use crate::log::{self, Headers, Outgoing, Record};

const FORMAT: u8 = 1;

/// A posting on its way. Sequences of a pair of partitions run 1, 2, 3 ... over all kinds of body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posting {
    /// The partition that sent it.
    pub source: u32,
    /// The partition that it is for.
    pub destination: u32,
    /// Its number in this pair.
    pub sequence: u64,
    /// What it says.
    pub body: PostingBody,
}

/// What a posting says.
#[derive(Clone, PartialEq, Eq)]
pub enum PostingBody {
    /// Credit a wallet.
    Credit(Box<Credit>),
    /// The receiver's answer: credited, or why not.
    Acknowledge {
        /// The payment.
        payment: PaymentId,
        /// The answer.
        outcome: Result<(), Rejection>,
    },
    /// A command that came to a partition that is not its home, as it came.
    Forward {
        /// The record's key.
        key: Option<Bytes>,
        /// The record's value.
        value: Option<Bytes>,
        /// The record's headers.
        headers: Headers,
        /// When the log took it, in milliseconds since 1970-01-01 UTC.
        timestamp_ms: i64,
        /// Where it was read.
        source: Coordinates,
    },
}

/// The receiver's leg of a payment, with all that its event tells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Credit {
    pub payment: PaymentId,
    pub from: WalletId,
    pub to: WalletId,
    pub amount: Money,
    pub tenant: Tenant,
    pub key: IdempotencyKey,
    pub reference: Option<Private>,
    pub metadata: Vec<(Arc<str>, Private)>,
    pub correlation: Option<Arc<str>>,
    pub traceparent: Option<Arc<str>>,
    pub source: Coordinates,
    pub kind: CommandKind,
}

impl PostingBody {
    /// About how many bytes it carries, besides what every posting has.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            PostingBody::Credit(credit) => credit.bytes(),
            PostingBody::Acknowledge { .. } => 0,
            PostingBody::Forward { key, value, headers, .. } => log::bytes(key.as_ref(), value.as_ref(), headers),
        }
    }

    /// The command that is forwarded, as it was read, and where; `None` for what is no command.
    pub(crate) fn forwarded(&self) -> Option<(Record, Coordinates)> {
        let PostingBody::Forward { key, value, headers, timestamp_ms, source } = self else { return None };
        let (key, value, headers) = (key.clone(), value.clone(), headers.clone());
        Some((Record { offset: source.offset, timestamp_ms: *timestamp_ms, key, value, headers }, *source))
    }
}

impl Credit {
    fn bytes(&self) -> usize {
        let optional = |text: &Option<Arc<str>>| text.as_ref().map_or(0, |text| text.len());
        let ids = self.from.as_str().len() + self.to.as_str().len() + self.tenant.as_str().len() + self.key.as_str().len();
        let texts =
            self.reference.as_ref().map_or(0, |text| text.len()) + optional(&self.correlation) + optional(&self.traceparent);
        ids + texts + self.metadata.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
    }
}

/// A forwarded command is named by its place, because its bytes may be about a person.
impl fmt::Debug for PostingBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PostingBody::Credit(credit) => f.debug_tuple("Credit").field(credit).finish(),
            PostingBody::Acknowledge { payment, outcome } => write!(f, "Acknowledge({payment}, {outcome:?})"),
            PostingBody::Forward { source, .. } => write!(f, "Forward({source:?})"),
        }
    }
}

/// Why a record is not a posting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PostingError {
    /// No value.
    #[error("the record has no value")]
    Empty,
    /// Written by a newer version.
    #[error("posting format {0} is not known")]
    Format(u8),
    /// Not what the format says.
    #[error("malformed: {0}")]
    Malformed(&'static str),
}

#[derive(Serialize, Deserialize)]
struct PostingV1<'a> {
    source: u32,
    destination: u32,
    sequence: u64,
    #[serde(borrow)]
    body: BodyV1<'a>,
}

#[derive(Serialize, Deserialize)]
enum BodyV1<'a> {
    Credit {
        payment: [u8; 16],
        from: &'a str,
        to: &'a str,
        currency: u16,
        minor: i128,
        tenant: &'a str,
        key: &'a str,
        reference: Option<&'a str>,
        #[serde(borrow)]
        metadata: Vec<(&'a str, &'a str)>,
        correlation: Option<&'a str>,
        traceparent: Option<&'a str>,
        partition: u32,
        offset: u64,
        kind: &'a str,
    },
    Acknowledge {
        payment: [u8; 16],
        /// None = credited; else the rejection's word.
        refused: Option<&'a str>,
    },
    Forward {
        key: Option<&'a [u8]>,
        value: Option<&'a [u8]>,
        headers: &'a [u8],
        timestamp_ms: i64,
        partition: u32,
        offset: u64,
    },
}

impl Posting {
    /// The record of the posting.
    pub fn encode(&self) -> Outgoing {
        let body = match &self.body {
            PostingBody::Credit(credit) => BodyV1::Credit {
                payment: *credit.payment.as_bytes(),
                from: credit.from.as_str(),
                to: credit.to.as_str(),
                currency: credit.amount.currency().numeric(),
                minor: credit.amount.minor(),
                tenant: credit.tenant.as_str(),
                key: credit.key.as_str(),
                reference: credit.reference.as_deref(),
                metadata: credit.metadata.iter().map(|(name, value)| (&**name, &**value)).collect(),
                correlation: credit.correlation.as_deref(),
                traceparent: credit.traceparent.as_deref(),
                partition: credit.source.partition,
                offset: credit.source.offset,
                kind: credit.kind.as_str(),
            },
            PostingBody::Acknowledge { payment, outcome } => {
                BodyV1::Acknowledge { payment: *payment.as_bytes(), refused: outcome.err().map(Rejection::code) }
            }
            PostingBody::Forward { key, value, headers, timestamp_ms, source } => BodyV1::Forward {
                key: key.as_deref(),
                value: value.as_deref(),
                headers: headers.as_bytes(),
                timestamp_ms: *timestamp_ms,
                partition: source.partition,
                offset: source.offset,
            },
        };
        let row = PostingV1 { source: self.source, destination: self.destination, sequence: self.sequence, body };
        // Serialising plain structs into a growing buffer cannot fail; an empty record would be refused when read.
        let value = postcard::to_extend(&row, vec![FORMAT]).unwrap_or_default();
        let key = match &self.body {
            PostingBody::Credit(credit) => Some(Bytes::copy_from_slice(credit.to.as_str().as_bytes())),
            PostingBody::Acknowledge { .. } => None,
            PostingBody::Forward { key, .. } => key.clone(),
        };
        Outgoing { key, value: Some(Bytes::from(value)), ..Outgoing::default() }
    }

    /// The posting that a record holds.
    pub fn decode(record: &Record) -> Result<Posting, PostingError> {
        let bytes = record.value.as_ref().ok_or(PostingError::Empty)?;
        let (format, body) = bytes.split_first().ok_or(PostingError::Empty)?;
        if *format != FORMAT {
            return Err(PostingError::Format(*format));
        }
        let (row, rest) = postcard::take_from_bytes::<PostingV1<'_>>(body).map_err(|_| PostingError::Malformed("fields"))?;
        if !rest.is_empty() {
            return Err(PostingError::Malformed("bytes follow the posting"));
        }
        let body = row.body.prove(bytes)?;
        Ok(Posting { source: row.source, destination: row.destination, sequence: row.sequence, body })
    }
}

impl BodyV1<'_> {
    fn prove(self, record: &Bytes) -> Result<PostingBody, PostingError> {
        const MALFORMED: PostingError = PostingError::Malformed("a value");
        let owned = |text: Option<&str>| text.map(Arc::<str>::from);
        let wallet = |text: &str| WalletId::parse(text).ok_or(MALFORMED);
        Ok(match self {
            BodyV1::Credit {
                payment,
                from,
                to,
                currency,
                minor,
                tenant,
                key,
                reference,
                metadata,
                correlation,
                traceparent,
                partition,
                offset,
                kind,
            } => PostingBody::Credit(Box::new(Credit {
                payment: PaymentId::from_bytes(payment),
                from: wallet(from)?,
                to: wallet(to)?,
                amount: Money::from_minor(minor, Currency::from_numeric(currency).ok_or(MALFORMED)?),
                tenant: Tenant::parse(tenant).ok_or(MALFORMED)?,
                key: IdempotencyKey::parse(key).ok_or(MALFORMED)?,
                reference: reference.map(Private::from),
                metadata: metadata.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
                correlation: owned(correlation),
                traceparent: owned(traceparent),
                source: Coordinates { partition, offset },
                kind: CommandKind::ALL.into_iter().find(|known| known.as_str() == kind).ok_or(MALFORMED)?,
            })),
            BodyV1::Acknowledge { payment, refused } => {
                let outcome = match refused {
                    None => Ok(()),
                    Some(code) => Err(Rejection::from_code(code).ok_or(MALFORMED)?),
                };
                PostingBody::Acknowledge { payment: PaymentId::from_bytes(payment), outcome }
            }
            BodyV1::Forward { key, value, headers, timestamp_ms, partition, offset } => PostingBody::Forward {
                key: key.map(|key| record.slice_ref(key)),
                value: value.map(|value| record.slice_ref(value)),
                headers: Headers::from_bytes(record.slice_ref(headers)).ok_or(MALFORMED)?,
                timestamp_ms,
                source: Coordinates { partition, offset },
            },
        })
    }
}

#[cfg(test)]
mod tests;
