//! Writing a dump into the journals of new topics, so that a crash anywhere leaves something to go on with, and nothing to be served.
//!
//! Block 0 of every partition, which names the dump, is one transaction. Then come blocks of rows, whole transactions of them. They
//! are a function of the dump and the number of partitions alone, so that a second attempt makes the same blocks again and writes
//! only those that the positions do not name yet. Then everything is read back. The last transaction holds one block for every
//! partition, with the accounts; until it is committed whoever restores a partition refuses it.

use std::collections::BTreeMap;

use finflow_state::{Accounts, Dump, EncodedBlock, Generation, Head, Origin, Origins, Table, Tally};
use sha2::{Digest, Sha256};

use super::Error;
use super::books::{Balances, Books};
use super::homes::{Home, home};
use super::writing::{Ending, IMPORT, Row, Sizes, Writing};
use crate::log::{self, Log, Position, Record};
use crate::topics::Topic;

/// Journal bytes read back at a time.
const FETCH_BYTES: usize = 4 << 20;
/// Attempts to go on after a commit that failed or is in doubt.
const ATTEMPTS: usize = 4;

/// An import.
pub struct Import<'a> {
    /// What is brought.
    pub dump: &'a Dump,
    /// The prefix of the topics that it is brought into.
    pub prefix: &'a str,
    /// The log with these topics, all of them new.
    pub log: &'a dyn Log,
    /// The committed position of every partition.
    pub positions: &'a dyn Fn() -> Result<BTreeMap<u32, Option<Position>>, log::Error>,
    /// The name of the session.
    pub lane: &'a str,
    /// What is noted about the generation that was left.
    pub origin: Option<Origin>,
    /// How much is written at a time.
    pub sizes: Sizes,
    /// Called when nothing more will be written, while the session is still open.
    pub done: &'a dyn Fn(),
}

/// What an import has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The new generation.
    pub generation: Generation,
    /// Blocks of rows, over all partitions.
    pub blocks: u64,
    /// Blocks that an earlier attempt had written.
    pub found: u64,
    /// Whether everything had been there before.
    pub was_whole: bool,
}

/// What the topics hold.
enum Held {
    Nothing,
    Part,
    All,
}

impl Import<'_> {
    /// Brings the dump. `may_end` is asked before the last transaction makes all of it count.
    pub fn run(&self, may_end: &dyn Fn() -> Result<(), Error>) -> Result<Imported, Error> {
        let mut attempts = 1;
        loop {
            match self.attempt(may_end) {
                // The positions tell where to go on, whatever became of the last commit.
                Err(Error::Log(cause @ (log::Error::Unavailable(_) | log::Error::Lasting(_)))) if attempts < ATTEMPTS => {
                    tracing::warn!(%cause, "an attempt has ended; the next one goes on");
                    attempts += 1;
                }
                other => return other,
            }
        }
    }

    /// The generation of the new topics: always the same, for the same dump, prefix and number of partitions.
    pub fn generation(&self) -> Generation {
        let mut digest = Sha256::new();
        digest.update(self.dump.id());
        digest.update(self.log.partitions().to_le_bytes());
        digest.update(self.prefix.as_bytes());
        let digest: [u8; 32] = digest.finalize().into();
        Generation(digest.first_chunk().copied().unwrap_or_default())
    }

    fn attempt(&self, may_end: &dyn Fn() -> Result<(), Error>) -> Result<Imported, Error> {
        let generation = self.generation();
        let held = self.held()?;
        if matches!(held, Held::All) {
            return Ok(Imported { generation, blocks: 0, found: 0, was_whole: true });
        }
        let mut writing = self.begin(generation)?;
        if matches!(held, Held::Nothing) {
            let partitions = 0..self.log.partitions();
            writing.begin_with(partitions.map(|partition| (partition, self.genesis(partition))).collect())?;
        }
        let (books, origins) = self.rows(&mut writing)?;
        writing.fill()?;
        writing.confirm()?;
        self.read_back(&writing)?;
        let accounts = books.open().map_err(Error::Unsound)?;
        may_end()?;
        writing.end(self.endings(&accounts, origins))?;
        writing.confirm()?;
        (self.done)();
        Ok(Imported { generation, blocks: writing.blocks, found: writing.found, was_whole: false })
    }

    /// What is in the topics: nothing, or what this import has written.
    fn held(&self) -> Result<Held, Error> {
        let partitions = self.log.partitions();
        let positions = (self.positions)()?;
        let mut begun = 0;
        for partition in 0..partitions {
            let start = self.log.range(Topic::Journal, partition)?.start;
            let fetched = self.log.fetch(Topic::Journal, partition, start, 1)?;
            let Some(first) = fetched.records.first() else { continue };
            let found = block(first)?;
            let is_first = found.header().number == 0;
            let is_ours =
                if is_first { found == self.genesis(partition) } else { found.header().generation == self.generation() };
            if !is_ours {
                let what = if found.dump().is_some() { "what comes from another dump" } else { "another application" };
                return Err(Error::Occupied(what.to_owned()));
            }
            begun += 1;
        }
        let named: Vec<&Position> = positions.values().flatten().collect();
        if begun == 0 && named.is_empty() {
            return Ok(Held::Nothing);
        }
        // Every partition gets its first block, and its position, in one transaction.
        if begun != partitions as usize || named.len() != partitions as usize {
            return Err(Error::Occupied("parts of something else".to_owned()));
        }
        let has_part = named.iter().any(|position| position.block == 0 || &*position.stamp.lane == IMPORT);
        Ok(if has_part { Held::Part } else { Held::All })
    }

    /// Claims every partition.
    fn begin(&self, generation: Generation) -> Result<Writing, Error> {
        let mut writing = Writing::new(self.log.session(self.lane)?, self.sizes);
        let at_ms = self.dump.manifest().at_ms();
        let incarnation = generation.0.first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
        for partition in 0..self.log.partitions() {
            let claim = writing.claim(partition)?;
            writing.begin(&claim, Head::genesis(generation, partition, at_ms), (incarnation, at_ms));
        }
        Ok(writing)
    }

    fn genesis(&self, partition: u32) -> EncodedBlock {
        let (at_ms, dump) = (self.dump.manifest().at_ms(), self.dump.id());
        EncodedBlock::import(self.generation(), partition, self.log.partitions(), at_ms, dump)
    }

    /// Deals out every row, and keeps what belongs into the last blocks.
    fn rows(&self, writing: &mut Writing) -> Result<(Books, Vec<Row>), Error> {
        let (mut books, mut origins) = (Books::default(), Vec::new());
        let partitions = self.log.partitions();
        self.dump.visit::<Error>(&mut |source, key, value| {
            let row = || (key.to_vec(), Some(value.to_vec()));
            match home(key, value, partitions)? {
                Home::Partition(partition, ledger) => {
                    ledger.into_iter().for_each(|ledger| books.wallet(partition, ledger));
                    writing.row(partition, row())?;
                }
                Home::Books(account, minor) => books.account(source, account, minor),
                Home::Origins => origins.push(row()),
            }
            Ok(())
        })?;
        Ok((books, origins))
    }

    /// The last blocks: the accounts, and in partition 0 where the application came from.
    fn endings(&self, accounts: &BTreeMap<u32, Balances>, origins: Vec<Row>) -> BTreeMap<u32, Ending> {
        let rows = |balances: &Balances| balances.iter().map(|(account, minor)| row::<Accounts>(account, minor)).collect();
        let ending =
            |(partition, balances): (&u32, &Balances)| (*partition, Ending { rows: rows(balances), ..Ending::default() });
        let mut endings: BTreeMap<u32, Ending> = accounts.iter().map(ending).collect();
        let own = self.origin.as_ref().map(|origin| row::<Origins>(&self.dump.manifest().generation, origin));
        endings.entry(0).or_default().rows.extend(origins.into_iter().chain(own));
        endings
    }

    /// Reads everything that was written: the blocks of each partition follow each other, every row is at home and there are as many,
    /// with the same content.
    fn read_back(&self, writing: &Writing) -> Result<(), Error> {
        let mut found = Tally::default();
        for due in writing.heads() {
            let head = self.read_journal(due.partition, &mut found)?;
            if head != *due {
                return Err(Error::Different(format!("partition {} ends at block {}", head.partition, head.number)));
            }
        }
        let due = self.dump.manifest().rows();
        if found == due { Ok(()) } else { Err(Error::Different(format!("{found:?} instead of {due:?}"))) }
    }

    fn read_journal(&self, partition: u32, found: &mut Tally) -> Result<Head, Error> {
        let mut head: Option<Head> = None;
        let mut from = self.log.range(Topic::Journal, partition)?.start;
        loop {
            let fetched = self.log.fetch(Topic::Journal, partition, from, FETCH_BYTES)?;
            for record in &fetched.records {
                let block = block(record)?;
                head = Some(match head {
                    None => Head::from_header(block.header().clone()),
                    Some(head) => head.follow(block.header()).map_err(|broken| Error::Different(broken.to_string()))?,
                });
                self.read_rows(partition, &block, found)?;
            }
            if fetched.next <= from {
                return head.ok_or_else(|| Error::Different(format!("partition {partition} has no block")));
            }
            from = fetched.next;
        }
    }

    fn read_rows(&self, partition: u32, block: &EncodedBlock, found: &mut Tally) -> Result<(), Error> {
        for (key, value) in block.rows().filter(|_| 0 < block.header().number) {
            let value = value.unwrap_or_default();
            match home(key, value, self.log.partitions())? {
                Home::Partition(home, _) if home == partition => found.add(key, value),
                other => return Err(Error::Different(format!("partition {partition} has a row of {other:?}"))),
            }
        }
        Ok(())
    }
}

fn row<T: Table>(key: &T::Key, value: &T::Value) -> Row {
    let (mut key_bytes, mut value_bytes) = (Vec::new(), Vec::new());
    T::encode_key(key, &mut key_bytes);
    T::encode(value, &mut value_bytes);
    (key_bytes, Some(value_bytes))
}

fn block(record: &Record) -> Result<EncodedBlock, Error> {
    let value = record.value.clone().ok_or_else(|| Error::Different("a journal record has no value".to_owned()))?;
    EncodedBlock::parse(value).map_err(|error| Error::Different(format!("journal record {}: {error}", record.offset)))
}
