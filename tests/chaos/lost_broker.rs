//! One broker out of three is lost, the coordinator of the group: whatever it led others lead from then on, and the application goes on
//! meanwhile.

use std::path::Path;
use std::time::Instant;

use crate::application::{Application, PARTITIONS};
use crate::broker::Broker;
use crate::costs::{Kind, Mark, report};
use crate::form::Form;
use crate::load::Load;
use crate::process::eventually;
use crate::rolling::settles_everywhere;
use crate::verdict;
use crate::witness::Witness;

const BROKERS: u16 = 3;
/// Transfers a second: three brokers write everything three times on one machine.
const RATE: usize = 300;

pub(crate) fn one_broker_out_of_three_is_lost(dir: &Path, seed: u64) {
    std::fs::create_dir_all(dir).expect("a directory");
    let broker = Broker::cluster(BROKERS);
    let mut app = Application::start(dir, broker.address(), "brokers", (Form::Plain, &["topics.replication_factor=3"]), None);
    what_one_broker_acknowledges_may_be_lost(&broker, &app);
    let mut load = Load::new(&app.brokers, app.prefix, seed);
    load.open_wallets();
    let witness = Witness::start(&app.brokers, app.prefix, PARTITIONS);
    verdict::all_end(&mut app, &witness, load.published());
    println!("one broker out of {BROKERS} is lost at {RATE} transfers/s");

    load.start(RATE);
    settles_everywhere(&mut app, &witness);
    let number = coordinator(&broker, app.prefix);
    let lost = Instant::now();
    broker.kill(number);
    settles_everywhere(&mut app, &witness);
    println!("    every partition settles without broker {number} after {:.1} s", lost.elapsed().as_secs_f64());
    app.all_run();
    println!("    all processes have partitions again after {:.1} s", lost.elapsed().as_secs_f64());
    broker.revive(number);
    settles_everywhere(&mut app, &witness);
    load.finish();
    verdict::all_end(&mut app, &witness, load.published());
    let marks = [Mark { kind: Kind::Broker, at: lost, partitions: (0..PARTITIONS).collect() }];
    report(&marks, &witness.seen().gaps, lost);
    verdict::all_is_well(&mut app, &witness, &load, seed);
}

/// A topic that takes what one broker alone has is found.
fn what_one_broker_acknowledges_may_be_lost(broker: &Broker, app: &Application<'_>) {
    let (topic, address) = (format!("{}.events.v1", app.prefix), broker.address());
    let begin = ["kafka.admin.ConfigCommand", "--bootstrap-server", &address, "--alter", "--topic", &topic, "--add-config"];
    for (replicas, code, said) in [("1", 1, "min.insync.replicas is \"1\", 2 is needed"), ("2", 0, "")] {
        broker.tool(&[&begin[..], &[&format!("min.insync.replicas={replicas}")]].concat(), "");
        // The broker that is asked hears of it a moment later.
        eventually(|| {
            let checked = app.process("one").finflow(&["topics", "check"]);
            let told = String::from_utf8_lossy(&checked.stderr);
            let is_so = checked.status.code() == Some(code) && told.contains(said);
            if is_so { Ok(()) } else { Err(format!("{:?} {told}", checked.status)) }
        });
    }
}

/// The broker that the group's members are held together by.
fn coordinator(broker: &Broker, group: &str) -> u16 {
    let address = broker.address();
    let told = broker.tool(
        &[
            "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
            "--bootstrap-server",
            &address,
            "--describe",
            "--state",
            "--group",
            group,
        ],
        "",
    );
    // GROUP, COORDINATOR (ID), ASSIGNMENT-STRATEGY, ...
    let id = told.lines().filter(|line| line.starts_with(group)).find_map(|line| {
        let (_, rest) = line.split_once('(')?;
        rest.split(')').next()?.parse().ok()
    });
    id.unwrap_or_else(|| panic!("nobody coordinates {group}: {told}"))
}
