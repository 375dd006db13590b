//! The way in for other processes: TCP, opened to who shows that it knows the application's secret, and who is shown the same.
//!
//! Each side sends 32 random bytes and then a code over both (HMAC with SHA-256, RFC 2104), so that the secret itself never travels
//! and nothing that was heard can be said again. What follows is not encrypted: the network between the processes has to be theirs.

use std::io::{Error, ErrorKind, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tracing::{debug, warn};

use super::{ACCEPT_PAUSE, converse};
use crate::node::Node;

/// Connections at a time; who comes then has to wait.
const CONNECTIONS_MAX: usize = 64;
/// A connection that asks nothing for so long is closed: its other end may have gone without a word.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How long connecting and showing the secret may take.
const KNOCK_TIMEOUT: Duration = Duration::from_secs(1);
const NONCE_BYTES: usize = 32;
const CODE_BYTES: usize = 32;
/// The block length of SHA-256, in bytes.
const BLOCK_BYTES: usize = 64;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Whoever owns the data directory.
    Owner,
    /// A command on another machine.
    Guest,
    /// Another process of the application, on behalf of who has asked it.
    Peer,
}

/// A listener that answers nobody yet: its address is known before the node begins.
pub struct Door(TcpListener);

impl Door {
    /// Listens.
    ///
    /// # Errors
    /// The address cannot be had.
    pub async fn open(listen: SocketAddr) -> std::io::Result<Door> {
        Ok(Door(TcpListener::bind(listen).await?))
    }

    /// Where it listens, with the port that it was given.
    ///
    /// # Errors
    /// The listener has none.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Answers who knows `secret`, until the task is dropped.
    pub fn serve(self, node: Node, secret: String) -> JoinHandle<()> {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        tokio::spawn(async move {
            loop {
                // It is never closed.
                let Ok(place) = places.clone().acquire_owned().await else { return };
                match self.0.accept().await {
                    Ok((stream, from)) => {
                        let (node, secret) = (node.clone(), secret.clone());
                        tokio::spawn(async move {
                            match admit(stream, &secret).await {
                                Ok((stream, standing)) => converse(node, Box::new(stream), standing, Some(IDLE_MAX)).await,
                                Err(cause) => debug!(%from, %cause, "not let in"),
                            }
                            drop(place);
                        });
                    }
                    Err(cause) => {
                        warn!(%cause, "cannot accept other processes");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        })
    }
}

/// Lets in who knows the secret.
async fn admit(mut stream: TcpStream, secret: &str) -> std::io::Result<(TcpStream, Standing)> {
    let shown = async {
        let mut theirs = [0; NONCE_BYTES];
        stream.read_exact(&mut theirs).await?;
        let ours = nonce()?;
        stream.write_all(&ours).await?;
        stream.write_all(&code(secret, b"door", &theirs, &ours)).await?;
        let mut shown = [0; CODE_BYTES];
        stream.read_exact(&mut shown).await?;
        let is = |word: &[u8]| is_same(&shown, &code(secret, word, &theirs, &ours));
        match (is(b"guest"), is(b"peer")) {
            (true, _) => Ok(Standing::Guest),
            (_, true) => Ok(Standing::Peer),
            _ => Err(stranger()),
        }
    };
    // What everybody knows is no secret.
    let standing = timely(shown).await.and_then(|standing| if secret.is_empty() { Err(stranger()) } else { Ok(standing) })?;
    stream.set_nodelay(true)?;
    Ok((stream, standing))
}

/// Connects and shows the secret, to one who shows it too.
pub(super) async fn knock(address: &str, secret: &str, standing: Standing) -> std::io::Result<TcpStream> {
    let word: &[u8] = if standing == Standing::Peer { b"peer" } else { b"guest" };
    timely(async {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let ours = nonce()?;
        stream.write_all(&ours).await?;
        let (mut theirs, mut shown) = ([0; NONCE_BYTES], [0; CODE_BYTES]);
        stream.read_exact(&mut theirs).await?;
        stream.read_exact(&mut shown).await?;
        if !is_same(&shown, &code(secret, b"door", &ours, &theirs)) {
            return Err(stranger());
        }
        stream.write_all(&code(secret, word, &ours, &theirs)).await?;
        Ok(stream)
    })
    .await
}

fn stranger() -> Error {
    Error::new(ErrorKind::PermissionDenied, "the other side has another internal.secret")
}

async fn timely<T>(work: impl Future<Output = std::io::Result<T>>) -> std::io::Result<T> {
    tokio::time::timeout(KNOCK_TIMEOUT, work).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

/// Bytes that nobody can foresee.
fn nonce() -> std::io::Result<[u8; NONCE_BYTES]> {
    let mut bytes = [0; NONCE_BYTES];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// HMAC-SHA-256 over a word and both nonces, that of who knocks first.
fn code(secret: &str, word: &[u8], knocking: &[u8], opening: &[u8]) -> [u8; CODE_BYTES] {
    hmac(secret.as_bytes(), &[word, b" ", knocking, opening])
}

fn hmac(key: &[u8], message: &[&[u8]]) -> [u8; CODE_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    let hashed = Sha256::digest(key);
    let key = if BLOCK_BYTES < key.len() { &hashed[..] } else { key };
    block.iter_mut().zip(key).for_each(|(byte, key)| *byte = *key);
    let padded = |with: u8| block.map(|byte| byte ^ with);
    let inner = message.iter().fold(Sha256::new_with_prefix(padded(0x36)), |inner, part| inner.chain_update(part));
    Sha256::new_with_prefix(padded(0x5c)).chain_update(inner.finalize()).finalize().into()
}

/// Compares in the same time whatever differs.
fn is_same(one: &[u8; CODE_BYTES], other: &[u8; CODE_BYTES]) -> bool {
    let differing = one.iter().zip(other).fold(0, |differing, (one, other)| differing | (one ^ other));
    std::hint::black_box(differing) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_standard() {
        // RFC 4231, test cases 1, 2 and 6.
        let rows: [(&[u8], &[u8], &str); 3] = [
            (&[0x0b; 20], b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            (b"Jefe", b"what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
            (
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ];
        for (key, message, expected) in rows {
            let found: String = hmac(key, &[message]).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(found, expected);
        }
    }

    #[tokio::test]
    async fn only_who_knows_the_secret_is_let_in() {
        // The secret of the door and of who knocks, as whom, and as what it is let in.
        let rows = [
            ("s", "s", Standing::Peer, Some(Standing::Peer)),
            ("s", "s", Standing::Guest, Some(Standing::Guest)),
            ("", "", Standing::Guest, None),
            ("s", "t", Standing::Peer, None),
            ("s", "", Standing::Guest, None),
        ];
        for (secret, known, standing, expected) in rows {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address").to_string();
            let admitted = tokio::spawn(async move { admit(listener.accept().await.expect("somebody").0, secret).await });
            let knocked = knock(&address, known, standing).await;
            // Who knocks learns of it at once, or when the door closes.
            assert!(knocked.is_ok() || expected.is_none(), "{secret} {known}");
            drop(knocked);
            assert_eq!(admitted.await.expect("a task").ok().map(|(_, standing)| standing), expected, "{secret} {known}");
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let admitted = tokio::spawn(async move { admit(listener.accept().await.expect("somebody").0, "s").await });
        let mut stranger = TcpStream::connect(address).await.expect("a connection");
        stranger.write_all(&[0; NONCE_BYTES + CODE_BYTES]).await.expect("a reader");
        assert!(admitted.await.expect("a task").is_err(), "who does not know the secret shows nothing of worth");
    }
}
