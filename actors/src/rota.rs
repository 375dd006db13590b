//! Whose turn it is: that of each partition once an interval, spread over it, so that they do not come all at once.

use std::collections::BTreeMap;
use std::time::Duration;

/// When each partition is due, in milliseconds of the monotonic clock.
pub(crate) struct Rota {
    interval_ms: i64,
    due_ms: BTreeMap<u32, i64>,
}

impl Rota {
    /// The first turns come within the interval that begins now.
    pub(crate) fn new(partitions: impl ExactSizeIterator<Item = u32>, interval: Duration, now_ms: i64) -> Rota {
        let interval_ms = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1);
        let count = partitions.len().max(1) as i64;
        let share = |place: i64| now_ms.saturating_add((interval_ms / count).saturating_mul(place));
        let due_ms = partitions.zip(1..).map(|(id, place)| (id, share(place))).collect();
        Rota { interval_ms, due_ms }
    }

    /// The partition that has been due for longest, if one is due; it is due again an interval from now.
    pub(crate) fn next(&mut self, now_ms: i64) -> Option<u32> {
        let (id, due_ms) = self.due_ms.iter_mut().min_by_key(|(_, due_ms)| **due_ms).filter(|(_, due_ms)| **due_ms <= now_ms)?;
        *due_ms = now_ms.saturating_add(self.interval_ms);
        Some(*id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_turn_once_an_interval() {
        let mut rota = Rota::new([3, 5, 8].into_iter(), Duration::from_millis(300), 1_000);
        // When it is asked, and whose turn it is.
        let rows = [
            (1_099, None),
            (1_100, Some(3)),
            (1_100, None),
            (1_250, Some(5)),
            (1_450, Some(8)),
            (1_450, Some(3)),
            (1_549, None),
            (1_550, Some(5)),
            (9_000, Some(3)),
            (9_000, Some(8)),
            (9_000, Some(5)),
            (9_000, None),
        ];
        for (now_ms, expected) in rows {
            assert_eq!(rota.next(now_ms), expected, "at {now_ms}");
        }
        assert_eq!(Rota::new(std::iter::empty(), Duration::ZERO, 0).next(i64::MAX), None);
    }
}
