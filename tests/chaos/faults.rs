//! The faults: drawn from a seed, one every few seconds, some across another one that is not over.

use std::collections::BTreeSet;
use std::ops::Range;
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use crate::application::{Application, NAMES, News, PARTITIONS};
use crate::broker::Broker;
use crate::costs::{Kind, Mark};
use crate::proxy::Cut;
use crate::witness::Witness;

/// Longer than a transaction lasts, and than the session of a member.
const PAUSED: Duration = Duration::from_secs(15);
/// Between the end of a fault and the next one, in ms.
const REST: Range<u64> = 2_000..6_000;
const REST_SHORT: Range<u64> = 1_000..2_500;
/// How long a process stays away that is to be replaced, in ms: longer than others need to take over.
const AWAY: Range<u64> = 13_000..16_000;
/// How long a broker is gone, in ms, besides what its start takes; one time in four longer than a transaction and a session last.
const BROKER_GONE: Range<u64> = 0..3_000;
const BROKER_GONE_LONG: Range<u64> = 11_000..14_000;
/// One fault in so many is crossed by another one.
const CROSSED_EVERY: u32 = 3;
/// How often the driver looks at the processes, and asks them who runs what.
const LOOK: Duration = Duration::from_millis(20);
const OWNERS_LOOK: Duration = Duration::from_millis(500);

/// The kinds that come with every run, and the one that comes with a long one only.
const KINDS: [Kind; 5] = [Kind::Killed, Kind::Lost, Kind::Paused, Kind::Restarted, Kind::Broker];
const KIND_LONG: Kind = Kind::CutOff;

/// In a run of so long everything has to have happened that the checks at its end are for.
const LONG: Duration = Duration::from_secs(300);

/// How many faults come.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Extent {
    /// One of each kind, each once every partition settles again after the one before, with short rests.
    OneOfEach,
    /// Whatever comes in this time.
    For(Duration),
}

impl Extent {
    pub(crate) fn is_long(self) -> bool {
        matches!(self, Extent::For(period) if LONG <= period)
    }
}

/// Inflicts faults, and waits until all of them are over.
pub(crate) fn inflict(app: &mut Application<'_>, (broker, witness): (&Broker, &Witness), seed: u64, extent: Extent) -> Vec<Mark> {
    std::thread::scope(|scope| {
        let random = fastrand::Rng::with_seed(seed);
        let (left, marks, replaced) = (Vec::new(), Vec::new(), BTreeSet::new());
        let (broken, whole_since) = (None, None);
        let mut driver =
            Driver { app, broker, witness, scope, random, extent, left, drawn: 0, marks, replaced, broken, whole_since };
        driver.inflict();
        driver.marks
    })
}

struct Driver<'d, 'scope, 'env, 'a> {
    app: &'d mut Application<'a>,
    broker: &'env Broker,
    witness: &'env Witness,
    scope: &'scope Scope<'scope, 'env>,
    random: fastrand::Rng,
    extent: Extent,
    /// Faults drawn so far.
    drawn: usize,
    /// The kinds that come before one comes again.
    left: Vec<Kind>,
    marks: Vec<Mark>,
    /// The processes whose partitions others have taken over.
    replaced: BTreeSet<&'static str>,
    /// The broker that is gone.
    broken: Option<ScopedJoinHandle<'scope, ()>>,
    /// Since when all processes and the broker have been up.
    whole_since: Option<Instant>,
}

impl Driver<'_, '_, '_, '_> {
    fn inflict(&mut self) {
        let begun = Instant::now();
        let (mut rest, mut may_cross) = (self.rest(), false);
        let (mut next, mut asked) = (begun + rest, begun);
        while self.is_to_come(begun) || !self.is_well() {
            let now = Instant::now();
            self.look(now);
            if OWNERS_LOOK < now - asked && self.broken.is_none() {
                asked = now;
                self.app.know_owners();
            }
            if !self.is_well() && !may_cross {
                next = now + rest;
            } else if next <= now && self.is_to_come(begun) {
                self.strike(now, begun);
                rest = self.rest();
                next = now + rest;
                let is_crossed = self.random.u32(..CROSSED_EVERY) == 0;
                may_cross = is_crossed && matches!(self.extent, Extent::For(_));
            }
            std::thread::park_timeout(LOOK);
        }
    }

    /// Whether there are more faults to come.
    fn is_to_come(&self, begun: Instant) -> bool {
        match self.extent {
            Extent::OneOfEach => self.drawn < KINDS.len(),
            Extent::For(period) => begun.elapsed() < period,
        }
    }

    fn rest(&mut self) -> Duration {
        match self.extent {
            Extent::OneOfEach => self.within(REST_SHORT),
            Extent::For(_) => self.within(REST),
        }
    }

    /// Whether the latest fault is over.
    fn is_well(&self) -> bool {
        match self.extent {
            Extent::OneOfEach => self.whole_since.is_some_and(|since| self.app.is_shared() && self.settles_since(since)),
            Extent::For(_) => self.whole_since.is_some(),
        }
    }

    fn settles_since(&self, since: Instant) -> bool {
        self.witness.seen().settled_at.iter().all(|at| at.is_some_and(|at| since < at))
    }

    fn within(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.random.u64(range))
    }

    fn draw(&mut self) -> Kind {
        if self.left.is_empty() {
            self.left = KINDS.to_vec();
            if matches!(self.extent, Extent::For(_)) {
                self.left.push(KIND_LONG);
            }
            self.random.shuffle(&mut self.left);
        }
        self.drawn += 1;
        self.left.pop().unwrap_or(Kind::Killed)
    }

    fn strike(&mut self, now: Instant, begun: Instant) {
        self.whole_since = None;
        let kind = self.draw();
        let told = |whom: &str| println!("    {:>5.1} s  {kind:?} {whom}", (now - begun).as_secs_f64());
        if kind == Kind::Broker {
            if self.broken.is_none() {
                told("");
                self.break_broker();
                self.marks.push(Mark { kind, at: now, partitions: (0..PARTITIONS).collect() });
            }
            return;
        }
        let up = self.app.up();
        let Some(name) = self.random.choice(up) else { return };
        told(name);
        self.app.know_owners();
        self.marks.push(Mark { kind, at: now, partitions: self.app.concerned_by(name) });
        match kind {
            Kind::Killed => self.app.kill(name, now),
            Kind::Lost => {
                let away = self.within(AWAY);
                self.replaced.insert(name);
                self.app.kill(name, now + away);
            }
            Kind::Paused => {
                self.replaced.insert(name);
                self.app.pause(name, now + PAUSED);
            }
            Kind::CutOff => {
                let (how, away) = (if self.random.bool() { Cut::Silent } else { Cut::Broken }, self.within(AWAY));
                self.replaced.insert(name);
                self.app.cut_off(name, how, now + away);
            }
            _ => self.app.stop(name, now),
        }
    }

    fn break_broker(&mut self) {
        let is_long = self.random.u8(..4) == 0 && matches!(self.extent, Extent::For(_));
        let gone = if is_long { self.within(BROKER_GONE_LONG) } else { self.within(BROKER_GONE) };
        let broker = self.broker;
        self.broken = Some(self.scope.spawn(move || {
            broker.kill(1);
            let killed = Instant::now();
            while killed.elapsed() < gone {
                std::thread::park_timeout(LOOK);
            }
            broker.revive(1);
        }));
    }

    fn look(&mut self, now: Instant) {
        if self.broken.as_ref().is_some_and(ScopedJoinHandle::is_finished)
            && let Some(start) = self.broken.take()
        {
            start.join().expect("the broker starts");
            self.marks.push(Mark { kind: Kind::BrokerBack, at: now, partitions: (0..PARTITIONS).collect() });
        }
        for (name, news) in self.app.look(now) {
            let was_replaced = self.replaced.remove(name);
            let (kind, partitions) = match news {
                News::Fell => (Kind::Fell, self.app.concerned_by(name)),
                // Who comes back to its own partitions disturbs nobody.
                News::Returned if !was_replaced => continue,
                News::Returned | News::Fenced => (Kind::Returned, (0..PARTITIONS).collect()),
            };
            self.marks.push(Mark { kind, at: now, partitions });
        }
        let is_whole = self.app.up().len() == NAMES.len() && self.broken.is_none();
        self.whole_since = is_whole.then(|| self.whole_since.unwrap_or(now));
    }
}
