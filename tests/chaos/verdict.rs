//! What must hold in the end, whatever has happened: of the commands, the events, the wallets and the state.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use finflow_topologies::simulation::audit;
use rdkafka::Message;
use serde_json::Value;

use crate::application::{Application, NAMES, PARTITIONS};
use crate::faults::Extent;
use crate::load::{Load, TOP_UP_MINOR, WALLETS, command};
use crate::process::eventually;
use crate::witness::{Witness, each};

/// How long the engine may take for what is published, with everything well.
const ENDED_WITHIN: Duration = Duration::from_secs(120);

/// Waits until as many commands have ended as were published.
pub(crate) fn all_end(app: &mut Application<'_>, witness: &Witness, published: usize) {
    crate::child::eventually(ENDED_WITHIN, || {
        app.look(Instant::now());
        let ended = witness.seen().ended_count();
        let faults = witness.seen().faults.clone();
        assert_eq!(faults, Vec::<String>::new(), "{}", app.logged());
        let missing = || (0..published).filter(|n| witness.seen().ended.get(*n).is_none_or(Option::is_none)).take(10);
        match ended < published {
            true => Err(format!("{ended} of {published} have ended, not {:?}\n{}", missing().collect::<Vec<_>>(), app.logged())),
            false => Ok(()),
        }
    });
}

/// Checks everything, and stops the processes on the way. Gives the number of events that aborted epochs have left.
pub(crate) fn all_is_well(app: &mut Application<'_>, witness: &Witness, load: &Load, seed: u64) -> usize {
    all_end(app, witness, load.published());
    app.all_run();
    every_command_has_ended_as_it_must(witness, load, seed);
    let (audited, aborted) = events_are_what_was_shown(app, witness);
    wallets_are_what_the_events_say(app, &audited);
    let dead = each(&app.brokers, &format!("{}.dlq.v1", app.prefix), PARTITIONS, "read_committed", |record| {
        println!("    a dead letter: {:?}", record.payload().map(String::from_utf8_lossy));
    });
    assert_eq!(dead, 0, "no command is a dead letter");
    state_is_what_the_journal_says(app);
    assert_eq!(app.faults, Vec::<String>::new(), "{}", app.logged());
    aborted
}

/// Checks that there was something to be checked, where the run must have had it: whoever has paused nobody has not seen that a zombie
/// ends, and where no epoch was aborted nobody could have been shown one.
pub(crate) fn nothing_is_well_for_nothing(app: &Application<'_>, extent: Extent, aborted: usize) {
    let has_paused = matches!(extent, Extent::OneOfEach) || extent.is_long();
    let pauses = app.pauses();
    assert!(!has_paused || 0 < app.fenced, "no process that had run partitions was paused and ended itself; {pauses}");
    if extent.is_long() {
        assert!(0 < aborted, "no aborted epoch has left an event: that none is shown to readers was not tested");
        assert!(app.moved.contains_key("standby"), "no partition went on from a standby: {:?}", app.moved);
    }
}

fn every_command_has_ended_as_it_must(witness: &Witness, load: &Load, seed: u64) {
    let seen = witness.seen();
    let wrong = (0..load.published()).filter(|n| seen.ended.get(*n).copied().flatten() != Some(command(seed, *n).end));
    assert_eq!(wrong.take(10).collect::<Vec<_>>(), Vec::<usize>::new(), "commands that ended otherwise");
    assert_eq!(seen.ended.len(), load.published(), "nothing has ended that was not published");
}

/// Wallets by id, with their balance in minor units.
type Balances = BTreeMap<String, i128>;

/// Reads all events again, has them audited, and counts what transactions have left that never was committed.
fn events_are_what_was_shown(app: &Application<'_>, witness: &Witness) -> (Balances, usize) {
    let mut events = Vec::new();
    let differences = witness.read_again(&app.brokers, |event| events.push(event));
    assert_eq!(differences.iter().take(10).collect::<Vec<_>>(), Vec::<&String>::new(), "{} differences", differences.len());
    let written = each(&app.brokers, &format!("{}.events.v1", app.prefix), PARTITIONS, "read_uncommitted", |_| {});
    let aborted = written - events.len();
    println!("    {} events, and {aborted} of aborted epochs that no reader is shown", events.len());
    let audit = audit(&events);
    assert!(audit.faults.is_empty(), "{:?}", audit.faults.iter().take(10).collect::<Vec<_>>());
    assert_eq!(audit.sums.get("AED"), Some(&(WALLETS as i128 * TOP_UP_MINOR)), "every cent is there");
    (audit.balances.into_iter().map(|(wallet, (_, minor))| (wallet, minor)).collect(), aborted)
}

fn wallets_are_what_the_events_say(app: &Application<'_>, due: &Balances) {
    let told = eventually(|| {
        let asked = app.process("two").finflow(&["wallet", "list", "--format", "json"]);
        let text = String::from_utf8_lossy(&asked.stdout).into_owned();
        if asked.status.success() { Ok(text) } else { Err(String::from_utf8_lossy(&asked.stderr).into_owned()) }
    });
    let minor =
        |wallet: &Value, name: &str| wallet[name].as_str().expect("an amount").replace('.', "").parse().expect("minor units");
    let wallets: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect();
    let found: Balances =
        wallets.iter().map(|of| (of["wallet"].as_str().unwrap_or_default().to_owned(), minor(of, "ledger"))).collect();
    assert_eq!(&found, due, "the wallets are what their events say");
    assert!(wallets.iter().all(|wallet| minor(wallet, "held") == 0), "nothing is held any more");
}

/// By partition: block, holds, digest and differences.
type State = BTreeMap<u64, [Value; 4]>;

fn state(rows: Vec<Value>) -> State {
    let of = |row: Value| {
        (
            row["partition"].as_u64().expect("a partition"),
            ["block", "holds", "digest", "differences"].map(|name| row[name].clone()),
        )
    };
    rows.into_iter().map(of).collect()
}

/// The state of every process verifies, and is the same when it is built from the journal alone, in an empty directory.
fn state_is_what_the_journal_says(app: &mut Application<'_>) {
    let told: Vec<State> = NAMES.iter().map(|name| state(app.process(name).json(&["state", "verify"]))).collect();
    assert!(told.iter().all(|one| *one == told[0]), "every process tells the same: {told:?}");
    let found = &told[0];
    let is_clean = |[_, holds, _, differences]: &[Value; 4]| *holds == 0 && *differences == Value::Array(Vec::new());
    assert!(found.len() == PARTITIONS as usize && found.values().all(is_clean), "{found:?}");
    app.end();
    let begun = Instant::now();
    let rebuilt = eventually(|| {
        let verified = app.process("nowhere").finflow(&["state", "verify", "--format", "json"]);
        let text = String::from_utf8_lossy(&verified.stdout).into_owned();
        if verified.status.success() { Ok(text) } else { Err(String::from_utf8_lossy(&verified.stderr).into_owned()) }
    });
    let rebuilt = state(rebuilt.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect());
    assert_eq!(rebuilt, *found, "the journal alone gives the same state");
    println!("    all {PARTITIONS} partitions are the same from the journal alone, {:.1} s later", begun.elapsed().as_secs_f64());
}
