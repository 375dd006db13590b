//! Standard output: data only, one line at a time. A reader that has gone, as in `finflow tail | head -1`, ends the command quietly.

use std::io::{self, BufWriter, StdoutLock, Write};

use serde_json::Value;

use crate::cli::{Common, Format};
use crate::failure::Failure;

/// Standard output, buffered until [`Output::flush`] or the end of the command.
pub(crate) struct Output(BufWriter<StdoutLock<'static>>);

impl Output {
    pub(crate) fn new() -> Output {
        Output(BufWriter::new(io::stdout().lock()))
    }

    pub(crate) fn line(&mut self, line: impl std::fmt::Display) -> Result<(), Failure> {
        writeln!(self.0, "{line}").map_err(written)
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.0.write_all(bytes).map_err(written)
    }

    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.0.flush().map_err(written)
    }
}

fn written(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Failure::ReaderGone
    } else {
        Failure::Failed(format!("standard output: {error}"))
    }
}

/// Prints text that ends its own lines.
pub(crate) fn text(text: &str) -> Result<(), Failure> {
    let mut out = Output::new();
    out.bytes(text.as_bytes())?;
    out.flush()
}

/// One JSON object a line, or `name value` pairs for people.
pub(crate) fn print(common: &Common, value: &Value) -> Result<(), Failure> {
    let mut out = Output::new();
    match common.format {
        Format::Json => out.line(value)?,
        Format::Text | Format::Mermaid => out.line(pairs(value))?,
    }
    out.flush()
}

/// `name value` for everything that is known.
fn pairs(value: &Value) -> String {
    let pairs = value.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    let pair = |(name, value): (&String, &Value)| match value.as_str() {
        Some(text) => format!("{name} {text}"),
        None => format!("{name} {value}"),
    };
    pairs.map(pair).collect::<Vec<_>>().join("  ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn people_read_pairs_in_the_contracts_order() {
        let value = serde_json::json!({ "wallet": "alice", "currency": "AED", "reason": null, "wallet_seq": 3, "sums": { "AED": "1.00" } });
        assert_eq!(super::pairs(&value), r#"wallet alice  currency AED  wallet_seq 3  sums {"AED":"1.00"}"#);
    }
}
