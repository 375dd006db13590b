//! What this process has used so far, as the system tells it. Where it does not tell, figures are zero.

const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time, in seconds.
pub(crate) fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks =
        |index: usize| after_name.split_whitespace().nth(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

/// Bytes that reached the storage layer.
pub(super) fn written_bytes() -> u64 {
    field("/proc/self/io", "write_bytes:")
}

/// Resident memory, in bytes.
pub(super) fn resident_bytes() -> u64 {
    field("/proc/self/status", "VmRSS:") * 1_024
}

fn field(path: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default()
}
