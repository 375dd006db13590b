//! A bucket: where snapshots rest in an object store that speaks S3.
//!
//! Owns a client and the one thread that drives it. Whoever calls waits on his own thread, which is one for blocking, and no longer
//! than [`ANSWER_MAX`] for any step; a request is tried again a few times before that. Whoever it asks as is given, never looked for
//! on the network, and never told.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, SystemTime};

use bytes::{Buf, Bytes};
use finflow_state::snapshot::{Error, Found, Objects};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path as Key;
use object_store::{
    BackoffConfig, ClientOptions, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, RetryConfig,
};
use tokio::runtime::{Builder, Runtime};

/// How long one step may take, with everything that is tried again: a listing, an object, or a part of one.
const ANSWER_MAX: Duration = Duration::from_secs(150);
/// How long a server may be silent, and a part of an object may travel.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// A request is tried again so often, and not after so long.
const RETRIES_MAX: usize = 4;
const RETRIES_WITHIN: Duration = Duration::from_secs(60);
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// What is larger travels in parts of this size; S3 takes no smaller ones, and 10,000 of them.
const PART_BYTES: usize = 8 << 20;
/// Characters of what a server says that are told.
const CAUSE_CHARS_MAX: usize = 400;

/// Where a bucket is, and who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketSettings {
    /// Its name.
    pub name: String,
    /// What the names of all objects begin with; may be empty, and has no slash at either end.
    pub prefix: String,
    /// Its region.
    pub region: String,
    /// The URL of its server; `None` = Amazon's of that region.
    pub endpoint: Option<String>,
    /// Who asks.
    pub credentials: Credentials,
}

/// Who asks an object store; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials(BTreeMap<&'static str, String>);

impl Credentials {
    /// The forms that the environment may have, each complete: a key, the identity of a web token, that of a container.
    const FORMS: [&'static [&'static str]; 4] = [
        &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"],
        &["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"],
        &["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"],
        &["AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"],
    ];
    /// What may come with one of them.
    const EXTRAS: [&'static str; 2] = ["AWS_SESSION_TOKEN", "AWS_ROLE_SESSION_NAME"];

    /// A key and its secret.
    pub fn key(id: &str, secret: &str) -> Credentials {
        let [names, ..] = Credentials::FORMS;
        Credentials(names.iter().copied().zip([id.to_owned(), secret.to_owned()]).collect())
    }

    /// What the environment says, by the variables that every program for S3 reads; `None` where it says nothing complete.
    pub fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Option<Credentials> {
        let set = |name: &'static str| Some((name, variable(name).filter(|value| !value.is_empty())?));
        let form =
            Credentials::FORMS.iter().find_map(|form| form.iter().map(|name| set(name)).collect::<Option<BTreeMap<_, _>>>())?;
        Some(Credentials(form.into_iter().chain(Credentials::EXTRAS.into_iter().filter_map(set)).collect()))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(hidden)")
    }
}

/// A bucket, as a place for snapshots.
pub struct Bucket {
    place: String,
    prefix: String,
    client: AmazonS3,
    /// `None` once it is dropped.
    runtime: Option<Runtime>,
}

impl Bucket {
    /// A client of the bucket; it is not asked for anything yet.
    ///
    /// # Errors
    /// The settings name no server, or there is no thread to be had.
    pub fn new(settings: &BucketSettings) -> Result<Bucket, Error> {
        let BucketSettings { name, prefix, .. } = settings;
        let place = if prefix.is_empty() { format!("s3://{name}") } else { format!("s3://{name}/{prefix}") };
        let client = client(settings).map_err(|error| Error::Io(place.clone(), told(&error)))?;
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("snapshots").enable_all().build();
        let runtime = runtime.map_err(|error| Error::Io(place.clone(), error.to_string()))?;
        Ok(Bucket { place, prefix: prefix.clone(), client, runtime: Some(runtime) })
    }

    fn key(&self, name: &str) -> Result<Key, Error> {
        let parts = [self.prefix.as_str(), name].into_iter().filter(|part| !part.is_empty());
        Key::parse(parts.collect::<Vec<_>>().join("/")).map_err(|error| self.error(name, &error))
    }

    /// Waits for a step on this thread, without needing to know what else runs on it.
    fn wait<T: Send + 'static>(&self, step: impl Future<Output = T> + Send + 'static) -> Result<T, Error> {
        let Some(runtime) = &self.runtime else { return Err(Error::GivenUp) };
        let (tell, told) = mpsc::sync_channel(1);
        let task = runtime.spawn(async move {
            // Who waits no longer needs no answer.
            let _ = tell.send(step.await);
        });
        told.recv_timeout(ANSWER_MAX).map_err(|cause| {
            task.abort();
            let cause = match cause {
                RecvTimeoutError::Timeout => format!("no answer within {} s", ANSWER_MAX.as_secs()),
                RecvTimeoutError::Disconnected => "the step was given up".to_owned(),
            };
            Error::Io(self.place.clone(), cause)
        })
    }

    /// The same, for a step that the store may refuse.
    fn done<T: Send + 'static>(
        &self,
        name: &str,
        step: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> Result<T, Error> {
        self.wait(step)?.map_err(|error| self.error(name, &error))
    }

    fn error(&self, name: &str, error: &(impl std::error::Error + 'static)) -> Error {
        match (error as &(dyn std::error::Error + 'static)).downcast_ref() {
            Some(object_store::Error::NotFound { .. }) => Error::Missing(name.to_owned()),
            _ => Error::Io(format!("{}/{name}", self.place), told(error)),
        }
    }

    fn put_whole(&self, name: &str, bytes: Vec<u8>) -> Result<(), Error> {
        let (client, key) = (self.client.clone(), self.key(name)?);
        self.done(name, async move { client.put(&key, bytes.into()).await.map(drop) })
    }

    /// What has begun and does not come to its end is aborted: its parts would be kept, and paid for, unseen.
    fn put_in_parts(&self, name: &str, first: Vec<u8>, file: &mut File) -> Result<(), Error> {
        let (client, key) = (self.client.clone(), self.key(name)?);
        let mut upload = self.done(name, async move { client.put_multipart(&key).await })?;
        let sent = self.send_parts(name, upload.as_mut(), first, file);
        let (mut upload, completed) = match sent {
            Ok(()) => self.wait(async move {
                let completed = upload.complete().await;
                (upload, completed)
            })?,
            Err(cause) => {
                let _ = self.wait(async move { upload.abort().await });
                return Err(cause);
            }
        };
        completed.map(drop).map_err(|error| {
            let _ = self.wait(async move { upload.abort().await });
            self.error(name, &error)
        })
    }

    fn send_parts(&self, name: &str, upload: &mut dyn MultipartUpload, first: Vec<u8>, file: &mut File) -> Result<(), Error> {
        let mut part = first;
        while !part.is_empty() {
            self.done(name, upload.put_part(part.into()))?;
            part = read_part(file).map_err(|error| Error::Io(name.to_owned(), error.to_string()))?;
        }
        Ok(())
    }
}

impl Objects for Bucket {
    fn place(&self) -> String {
        self.place.clone()
    }

    fn list(&self, folder: &str) -> Result<Vec<Found>, Error> {
        let (client, key) = (self.client.clone(), self.key(folder)?);
        let prefix = (!key.as_ref().is_empty()).then_some(key);
        let listed = async move { client.list(prefix.as_ref()).try_collect::<Vec<ObjectMeta>>().await };
        let all = self.done(folder, listed)?.into_iter();
        let found = all.filter_map(|object| {
            let name = object.location.as_ref().strip_prefix(self.prefix.as_str())?.trim_start_matches('/').to_owned();
            Some(Found { name, bytes: object.size, put_at: SystemTime::from(object.last_modified) })
        });
        Ok(found.collect())
    }

    fn get(&self, name: &str) -> Result<Box<dyn Read + '_>, Error> {
        let (client, key) = (self.client.clone(), self.key(name)?);
        let stream = self.done(name, async move { client.get(&key).await.map(object_store::GetResult::into_stream) })?;
        Ok(Box::new(Body { bucket: self, name: name.to_owned(), stream: Some(stream), rest: Bytes::new() }))
    }

    fn put(&self, name: &str, from: &Path) -> Result<(), Error> {
        let io_error = |error: io::Error| Error::Io(from.display().to_string(), error.to_string());
        let mut file = File::open(from).map_err(io_error)?;
        let first = read_part(&mut file).map_err(io_error)?;
        if first.len() < PART_BYTES { self.put_whole(name, first) } else { self.put_in_parts(name, first, &mut file) }
    }

    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, Error> {
        let (client, key, bytes) = (self.client.clone(), self.key(name)?, bytes.to_vec());
        let options = PutOptions::from(PutMode::Create);
        let created = self.wait(async move { client.put_opts(&key, bytes.into(), options).await })?;
        match created {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(self.error(name, &error)),
        }
    }

    /// A copy and a removal: in between, both names are there.
    fn rename(&self, name: &str, to: &str) -> Result<(), Error> {
        let (client, from, to) = (self.client.clone(), self.key(name)?, self.key(to)?);
        self.done(name, async move { client.copy(&from, &to).await })?;
        self.delete(name)
    }

    fn delete(&self, name: &str) -> Result<(), Error> {
        let (client, key) = (self.client.clone(), self.key(name)?);
        match self.done(name, async move { client.delete(&key).await }) {
            Err(Error::Missing(_)) => Ok(()),
            other => other,
        }
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bucket").field(&self.place).finish()
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        // Its last owner may be a task, where nothing may be waited for.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// An object on its way.
struct Body<'a> {
    bucket: &'a Bucket,
    name: String,
    /// `None` at its end.
    stream: Option<BoxStream<'static, object_store::Result<Bytes>>>,
    rest: Bytes,
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            let Some(mut stream) = self.stream.take() else { return Ok(0) };
            let next = self.bucket.wait(async move { (stream.next().await, stream) }).map_err(io::Error::other)?;
            let (Some(chunk), stream) = next else { return Ok(0) };
            self.rest = chunk.map_err(|error| io::Error::other(self.bucket.error(&self.name, &error)))?;
            self.stream = Some(stream);
        }
        let count = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

fn client(settings: &BucketSettings) -> object_store::Result<AmazonS3> {
    // The first one in the process counts; they are all the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let options = ClientOptions::new()
        .with_allow_http(settings.endpoint.as_ref().is_some_and(|url| url.starts_with("http://")))
        .with_connect_timeout(CONNECT_MAX)
        .with_read_timeout(SILENCE_MAX)
        .with_timeout_disabled();
    let backoff = BackoffConfig { init_backoff: PAUSE_FIRST, max_backoff: PAUSE_MAX, ..BackoffConfig::default() };
    let retry = RetryConfig { backoff, max_retries: RETRIES_MAX, retry_timeout: RETRIES_WITHIN };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&settings.name)
        .with_region(&settings.region)
        .with_client_options(options)
        .with_retry(retry)
        // One by one every server can do it.
        .with_disable_bulk_delete(true);
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    for (name, value) in &settings.credentials.0 {
        builder = builder.with_config(AmazonS3ConfigKey::from_str(&name.to_ascii_lowercase())?, value);
    }
    builder.build()
}

/// At most a part of a file, from where it is read.
fn read_part(file: &mut File) -> io::Result<Vec<u8>> {
    let mut part = Vec::new();
    file.take(PART_BYTES as u64).read_to_end(&mut part)?;
    Ok(part)
}

/// What went wrong, with its causes, in one line.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |cause| cause.source()) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(CAUSE_CHARS_MAX).collect()
}
