//! Version 1 of commands, events, dead letters and postings.

pub use self::command::{Body, COMMAND_BYTES_MAX, Code, Command, HEADER_BYTES_MAX, HEADERS_MAX, Malformed, Source, Unsendable};
pub use self::command::{decode, home_of};
pub use self::dlq::{dead_letter, dead_lettered_ms, first_sent_ms, origin_of, replayed};
pub use self::event::{AmountEcho, Event, EventName, Snapshot, TimeText, time_text};
pub use self::posting::{Credit, Posting, PostingBody, PostingError};

mod command;
mod dlq;
mod event;
mod fields;
mod json;
mod posting;
