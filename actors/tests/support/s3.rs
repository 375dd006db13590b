//! A server that speaks S3, in this process and on the loopback address: it checks signatures, and keeps objects as files in a
//! directory of its own. It can be told to refuse requests, or to leave them without an answer.

#![allow(dead_code, reason = "each test binary uses its part of it")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Router, serve};
use finflow_actors::{BucketSettings, Credentials};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

const KEY: &str = "AKIAFINFLOW";
/// It must not be told by anybody.
pub(crate) const SECRET: &str = "CANARY-of-the-bucket";

/// The server; it ends with its value.
pub(crate) struct Server {
    address: SocketAddr,
    root: tempfile::TempDir,
    refused: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
    runtime: Option<Runtime>,
}

impl Server {
    pub(crate) fn start() -> Server {
        let root = tempfile::tempdir().expect("a directory");
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let (refused, asked) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root.path()).expect("a directory"));
        service.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let (service, left, count) = (service.build(), refused.clone(), asked.clone());
        let answer = move |request: Request| {
            count.fetch_add(1, Ordering::Relaxed);
            let is_refused = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
            answer(service.clone(), request, is_refused)
        };
        let (tell, told) = mpsc::channel();
        runtime.spawn(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            tell.send(listener.local_addr().expect("an address")).expect("who asked");
            serve(listener, Router::new().fallback(answer)).await
        });
        let address = told.recv().expect("an address");
        Server { address, root, refused, asked, runtime: Some(runtime) }
    }

    /// A bucket that is made now, and where its objects lie as files.
    pub(crate) fn bucket(&self, name: &str) -> (BucketSettings, PathBuf) {
        let root = self.root.path().join(name);
        std::fs::create_dir_all(&root).expect("a directory");
        (self.settings(name, SECRET), root.join("pre/fix"))
    }

    pub(crate) fn settings(&self, name: &str, secret: &str) -> BucketSettings {
        BucketSettings {
            name: name.to_owned(),
            prefix: "pre/fix".to_owned(),
            region: "us-east-1".to_owned(),
            endpoint: Some(format!("http://{}", self.address)),
            credentials: Credentials::key(KEY, secret),
        }
    }

    /// Answers the next requests with 503, as S3 does where it is asked too often.
    pub(crate) fn refuse(&self, requests: usize) {
        self.refused.store(requests, Ordering::Relaxed);
    }

    /// Requests that have come.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Goes away; what it keeps stays.
    pub(crate) fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn answer(service: S3Service, request: Request, is_refused: bool) -> Result<Response, Infallible> {
    if is_refused {
        return Ok(StatusCode::SERVICE_UNAVAILABLE.into_response());
    }
    Ok(match service.call(request.map(s3s::Body::http_body_unsync)).await {
        Ok(response) => response.map(Body::new),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:?}")).into_response(),
    })
}
