//! Lines on their way to `publish`: read on a thread of their own, in chunks of what the source had to give, so that a slow source
//! is published as it comes and a fast one in large batches. At most two chunks wait.

use std::io::{self, BufRead, BufReader, Read};

use bytes::Bytes;
use finflow_topologies::wire::v1::COMMAND_BYTES_MAX;
use tokio::sync::mpsc;

/// Bytes read from the source at a time, and about as many in a chunk.
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks read ahead of the log.
const CHUNKS_AHEAD: usize = 2;
/// Of a longer line only this much is kept, and it is refused.
const LINE_BYTES_MAX: usize = COMMAND_BYTES_MAX + 1;

/// A line, without its end and the white space around it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Its number in the source, from 1.
    pub(super) number: u64,
    pub(super) text: Bytes,
}

/// Lines that are not blank, and the bytes of the source that they took.
#[derive(Default)]
pub(super) struct Chunk {
    pub(super) lines: Vec<Line>,
    pub(super) bytes: u64,
}

/// Begins to read; the channel ends with the source or after its first error.
pub(super) fn read(source: impl Read + Send + 'static) -> mpsc::Receiver<io::Result<Chunk>> {
    let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
    std::thread::spawn(move || {
        let mut source = BufReader::with_capacity(CHUNK_BYTES, source);
        let mut number = 0;
        loop {
            let chunk = chunk(&mut source, &mut number).transpose();
            let Some(chunk) = chunk else { return };
            let is_over = chunk.is_err();
            if sender.blocking_send(chunk).is_err() || is_over {
                return;
            }
        }
    });
    chunks
}

/// The next lines, as many as can be had without waiting for the source again; `None` at its end.
fn chunk<R: Read>(source: &mut BufReader<R>, number: &mut u64) -> io::Result<Option<Chunk>> {
    let mut chunk = Chunk::default();
    while (chunk.bytes as usize) < CHUNK_BYTES {
        let Some((line, bytes)) = line(source)? else { break };
        *number += 1;
        chunk.bytes += bytes;
        let text = line.trim_ascii();
        if !text.is_empty() {
            chunk.lines.push(Line { number: *number, text: Bytes::copy_from_slice(text) });
        }
        if !source.buffer().contains(&b'\n') {
            break;
        }
    }
    Ok((chunk.bytes != 0).then_some(chunk))
}

/// One line of any length, of which at most [`LINE_BYTES_MAX`] bytes are kept, and how long it was; `None` at the end.
fn line(source: &mut impl BufRead) -> io::Result<Option<(Vec<u8>, u64)>> {
    let (mut kept, mut length) = (Vec::new(), 0);
    loop {
        let found = match source.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            found => found?,
        };
        if found.is_empty() {
            return Ok((length != 0).then_some((kept, length)));
        }
        let end = found.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(found.len(), |end| end + 1);
        let text = &found[..end.unwrap_or(found.len())];
        // Blanks around a command do not count, however many they are.
        let text = if kept.is_empty() { text.trim_ascii_start() } else { text };
        kept.extend_from_slice(&text[..text.len().min(LINE_BYTES_MAX.saturating_sub(kept.len()))]);
        source.consume(taken);
        length += taken as u64;
        if end.is_some() {
            return Ok(Some((kept, length)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source that gives one piece with each read.
    struct Pieces(Vec<Vec<u8>>);

    impl Read for Pieces {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let piece = self.0.remove(0);
            into[..piece.len()].copy_from_slice(&piece);
            Ok(piece.len())
        }
    }

    fn chunks(pieces: &[&[u8]]) -> Vec<Vec<(u64, String)>> {
        let mut chunks = read(Pieces(pieces.iter().map(|piece| piece.to_vec()).collect()));
        let mut found = Vec::new();
        while let Some(chunk) = chunks.blocking_recv() {
            let lines = chunk.expect("a source without faults").lines;
            found.push(lines.into_iter().map(|line| (line.number, String::from_utf8_lossy(&line.text).into_owned())).collect());
        }
        found
    }

    #[test]
    fn lines_keep_their_numbers_and_come_as_soon_as_they_are_there() {
        let line = |number: u64, text: &str| (number, text.to_owned());
        assert_eq!(chunks(&[]), Vec::<Vec<_>>::new());
        assert_eq!(
            chunks(&[b"a\nb\n\n  \r\n c \r\nd"]),
            vec![vec![line(1, "a"), line(2, "b"), line(5, "c")], vec![line(6, "d")]]
        );
        assert_eq!(chunks(&[b"a\n", b"b\n"]), vec![vec![line(1, "a")], vec![line(2, "b")]]);
        assert_eq!(chunks(&[b"a", b"b\nc", b"\n"]), vec![vec![line(1, "ab")], vec![line(2, "c")]]);
    }

    #[test]
    fn a_long_line_is_one_line_and_is_not_kept_whole() {
        let long = vec![b'x'; 900_000];
        let told = chunks(&[&long, &long, &long, b"\n{}\n"]);
        let told: Vec<(u64, usize)> = told.concat().iter().map(|(number, text)| (*number, text.len())).collect();
        assert_eq!(told, vec![(1, LINE_BYTES_MAX), (2, 2)]);
    }
}
