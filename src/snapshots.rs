//! Where snapshots rest, by the configuration and, for who asks an object store, the environment.

use finflow_actors::{BucketSettings, Credentials, SnapshotPlace};
use finflow_config::{Config, Rest};

use crate::failure::Failure;

/// The place that the configuration names. A bucket needs somebody who asks there: the key of the configuration, else whom the
/// variables of the environment name; he is never looked for on the network.
pub(crate) fn place(config: &Config) -> Result<SnapshotPlace, Failure> {
    let set = &config.snapshots;
    let (name, prefix) = match set.rest() {
        Rest::BesideData => return Ok(SnapshotPlace::BesideData),
        Rest::Directory(dir) if set.shared => return Ok(SnapshotPlace::Shared(dir)),
        Rest::Directory(dir) => return Ok(SnapshotPlace::Directory(dir)),
        Rest::Bucket { name, prefix } => (name, prefix),
    };
    let credentials = match set.access_key_id.is_empty() {
        false => Some(Credentials::key(&set.access_key_id, &set.secret_access_key)),
        true => Credentials::of_environment(|name| std::env::var(name).ok()),
    };
    let endpoint = Some(set.endpoint.clone()).filter(|url| !url.is_empty());
    match credentials {
        Some(credentials) => {
            Ok(SnapshotPlace::Bucket(BucketSettings { name, prefix, region: set.region.clone(), endpoint, credentials }))
        }
        None => Err(Failure::Configuration(
            "snapshots.url is a bucket, and nobody asks there: set snapshots.access_key_id and snapshots.secret_access_key, or \
             AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                .to_owned(),
        )),
    }
}
