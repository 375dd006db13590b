//! The line in front of the pen: writers stand in it, and whoever finds the pen free writes for everyone in it.
//!
//! Two lanes and many publishers want their records durable at once, and a synced write costs the same for one as for all. The
//! order of the line is the order of the log. What nobody may write beside - taking over a partition, opening the database again -
//! takes the pen alone.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A line of requests `R` that are answered with `A`.
pub(super) struct Line<R, A> {
    standing: Mutex<Standing<R, A>>,
    moved: Condvar,
    bytes_max: usize,
}

struct Standing<R, A> {
    /// Somebody has the pen.
    is_writing: bool,
    /// Requests with their sizes; the first has the ticket `first`.
    waiting: VecDeque<(R, usize)>,
    first: u64,
    answers: BTreeMap<u64, A>,
}

impl<R, A> Line<R, A> {
    /// A line that gives about `bytes_max` bytes at a time to whoever writes, but at least one request.
    pub(super) fn new(bytes_max: usize) -> Line<R, A> {
        let standing = Standing { is_writing: false, waiting: VecDeque::new(), first: 0, answers: BTreeMap::new() };
        Line { standing: Mutex::new(standing), moved: Condvar::new(), bytes_max }
    }

    /// Stands in line with `request` and gives its answer. If this caller comes to write, `write` gets the requests at the head of
    /// the line and answers each, in order. `None` if another caller took the request and did not answer it, which a panic does.
    pub(super) fn stand(&self, request: R, bytes: usize, write: impl Fn(Vec<R>) -> Vec<A>) -> Option<A> {
        let mut standing = self.lock();
        let ticket = standing.first.wrapping_add(standing.waiting.len() as u64);
        standing.waiting.push_back((request, bytes));
        loop {
            if let Some(answer) = standing.answers.remove(&ticket) {
                return Some(answer);
            }
            if standing.is_writing {
                standing = self.moved.wait(standing).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            if ticket < standing.first {
                return None;
            }
            let first = standing.first;
            let requests = standing.take(self.bytes_max);
            let pen = self.take_pen(standing);
            let answers = write(requests);
            self.lock().answers.extend((first..).zip(answers));
            drop(pen);
            standing = self.lock();
        }
    }

    /// Does something while nobody writes.
    pub(super) fn alone<T>(&self, work: impl FnOnce() -> T) -> T {
        let mut standing = self.lock();
        while standing.is_writing {
            standing = self.moved.wait(standing).unwrap_or_else(PoisonError::into_inner);
        }
        let _pen = self.take_pen(standing);
        work()
    }

    fn lock(&self) -> MutexGuard<'_, Standing<R, A>> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_pen(&self, mut standing: MutexGuard<'_, Standing<R, A>>) -> Pen<'_, R, A> {
        standing.is_writing = true;
        Pen(self)
    }
}

impl<R, A> Standing<R, A> {
    fn take(&mut self, bytes_max: usize) -> Vec<R> {
        let (mut taken, mut bytes) = (Vec::new(), 0_usize);
        while bytes < bytes_max
            && let Some((request, size)) = self.waiting.pop_front()
        {
            bytes = bytes.saturating_add(size);
            taken.push(request);
            self.first = self.first.wrapping_add(1);
        }
        taken
    }
}

/// The right to write, given back however the writing ends.
struct Pen<'a, R, A>(&'a Line<R, A>);

impl<R, A> Drop for Pen<'_, R, A> {
    fn drop(&mut self) {
        self.0.lock().is_writing = false;
        self.0.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn everyone_in_line_is_written_once_in_order_and_gets_the_own_answer() {
        let line = Line::<(u64, u64), (u64, u64)>::new(64);
        let written = Mutex::new(Vec::new());
        let (writes, largest) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let write = |requests: Vec<(u64, u64)>| {
            writes.fetch_add(1, Ordering::Relaxed);
            largest.fetch_max(requests.len(), Ordering::Relaxed);
            written.lock().expect("no panic").extend(requests.iter().copied());
            // Long enough that others come to stand in line.
            std::thread::yield_now();
            requests
        };
        std::thread::scope(|scope| {
            for writer in 0..8_u64 {
                let (line, write) = (&line, &write);
                scope.spawn(move || {
                    for n in 0..500 {
                        assert_eq!(line.stand((writer, n), 16, write), Some((writer, n)));
                    }
                });
            }
            for _ in 0..100 {
                let before = line.alone(|| written.lock().expect("no panic").len());
                assert!(before <= 4_000);
            }
        });
        let written = written.into_inner().expect("no panic");
        assert_eq!(written.len(), 4_000);
        for writer in 0..8 {
            let own = written.iter().filter(|(of, _)| *of == writer).map(|(_, n)| *n);
            assert!(own.eq(0..500), "writer {writer}");
        }
        assert!(writes.into_inner() < 4_000, "nobody ever shared a write");
        assert!(largest.into_inner() <= 4, "a write is bounded");
        assert!(line.lock().answers.is_empty());
    }

    #[test]
    fn a_writer_that_panics_leaves_the_pen_and_no_answer() {
        let line = Line::<u64, u64>::new(64);
        let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| line.stand(1, 1, |_| panic!("a writer dies"))));
        assert!(died.is_err());
        // Its own request is gone with it; the next one is written.
        assert_eq!(line.stand(2, 1, |requests| requests), Some(2));
        assert_eq!(line.alone(|| 3), 3);
    }
}
