//! What a service is asked by everybody here, again until it can answer.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::http;
use crate::process::{Process, eventually};

/// All wallets, once every partition has found the lane where it stays.
pub(crate) fn wallets(process: &Process<'_>) -> BTreeMap<String, Value> {
    let listed = eventually(|| {
        let output = process.finflow(&["wallet", "list", "--format", "json"]);
        match (output.status.code(), String::from_utf8_lossy(&output.stderr)) {
            (Some(0), _) => Ok(String::from_utf8(output.stdout).expect("a text")),
            (Some(75), told) => Err(told.into_owned()),
            (code, told) => panic!("{code:?}: {told}"),
        }
    });
    let listed = listed.lines().map(|line| serde_json::from_str::<Value>(line).expect("a JSON object a line"));
    listed.map(|wallet| (wallet["wallet"].as_str().expect("a wallet").to_owned(), wallet)).collect()
}

/// Where the admin listener of a service is asked.
pub(crate) fn admin(process: &Process<'_>) -> String {
    eventually(|| {
        let logged = process.logged();
        let line = logged.lines().find(|line| line.contains("admin listener")).ok_or("it does not say where it is asked")?;
        // The log may be coloured.
        let place = line.find("127.0.0.1:").ok_or("no address")?;
        let address = line[place..].chars().take_while(|letter| letter.is_ascii_digit() || ".:".contains(*letter)).collect();
        Ok(address)
    })
}

/// Waits until the readiness of a service says something.
pub(crate) fn says(address: &str, what: &str) {
    eventually(|| {
        let answer = http::get(address, "/readyz?verbose");
        if answer.contains(what) { Ok(()) } else { Err(format!("{what} is not in {answer}")) }
    });
}

/// What a metric says, if it is there.
pub(crate) fn figure(address: &str, metric: &str) -> Option<f64> {
    let told = http::get(address, "/metrics");
    told.lines().find_map(|line| line.strip_prefix(metric)?.trim().parse().ok())
}
