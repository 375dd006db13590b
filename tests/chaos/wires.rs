//! The wires between the processes and the broker, one for each of them, so that one of them can be cut.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};

use crate::application::NAMES;
use crate::broker::Broker;
use crate::proxy::{self, Armed, Cut};

pub(crate) struct Wires(BTreeMap<&'static str, Wire>);

struct Wire {
    /// Where its process asks the broker.
    address: String,
    armed: Armed,
}

impl Wires {
    /// Starts a broker that listens to each process apart.
    pub(crate) fn to_a_broker() -> (Broker, Wires) {
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = |listener: &TcpListener| listener.local_addr().expect("an address").port();
        let outer: Vec<TcpListener> = NAMES.iter().map(|_| free()).collect();
        // All at once, so that no two are the same.
        let inner: Vec<u16> = NAMES.iter().map(|_| free()).collect::<Vec<_>>().iter().map(port).collect();
        let each = |ports: Vec<u16>| -> String {
            let each = NAMES.iter().zip(ports);
            each.map(|(name, port)| format!(",{}://127.0.0.1:{port}", name.to_uppercase())).collect()
        };
        let broker = Broker::start(|port_of_all| {
            let (plain, controller) = (format!("PLAINTEXT://127.0.0.1:{port_of_all}"), port_of_all + 1);
            let protocols: String = NAMES.iter().map(|name| format!(",{}:PLAINTEXT", name.to_uppercase())).collect();
            vec![
                format!("listeners={plain}{},CONTROLLER://127.0.0.1:{controller}", each(inner.clone())),
                format!("advertised.listeners={plain}{}", each(outer.iter().map(port).collect())),
                format!("listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}"),
            ]
        });
        let mut wires = BTreeMap::new();
        for (name, (outer, inner)) in NAMES.into_iter().zip(outer.into_iter().zip(inner)) {
            let (address, armed) = (format!("127.0.0.1:{}", port(&outer)), Armed::default());
            proxy::serve(outer, inner, &armed);
            wires.insert(name, Wire { address, armed });
        }
        (broker, Wires(wires))
    }

    /// Where each process asks the broker.
    pub(crate) fn addresses(&self) -> BTreeMap<&'static str, String> {
        self.0.iter().map(|(name, wire)| (*name, wire.address.clone())).collect()
    }

    /// Cuts the wire of a process, or mends it.
    pub(crate) fn cut(&self, name: &str, how: Option<Cut>) {
        if let Some(wire) = self.0.get(name) {
            wire.armed.cut(how);
        }
    }
}
