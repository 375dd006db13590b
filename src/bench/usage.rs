//! What a process has used so far, as the system tells it. Where it does not tell, figures are zero.

use std::path::PathBuf;

const TICKS_PER_SECOND: f64 = 100.0;

/// A process, by its place in the system's table.
#[derive(Debug, Clone)]
pub(crate) struct Usage(PathBuf);

impl Usage {
    /// Of this process.
    pub(crate) fn own() -> Usage {
        Usage(PathBuf::from("/proc/self"))
    }

    /// Of another one of this machine.
    pub(super) fn of(pid: u32) -> Usage {
        Usage(PathBuf::from(format!("/proc/{pid}")))
    }

    /// CPU time of all its threads, in seconds.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(self.0.join("stat")).unwrap_or_default();
        let after_name: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |index: usize| after_name.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
        (ticks(11) + ticks(12)) / TICKS_PER_SECOND
    }

    /// Bytes that reached the storage layer.
    pub(super) fn written_bytes(&self) -> u64 {
        self.field("io", "write_bytes:")
    }

    /// Resident memory, in bytes.
    pub(super) fn resident_bytes(&self) -> u64 {
        self.field("status", "VmRSS:") * 1_024
    }

    /// The most resident memory so far, in bytes.
    pub(super) fn resident_bytes_max(&self) -> u64 {
        self.field("status", "VmHWM:") * 1_024
    }

    fn field(&self, file: &str, name: &str) -> u64 {
        let text = std::fs::read_to_string(self.0.join(file)).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default()
    }
}
