//! Inputs that were fetched and that no wave has taken yet, in order, bounded by their number and their bytes.

use std::collections::VecDeque;

use crate::sizes::{OVERHEAD_BYTES, QUEUE_BYTES_MAX, QUEUE_RECORDS_MAX};

/// What can wait in a [`Queue`].
pub(super) trait Weighed {
    /// How many bytes it holds.
    fn bytes(&self) -> usize;
}

pub(super) struct Queue<T> {
    waiting: VecDeque<T>,
    bytes: usize,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue { waiting: VecDeque::new(), bytes: 0 }
    }
}

impl<T: Weighed> Queue<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether more should be fetched.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < QUEUE_RECORDS_MAX / 2 && self.bytes < QUEUE_BYTES_MAX / 2
    }

    pub(super) fn push(&mut self, input: T) {
        self.bytes = self.bytes.saturating_add(weight(&input));
        self.waiting.push_back(input);
    }

    /// Takes the input that was taken last back to the head.
    pub(super) fn put_back(&mut self, input: T) {
        self.bytes = self.bytes.saturating_add(weight(&input));
        self.waiting.push_front(input);
    }

    /// The inputs at the head: at most `count_max`, about `bytes_max` bytes of them, but at least one if there is one.
    pub(super) fn take(&mut self, count_max: usize, bytes_max: usize) -> Vec<T> {
        let (mut taken, mut bytes) = (Vec::new(), 0_usize);
        while taken.len() < count_max
            && bytes < bytes_max
            && let Some(input) = self.waiting.pop_front()
        {
            bytes = bytes.saturating_add(weight(&input));
            taken.push(input);
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        taken
    }

    pub(super) fn clear(&mut self) {
        *self = Queue::default();
    }
}

fn weight<T: Weighed>(input: &T) -> usize {
    input.bytes().saturating_add(OVERHEAD_BYTES)
}
