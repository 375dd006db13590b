//! The partition logic: the single writer of its wallets and payments, synchronous and deterministic.
//!
//! It is given a batch of inputs and what it may see, and gives back the open epoch with their effects merged in. It never
//! reads a clock, never does I/O beyond reading its own committed rows, and never changes anything outside what it was lent.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use finflow_ledger::{Coordinates, Payment, PaymentId};
use finflow_state::Store;
use tracing::field::{Empty, display};
use tracing::{Level, Span, debug_span, enabled, warn};

use self::command::Deciding;
use self::effects::Effects;
pub use self::effects::Outcome;
use self::epoch::QUARTERS;
pub(crate) use self::epoch::held;
pub use self::epoch::{Epoch, OpenEpoch, Work};
use self::hot::Hot;
use self::prefetch::{Prefetch, Understood, understand};
pub use self::rules::Rules;
pub use self::sight::Layers;
use self::sight::Sight;
use self::timer::TIMER_FAILED;
pub(crate) use self::verdict::add;
pub use self::verdict::{Verdict, Verdicts};
use crate::failure::Failure;
use crate::halt::Halt;
use crate::log::Record;
use crate::wire::v1::{Code, Malformed, Posting, PostingBody, TimeText, dead_letter};

mod command;
mod effects;
mod epoch;
mod hot;
mod prefetch;
mod rules;
mod sight;
mod timer;
mod top_up;
mod transfer;
mod verdict;
mod wallets;

/// One input of a partition. Postings and commands come from the log or from a neighbour in the same epoch.
#[derive(Debug, Clone)]
pub enum Input {
    /// A record of `commands`.
    Command(Record),
    /// A posting: read from the log at `offset`, or handed over in memory by a partition of the same lane.
    Posting {
        /// Its offset in `postings`, if it came through the log.
        offset: Option<u64>,
        /// What it says.
        posting: Posting,
    },
    /// What a payment has asked to be reminded of, if it still is; the time is looked at again.
    Timer {
        /// When it is due.
        due_ms: i64,
        /// The payment.
        payment: PaymentId,
    },
    /// Records whose retention has passed and which may be forgotten; each is checked again.
    Sweep(Vec<PaymentId>),
}

impl Input {
    /// Whether it comes again if it is not consumed: it waits in the log, or as a row.
    fn may_wait(&self) -> bool {
        matches!(self, Input::Command(_) | Input::Posting { offset: Some(_), .. } | Input::Timer { .. })
    }
}

/// One partition. Owns the hot rows; everything uncommitted is lent to it with each [`Work`].
pub struct Partition {
    id: u32,
    rules: Arc<Rules>,
    store: Arc<dyn Store>,
    hot: Hot,
    effects: Effects,
    prefetch: Prefetch,
    key: Vec<u8>,
}

impl Partition {
    /// A partition over its committed rows.
    pub fn new(id: u32, rules: Arc<Rules>, store: Arc<dyn Store>) -> Partition {
        let hot = Hot::new(rules.hot_wallets_max);
        Partition {
            id,
            rules,
            store,
            hot,
            effects: Effects::default(),
            prefetch: Prefetch::default(),
            key: Vec::with_capacity(96),
        }
    }

    /// The partition's number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Decides a batch in order and merges the effects of each input into the epoch that came with it.
    ///
    /// A command that panics, or would cause more than one input may, is dead-lettered; one that was forwarded, here. A payment over
    /// whose timer it panics is left to a human, with its hold kept. Whatever else goes wrong is a [`Failure`]: the epoch is lost with
    /// it, and the lane drops it whole. Once the epoch is full, it takes nothing more that can wait. Commands, however
    /// long they are, leave half of it to the postings behind them, and both leave a quarter to timers.
    pub fn decide(&mut self, work: Work) -> Result<OpenEpoch, Failure> {
        let Work { now_ms, inputs, mut open, layers } = work;
        self.hot.read_ahead(&*self.store, now_ms)?;
        let now = (now_ms, TimeText::new(now_ms));
        let has_postings = inputs.iter().any(|input| matches!(input, Input::Posting { offset: Some(_), .. }));
        let has_timers = inputs.iter().any(|input| matches!(input, Input::Timer { .. }));
        let understood = self.prefetch.fetch(&inputs, (self.id, self.rules.partitions), &self.hot, &*self.store);
        for (input, understood) in inputs.into_iter().zip(understood) {
            let share = match &input {
                Input::Command(_) if has_postings => QUARTERS / 2,
                Input::Command(_) | Input::Posting { .. } if has_timers => QUARTERS - 1,
                _ => QUARTERS,
            };
            if open.has_taken(share) && input.may_wait() {
                open.untaken.push(input);
                continue;
            }
            match self.attempt(&open, &layers, now, |deciding| deciding.input(&input, understood, &open)) {
                Ok(()) => {}
                Err(Failure::Halted(cause @ (Halt::Panic(_) | Halt::TooLarge(_)))) => {
                    self.poisoned(&input, &open, &layers, now, cause)?;
                }
                Err(failure) => return Err(failure),
            }
            open.merge(&input, &mut self.effects);
        }
        Ok(open)
    }

    /// Takes over the rows of an epoch that has reached the store and will not be among the layers any more.
    pub fn retire(&mut self, epoch: &Epoch) {
        self.hot.retire(&epoch.block, &epoch.overlay);
    }

    /// The effects of one decision, alone and checked. A panic on the way is caught.
    fn attempt(
        &mut self,
        open: &OpenEpoch,
        layers: &Layers,
        (now_ms, at): (i64, TimeText),
        decide: impl FnOnce(&mut Deciding<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.effects.clear();
        let sight = Sight {
            open: &open.overlay,
            layers,
            hot: &mut self.hot,
            store: &*self.store,
            prefetch: &self.prefetch,
            key: &mut self.key,
        };
        let mut deciding = Deciding { partition: self.id, rules: &self.rules, now_ms, at, sight, effects: &mut self.effects };
        let decided = catch_unwind(AssertUnwindSafe(|| decide(&mut deciding)));
        decided.unwrap_or_else(|panic| Err(Halt::Panic(panic_text(&*panic)).into()))?;
        Ok(self.effects.check()?)
    }

    /// Dead-letters a command under the coordinates at which it was read first, and leaves the payment of a timer to a human;
    /// anything else may be neither.
    fn poisoned(
        &mut self,
        input: &Input,
        open: &OpenEpoch,
        layers: &Layers,
        now: (i64, TimeText),
        cause: Halt,
    ) -> Result<(), Failure> {
        let command = match input {
            Input::Command(record) => Some((record.clone(), Coordinates { partition: self.id, offset: record.offset })),
            Input::Posting { posting, .. } => posting.body.forwarded(),
            Input::Timer { due_ms, payment } => {
                warn!(partition = self.id, %payment, %cause, "a timer failed, its payment requires attention");
                return self.attempt(open, layers, now, |deciding| deciding.escalate(*due_ms, *payment, TIMER_FAILED));
            }
            Input::Sweep(_) => None,
        };
        let Some((record, source)) = command else { return Err(cause.into()) };
        let code = if matches!(cause, Halt::TooLarge(_)) { Code::TooLarge } else { Code::Panicked };
        let malformed = Malformed { code, message: cause.to_string() };
        self.effects.clear();
        self.effects.give_up(dead_letter(&record, source, &malformed, &self.rules.prefix, now.0), code);
        Ok(())
    }
}

impl Deciding<'_> {
    /// Decides an input; a command may have been understood already.
    fn input(
        &mut self,
        input: &Input,
        understood: Option<Result<Understood, Malformed>>,
        open: &OpenEpoch,
    ) -> Result<(), Failure> {
        match input {
            Input::Command(record) => {
                let source = Coordinates { partition: self.partition, offset: record.offset };
                self.command(record, understood.unwrap_or_else(|| understand(record, self.rules.partitions)), source, false)
            }
            Input::Posting { offset, posting } => {
                open.check_sequence(self.partition, posting)?;
                self.posting(posting, *offset)
            }
            Input::Timer { due_ms, payment } => {
                let (wallet, correlation_id) = (Empty, Empty);
                let span = debug_span!("timer", partition = self.partition, due_ms, %payment, wallet, correlation_id);
                span.in_scope(|| self.timer(*due_ms, *payment))
            }
            Input::Sweep(payments) => self.sweep(payments),
        }
    }

    /// Decides a posting, which was read at `offset` if it came through the log.
    fn posting(&mut self, posting: &Posting, offset: Option<u64>) -> Result<(), Failure> {
        let Posting { source, destination, sequence, body } = posting;
        let (payment, wallet, correlation) = match body {
            PostingBody::Credit(credit) => (Some(credit.payment), Some(&credit.to), credit.correlation.as_deref()),
            // What else there is to say stands in its record, see `identify`.
            PostingBody::Acknowledge { payment, .. } => (Some(*payment), None, None),
            PostingBody::Forward { .. } => (None, None, None),
        };
        let span = debug_span!(
            "posting",
            partition = destination,
            offset,
            source,
            sequence,
            payment = payment.map(display),
            wallet = wallet.map(display),
            correlation_id = correlation,
        );
        let _entered = span.enter();
        match body {
            PostingBody::Credit(credit) => self.credit(posting.source, credit),
            PostingBody::Acknowledge { payment, outcome } => self.acknowledged(posting.source, *payment, *outcome),
            PostingBody::Forward { .. } => match posting.body.forwarded() {
                Some((record, source)) => self.command(&record, understand(&record, self.rules.partitions), source, true),
                None => Ok(()),
            },
        }
    }

    /// Forgets records that are terminal and older than the retention.
    fn sweep(&mut self, payments: &[PaymentId]) -> Result<(), Failure> {
        for id in payments {
            let Some(payment) = self.sight.payment(*id)? else { continue };
            if self.rules.may_forget(&payment, self.now_ms) {
                self.effects.changes.push(effects::Change::PaymentRemoved(*id));
            }
        }
        Ok(())
    }
}

/// Tells the span of a posting or a timer whose payment it is about, which only the record says.
fn identify(payment: &Payment) {
    if enabled!(Level::DEBUG) {
        let span = Span::current();
        span.record("wallet", display(&payment.wallet));
        span.record("correlation_id", payment.correlation.as_deref());
    }
}

/// What a panic said, where it is a literal of the program; a formatted message could quote what the record says.
fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.unwrap_or("with a formatted message, which is withheld").to_owned()
}
