//! The file of one partition: `finflow-dump`, a format byte, then frames of `length u32 | bytes | crc32c u32`, little-endian.
//!
//! The first frame is the partition's head, written like the header of a block; the others hold rows as a block does, in the order
//! of their keys. A frame is written when it has grown to [`FRAME_BYTES`], so that one is held at a time, whatever there is.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{Error, io_error};
use crate::journal::{EncodedBlock, Head, Rows, encode_header, write_row};

/// A frame is written once it is this long, in bytes.
pub(super) const FRAME_BYTES: usize = 256 * 1024;
/// A longer one was not written by us: a frame ends with the row that fills it.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
const MAGIC: &[u8; 12] = b"finflow-dump";
const FORMAT: u8 = 1;

/// Writes the file of one partition.
pub(super) struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
    frame: Vec<u8>,
    bytes: u64,
    sha256: Sha256,
}

impl Writer {
    pub(super) fn create(path: &Path, head: &Head) -> Result<Writer, Error> {
        let file = BufWriter::new(File::create_new(path).map_err(io_error(path))?);
        let frame = Vec::with_capacity(FRAME_BYTES);
        let mut writer = Writer { path: path.to_owned(), file, frame, bytes: 0, sha256: Sha256::new() };
        writer.put(MAGIC)?;
        writer.put(&[FORMAT])?;
        writer.frame = encode_header(&head.to_header());
        writer.end_frame()?;
        Ok(writer)
    }

    pub(super) fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        write_row(&mut self.frame, key, Some(value));
        if FRAME_BYTES <= self.frame.len() { self.end_frame() } else { Ok(()) }
    }

    /// Ends the file, makes it durable and gives its length and SHA-256.
    pub(super) fn finish(mut self) -> Result<(u64, [u8; 32]), Error> {
        if !self.frame.is_empty() {
            self.end_frame()?;
        }
        let file = self.file.into_inner().map_err(|error| Error::Io(self.path.display().to_string(), error.to_string()))?;
        file.sync_all().map_err(io_error(&self.path))?;
        Ok((self.bytes, self.sha256.finalize().into()))
    }

    fn end_frame(&mut self) -> Result<(), Error> {
        let frame = std::mem::take(&mut self.frame);
        self.put(&(frame.len() as u32).to_le_bytes())?;
        self.put(&frame)?;
        self.put(&crc32c::crc32c(&frame).to_le_bytes())?;
        self.frame = frame;
        self.frame.clear();
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(io_error(&self.path))?;
        self.sha256.update(bytes);
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        Ok(())
    }
}

/// Reads the file of one partition.
pub(super) struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    head: Head,
    bytes: u64,
    sha256: Sha256,
}

/// Some rows of a partition.
pub(super) struct Frame(Vec<u8>);

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Reader, Error> {
        let file = match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::Damaged(format!("{} is missing", path.display())));
            }
            other => BufReader::new(other.map_err(io_error(path))?),
        };
        let mut reader = Reader {
            path: path.to_owned(),
            file,
            head: Head::genesis(Default::default(), 0, 0),
            bytes: 0,
            sha256: Sha256::new(),
        };
        let mut magic = [0; MAGIC.len() + 1];
        match (reader.get(&mut magic)?, magic.split_last()) {
            (true, Some((&FORMAT, magic))) if magic == MAGIC => {}
            (true, Some((format, magic))) if magic == MAGIC => return Err(Error::Format(u32::from(*format))),
            _ => return Err(reader.damaged()),
        }
        let Frame(head) = reader.next_frame()?.ok_or_else(|| reader.damaged())?;
        let head = EncodedBlock::parse(Bytes::from(head)).map_err(|_| reader.damaged())?;
        reader.head = Head::from_header(head.header().clone());
        Ok(reader)
    }

    pub(super) fn head(&self) -> &Head {
        &self.head
    }

    /// The next rows; `None` at the end.
    pub(super) fn next_frame(&mut self) -> Result<Option<Frame>, Error> {
        let mut length = [0; 4];
        if !self.get(&mut length)? {
            return Ok(None);
        }
        let length = u32::from_le_bytes(length) as usize;
        if FRAME_BYTES_MAX < length {
            return Err(self.damaged());
        }
        let (mut frame, mut checksum) = (vec![0; length], [0; 4]);
        if !self.get(&mut frame)? || !self.get(&mut checksum)? || crc32c::crc32c(&frame).to_le_bytes() != checksum {
            return Err(self.damaged());
        }
        Ok(Some(Frame(frame)))
    }

    /// The length and SHA-256 of the whole file, once all of it was read.
    pub(super) fn finish(self) -> Result<(u64, [u8; 32]), Error> {
        Ok((self.bytes, self.sha256.finalize().into()))
    }

    /// Fills the buffer; `false` where the file ended before it began.
    fn get(&mut self, buffer: &mut [u8]) -> Result<bool, Error> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read(rest) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(self.damaged()),
                Ok(count) => filled = filled.saturating_add(count),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io_error(&self.path)(error)),
            }
        }
        self.sha256.update(&*buffer);
        self.bytes = self.bytes.saturating_add(buffer.len() as u64);
        Ok(true)
    }

    fn damaged(&self) -> Error {
        Error::Damaged(format!("{} cannot be read", self.path.display()))
    }
}

impl Frame {
    /// Keys and values. The frame is as it was written, by its checksum.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        Rows(&self.0).map(|(key, value)| (key, value.unwrap_or_default()))
    }
}
