//! Where snapshots rest, as `snapshots.url` names it. What a URL may look like is decided here alone, so that nothing is found wrong
//! later.

use std::path::PathBuf;

/// What `snapshots.url` has to be.
pub(crate) const RULE: &str =
    "must be \"file:///directory\" or \"s3://bucket/prefix\", as in \"s3://payments-snapshots/finflow\"";
/// What `snapshots.endpoint` has to be.
pub(crate) const ENDPOINT_RULE: &str = "must be a URL without a password, as in \"https://s3.internal:9000\"";

/// Where snapshots rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rest {
    /// In the data directory.
    BesideData,
    /// In this directory.
    Directory(PathBuf),
    /// In a bucket of S3, or of something that speaks like it, under a prefix that may be empty and has no slash at either end.
    Bucket {
        /// The bucket.
        name: String,
        /// What the names of all objects begin with.
        prefix: String,
    },
}

impl Rest {
    /// Reads a URL; nothing is a place too, beside the data. `None` where it is neither.
    pub(crate) fn parse(url: &str) -> Option<Rest> {
        if url.is_empty() {
            return Some(Rest::BesideData);
        }
        if let Some(path) = url.strip_prefix("file://") {
            let path = decoded(path)?;
            let is_absolute = path.starts_with('/') && path.bytes().any(|byte| byte != b'/');
            return (is_absolute && !path.contains('\0')).then(|| Rest::Directory(PathBuf::from(path)));
        }
        let rest = url.strip_prefix("s3://")?;
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let is_place = is_bucket(name) && (prefix.is_empty() || prefix.split('/').all(is_segment));
        is_place.then(|| Rest::Bucket { name: name.to_owned(), prefix: prefix.to_owned() })
    }
}

/// The names that every object store takes.
fn is_bucket(name: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    let is_edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    (3..=63).contains(&name.len())
        && name.bytes().all(is_inner)
        && is_edge(name.bytes().next())
        && is_edge(name.bytes().last())
        && !name.contains("..")
}

/// A part of a prefix: what means the same in a URL, a path and a signature.
fn is_segment(part: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._=-".contains(&byte);
    !part.is_empty() && part.bytes().all(is_plain) && !part.bytes().all(|byte| byte == b'.')
}

/// The path that a `file` URL spells: `%20` is a space (RFC 3986), and a space may also be written as it is.
fn decoded(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        rest = others;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, others) = rest.split_at_checked(2)?;
        let is_hex = digits.iter().all(u8::is_ascii_hexdigit);
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok().filter(|_| is_hex)?, 16).ok()?);
        rest = others;
    }
    String::from_utf8(bytes).ok()
}

/// Whether a text is the address of a server that speaks HTTP: no user, no password, no query.
pub(crate) fn is_endpoint(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")) else { return false };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let is_host = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte));
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| 0 < port));
    is_host && is_port && (path.is_empty() || path.split('/').all(|part| part.is_empty() || is_segment(part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_place_or_nothing() {
        let directory = |path: &str| Some(Rest::Directory(PathBuf::from(path)));
        let bucket = |name: &str, prefix: &str| Some(Rest::Bucket { name: name.to_owned(), prefix: prefix.to_owned() });
        let rows = [
            ("", Some(Rest::BesideData)),
            ("file:///mnt/other disk", directory("/mnt/other disk")),
            ("file:///mnt/other%20disk/%c3%A9", directory("/mnt/other disk/é")),
            ("file:///", None),
            ("file://", None),
            ("file://host/mnt", None),
            ("file:/mnt", None),
            ("file:///mnt%2", None),
            ("file:///mnt%+1", None),
            ("file:///mnt%ff", None),
            ("file:///mnt%00", None),
            ("/mnt", None),
            ("s3://payments", bucket("payments", "")),
            ("s3://payments/", bucket("payments", "")),
            ("s3://payments.eu-1/a/b_c=1.2/", bucket("payments.eu-1", "a/b_c=1.2")),
            ("s3://", None),
            ("s3:///a", None),
            ("s3://pa", None),
            ("s3://Payments", None),
            ("s3://-payments", None),
            ("s3://pay..ments", None),
            ("s3://payments//a", None),
            ("s3://payments/a//", None),
            ("s3://payments/../a", None),
            ("s3://payments/a b", None),
            ("s3://payments/a?b=c", None),
            ("s3://key:secret@payments/a", None),
            ("S3://payments", None),
            ("gs://payments", None),
            ("https://payments.s3.amazonaws.com", None),
        ];
        for (url, expected) in rows {
            assert_eq!(Rest::parse(url), expected, "{url}");
        }
        assert_eq!(Rest::parse(&format!("s3://{}", "a".repeat(64))), None);
    }

    #[test]
    fn an_endpoint_is_a_server() {
        for url in
            ["https://s3.internal", "http://127.0.0.1:9000", "http://[::1]:9000", "http://[::1]", "https://x.y/storage/v1/s3"]
        {
            assert!(is_endpoint(url), "{url}");
        }
        let refused = [
            "",
            "s3.internal:9000",
            "https://",
            "https://a:b@c",
            "https://a:0",
            "https://a:x",
            "https://a?b",
            "ftp://a",
            "http://a b",
        ];
        for url in refused {
            assert!(!is_endpoint(url), "{url}");
        }
    }
}
