//! What the demo shows while it runs, on stderr: a bar with figures on a terminal, a plain line now and then elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a plain line is told.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

pub(super) struct Live {
    bar: ProgressBar,
    what: &'static str,
    is_terminal: bool,
    told_at: Instant,
}

impl Live {
    pub(super) fn new(what: &'static str, length: u64) -> Live {
        let style = ProgressStyle::with_template("{msg:16} {bar:32} {percent:>3}%  {prefix}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(length).with_style(style).with_message(what);
        Live { bar, what, is_terminal: std::io::stderr().is_terminal(), told_at: Instant::now() }
    }

    /// Shows how far it is, and the figures where they are drawn.
    pub(super) fn show(&mut self, position: u64, figures: impl FnOnce() -> String) {
        self.bar.set_position(position);
        if self.is_terminal {
            self.bar.set_prefix(figures());
        } else if PLAIN_EVERY <= self.told_at.elapsed() {
            self.told_at = Instant::now();
            let percent = position * 100 / self.bar.length().unwrap_or(1).max(1);
            eprintln!("{} {percent}%  {}", self.what, figures());
        }
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// A number with commas between its thousands.
pub(super) fn thousands(number: impl ToString) -> String {
    let text = number.to_string();
    let (sign, text) = text.strip_prefix('-').map_or(("", &*text), |digits| ("-", digits));
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::from(sign);
    for (place, digit) in whole.chars().enumerate() {
        if place != 0 && (whole.len() - place) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + fraction
}

#[cfg(test)]
mod tests {
    #[test]
    fn thousands_are_parted() {
        let rows = [("0", "0"), ("999", "999"), ("1000", "1,000"), ("1234567.890", "1,234,567.890"), ("-1000.00", "-1,000.00")];
        for (number, text) in rows {
            assert_eq!(super::thousands(number), text);
        }
    }
}
