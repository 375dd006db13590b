//! One broker out of three is lost: whatever it led others lead from then on, and the application goes on meanwhile.

use std::path::Path;
use std::time::Instant;

use crate::application::{Application, PARTITIONS};
use crate::broker::Broker;
use crate::costs::{Kind, Mark, report};
use crate::load::Load;
use crate::rolling::settles_everywhere;
use crate::verdict;
use crate::witness::Witness;

const BROKERS: u16 = 3;
/// Transfers a second: three brokers write everything three times on one machine.
const RATE: usize = 300;

pub(crate) fn one_broker_out_of_three_is_lost(dir: &Path, seed: u64) {
    std::fs::create_dir_all(dir).expect("a directory");
    let broker = Broker::cluster(BROKERS);
    let mut app = Application::start(dir, broker.address(), "brokers", &["topics.replication_factor=3"], None);
    let mut load = Load::new(&app.brokers, app.prefix, seed);
    load.open_wallets();
    let witness = Witness::start(&app.brokers, app.prefix, PARTITIONS);
    verdict::all_end(&mut app, &witness, load.published());
    println!("one broker out of {BROKERS} is lost at {RATE} transfers/s");

    load.start(RATE);
    settles_everywhere(&mut app, &witness);
    let number = 1 + (seed % u64::from(BROKERS)) as u16;
    let lost = Instant::now();
    broker.kill(number);
    settles_everywhere(&mut app, &witness);
    println!("    every partition settles without broker {number} after {:.1} s", lost.elapsed().as_secs_f64());
    app.all_run();
    broker.revive(number);
    settles_everywhere(&mut app, &witness);
    load.finish();
    verdict::all_end(&mut app, &witness, load.published());
    let marks = [Mark { kind: Kind::Broker, at: lost, partitions: (0..PARTITIONS).collect() }];
    report(&marks, &witness.seen().gaps, lost);
    verdict::all_is_well(&mut app, &witness, &load, seed);
}
