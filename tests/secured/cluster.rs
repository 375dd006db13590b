//! A broker that lets nobody in whom it does not know: SCRAM over TLS at one listener, client certificates at another, and access
//! control lists. Its plain listener is the administrator's.

use std::cell::Cell;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use crate::broker::Broker;
use crate::certificates::{Certificates, STORE_PASSWORD};

/// The principals that sign in with a password, each with its own.
pub(crate) const USERS: [(&str, &str); 5] = [
    ("finflow", "engine-CANARY-51ab"),
    ("upstream", "producer-CANARY-9f02"),
    ("downstream", "consumer-CANARY-33d7"),
    ("trimmer", "trimmer-CANARY-e8c4"),
    ("moved", "successor-CANARY-7b16"),
];

pub(crate) struct Cluster {
    broker: Broker,
    pub(crate) certificates: Certificates,
    scram_port: u16,
    tls_port: u16,
}

/// Properties of librdkafka.
pub(crate) type Properties = Vec<(&'static str, String)>;

impl Cluster {
    pub(crate) fn start(dir: &Path) -> Cluster {
        let certificates = Certificates::make(dir, "finflow");
        let ports = Cell::new((0, 0));
        let broker = Broker::start(|port| {
            ports.set(free_ports());
            settings(port, ports.get(), &certificates)
        });
        let (scram_port, tls_port) = ports.get();
        Cluster { broker, certificates, scram_port, tls_port }
    }

    /// Where the administrator is let in as he is.
    pub(crate) fn plain(&self) -> String {
        self.broker.address()
    }

    /// Where a name and a password are asked for.
    pub(crate) fn scram(&self) -> String {
        format!("127.0.0.1:{}", self.scram_port)
    }

    /// Where a certificate is asked for.
    pub(crate) fn tls(&self) -> String {
        format!("127.0.0.1:{}", self.tls_port)
    }

    /// How a user signs in at the first of them.
    pub(crate) fn signs_in(&self, user: &str, password: &str) -> Properties {
        vec![
            ("security.protocol", "sasl_ssl".to_owned()),
            ("sasl.mechanism", "SCRAM-SHA-512".to_owned()),
            ("sasl.username", user.to_owned()),
            ("sasl.password", password.to_owned()),
            ("ssl.ca.location", self.certificates.path("ca.pem")),
        ]
    }

    /// The same with the password that the user has.
    pub(crate) fn as_user(&self, user: &str) -> Properties {
        let (_, password) = USERS.iter().find(|(name, _)| *name == user).expect("a user");
        self.signs_in(user, password)
    }

    /// How the client shows its certificate at the second.
    pub(crate) fn shows_certificate(&self) -> Properties {
        let mut properties = self.shows_nothing();
        properties.push(("ssl.keystore.location", self.certificates.path("client.p12")));
        properties.push(("ssl.keystore.password", STORE_PASSWORD.to_owned()));
        properties
    }

    /// The same from two files, certificate and key.
    pub(crate) fn shows_files(&self) -> Properties {
        let mut properties = self.shows_nothing();
        properties.push(("ssl.certificate.location", self.certificates.path("client.pem")));
        properties.push(("ssl.key.location", self.certificates.path("client.key")));
        properties
    }

    pub(crate) fn shows_nothing(&self) -> Properties {
        vec![("security.protocol", "ssl".to_owned()), ("ssl.ca.location", self.certificates.path("ca.pem"))]
    }

    /// Runs a command line of Kafka's `kafka-acls`, as it was printed for a shell.
    pub(crate) fn kafka_acls(&self, line: &str) {
        let words: Vec<String> = line.split(' ').map(|word| word.trim_matches('\'').to_owned()).collect();
        let (program, arguments) = words.split_first().expect("a command");
        assert_eq!(program, "kafka-acls");
        let arguments = arguments.iter().map(String::as_str);
        self.broker.tool(&["org.apache.kafka.tools.AclCommand"].into_iter().chain(arguments).collect::<Vec<_>>(), "");
    }

    /// Takes a right away from a user.
    pub(crate) fn revoke(&self, user: &str, right: &str) {
        self.change("--remove --force", user, right);
    }

    /// Gives it to him.
    pub(crate) fn allow(&self, user: &str, right: &str) {
        self.change("--add", user, right);
    }

    fn change(&self, act: &str, user: &str, right: &str) {
        let plain = self.plain();
        self.kafka_acls(&format!("kafka-acls --bootstrap-server {plain} {act} --allow-principal User:{user} {right}"));
    }
}

/// Two ports that nobody listens on.
fn free_ports() -> (u16, u16) {
    let listeners = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"));
    let [first, second] = listeners.map(|listener| listener.local_addr().expect("an address").port());
    (first, second)
}

fn settings(port: u16, (scram, tls): (u16, u16), certificates: &Certificates) -> Vec<String> {
    let at = |name: &str, port: u16| format!("{name}://127.0.0.1:{port}");
    let (plain, controller) = (at("PLAINTEXT", port), at("CONTROLLER", port + 1));
    let (scram, tls) = (at("SASL_SSL", scram), at("SSL", tls));
    let mut all = vec![
        format!("listeners={plain},{controller},{scram},{tls}"),
        format!("advertised.listeners={plain},{scram},{tls}"),
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned(),
        "allow.everyone.if.no.acl.found=false".to_owned(),
        "super.users=User:ANONYMOUS".to_owned(),
        "sasl.enabled.mechanisms=SCRAM-SHA-512".to_owned(),
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;"
            .to_owned(),
        format!("ssl.keystore.location={}", certificates.path("broker.p12")),
        format!("ssl.keystore.password={STORE_PASSWORD}"),
        format!("ssl.truststore.location={}", certificates.path("ca.pem")),
        "ssl.truststore.type=PEM".to_owned(),
        "listener.name.ssl.ssl.client.auth=required".to_owned(),
        "listener.name.ssl.ssl.principal.mapping.rules=RULE:^CN=([^,]*).*$/$1/".to_owned(),
        "--".to_owned(),
    ];
    for (user, password) in USERS {
        all.extend(["--add-scram".to_owned(), format!("SCRAM-SHA-512=[name={user},password={password}]")]);
    }
    all
}
