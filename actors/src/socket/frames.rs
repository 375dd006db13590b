//! How requests and replies travel: a length (u32, big-endian) and a postcard value; and how records and rows look in them.

use bytes::Bytes;
use finflow_state::Table;
use finflow_topologies::log::{Headers, Record};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Reply, unexpected};
use crate::node::Publish;

/// The longest frame, in bytes.
pub(super) const FRAME_BYTES_MAX: usize = 64 << 20;

/// A connection, whatever it runs over.
pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Sent {
    partition: Option<u32>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<u8>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Read {
    offset: u64,
    timestamp_ms: i64,
    sent: Sent,
}

pub(super) fn row<T: Table>(key: &T::Key, value: &T::Value) -> (Vec<u8>, Vec<u8>) {
    let (mut key_bytes, mut value_bytes) = (Vec::new(), Vec::new());
    T::encode_key(key, &mut key_bytes);
    T::encode(value, &mut value_bytes);
    (key_bytes, value_bytes)
}

pub(super) fn rows<T: Table>(reply: Reply) -> Result<Vec<T::Value>, super::Error> {
    let Reply::Rows(rows) = reply else { return unexpected(&reply) };
    let decoded = rows.iter().map(|(key, value)| T::decode(&T::decode_key(key)?, value));
    decoded.collect::<Result<Vec<_>, _>>().map_err(|error| super::Error::Failed(error.to_string()))
}

pub(super) async fn send<T: Serialize>(stream: &mut dyn Wire, value: &T) -> std::io::Result<()> {
    let frame = postcard::to_stdvec(value).map_err(std::io::Error::other)?;
    let length = u32::try_from(frame.len()).map_err(std::io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(&frame).await
}

/// `None` at the end of the conversation.
pub(super) async fn receive<T: for<'de> Deserialize<'de>>(stream: &mut dyn Wire) -> std::io::Result<Option<T>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length).await {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let length = u32::from_be_bytes(length) as usize;
    if FRAME_BYTES_MAX < length {
        return Err(std::io::Error::other("a frame is too long"));
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame).await?;
    postcard::from_bytes(&frame).map(Some).map_err(std::io::Error::other)
}

impl From<Publish> for Sent {
    fn from(record: Publish) -> Sent {
        let owned = |bytes: Option<Bytes>| bytes.map(|bytes| bytes.to_vec());
        let headers = record.headers.as_bytes().to_vec();
        Sent { partition: record.partition, key: owned(record.key), value: owned(record.value), headers }
    }
}

impl TryFrom<Sent> for Publish {
    type Error = String;

    fn try_from(sent: Sent) -> Result<Publish, String> {
        let headers = Headers::from_bytes(sent.headers.into()).ok_or("headers are malformed")?;
        Ok(Publish { partition: sent.partition, key: sent.key.map(Bytes::from), value: sent.value.map(Bytes::from), headers })
    }
}

impl From<Record> for Read {
    fn from(record: Record) -> Read {
        let Record { offset, timestamp_ms, key, value, headers } = record;
        Read { offset, timestamp_ms, sent: Publish { partition: None, key, value, headers }.into() }
    }
}

impl TryFrom<Read> for Record {
    type Error = String;

    fn try_from(read: Read) -> Result<Record, String> {
        let Publish { key, value, headers, .. } = Publish::try_from(read.sent)?;
        Ok(Record { offset: read.offset, timestamp_ms: read.timestamp_ms, key, value, headers })
    }
}
