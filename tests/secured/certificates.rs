//! Certificates for the length of a test: an authority, a broker and a client that it has signed for, and a stranger that it has not.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Guards every key store.
pub(crate) const STORE_PASSWORD: &str = "store-CANARY-7c1e";

pub(crate) struct Certificates {
    dir: PathBuf,
}

impl Certificates {
    /// Makes them in `dir`, the client's for the principal `client`.
    pub(crate) fn make(dir: &Path, client: &str) -> Certificates {
        let made = Certificates { dir: dir.to_owned() };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                made.key_pair("stranger.p12", "ca", "somebody else", &["-ext", "bc:c=ca:true"]);
                made.export("stranger.p12", "stranger.pem");
            });
            made.key_pair("all.p12", "ca", "the test's own authority", &["-ext", "bc:c=ca:true"]);
            made.key_pair("all.p12", "broker", "broker", &["-signer", "ca", "-ext", "san=ip:127.0.0.1,dns:localhost"]);
            made.key_pair("all.p12", "client", client, &["-signer", "ca"]);
            scope.spawn(|| made.copy("broker", "broker.p12"));
            scope.spawn(|| {
                made.copy("client", "client.p12");
                made.openssl("client.p12", "client.pem", &["-nokeys", "-clcerts"]);
                made.openssl("client.p12", "client.key", &["-nocerts", "-nodes"]);
            });
            made.export("all.p12", "ca.pem");
        });
        made
    }

    /// The path of one of the files: `ca.pem`, `stranger.pem`, `broker.p12`, `client.p12`, and of the latter's parts `client.pem` and
    /// `client.key`.
    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn key_pair(&self, store: &str, alias: &str, name: &str, more: &[&str]) {
        let name = format!("CN={name}");
        let kind = ["-keyalg", "EC", "-groupname", "secp256r1", "-validity", "2", "-dname", &name];
        self.keytool(&[&["-genkeypair", "-keystore", store, "-alias", alias][..], &kind, more].concat());
    }

    fn export(&self, store: &str, file: &str) {
        self.keytool(&["-exportcert", "-rfc", "-keystore", store, "-alias", "ca", "-file", file]);
    }

    fn copy(&self, alias: &str, to: &str) {
        let (from, all) = (["-srckeystore", "all.p12", "-srcalias", alias], ["-srcstorepass", STORE_PASSWORD]);
        let into = ["-destkeystore", to, "-deststoretype", "PKCS12", "-deststorepass", STORE_PASSWORD];
        self.run("keytool", &[&["-importkeystore"][..], &from, &all, &into].concat());
    }

    /// Has a part of a key store lie in a file of its own.
    fn openssl(&self, store: &str, to: &str, part: &[&str]) {
        let guarded = format!("pass:{STORE_PASSWORD}");
        self.run("openssl", &[&["pkcs12", "-in", store, "-out", to, "-passin", &guarded], part].concat());
    }

    fn keytool(&self, arguments: &[&str]) {
        self.run("keytool", &[arguments, &["-storetype", "PKCS12", "-storepass", STORE_PASSWORD]].concat());
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = Command::new(program).args(arguments).current_dir(&self.dir).output().expect("a program that is there");
        let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {told}");
    }
}
