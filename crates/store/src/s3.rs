//! S3, and what speaks like it.
//!
//! Requests are tasks of a runtime with one thread, which belongs to the bucket as a disk's thread belongs to a
//! journal; those who ask block until theirs is answered. Objects go and come in pieces of [`PIECE`] bytes, a few at
//! once, so that no request takes long and memory is bounded.

mod connector;
mod credentials;

use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::try_join_all;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path as Key;
use object_store::{
    ClientOptions, Error, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    RetryConfig,
};
use tokio::runtime::Runtime;
use tokio_util::task::TaskTracker;

use self::connector::Connector;
use self::credentials::CredentialsFile;
use crate::StoreError;
use crate::objects::{Bucket, BucketOptions, Created, Listed, Objects, Refusal, RefusalKind};

/// Bytes of one request.
const PIECE: u64 = 8 << 20;

/// Pieces under way at once.
const AT_ONCE: usize = 4;

/// A request is tried again within this time; who waits has a store that waits and tries again for ever.
const RETRY_TIME: Duration = Duration::from_secs(15);
const RETRIES: usize = 2;

/// Whatever is asked for, a single answer takes no longer than this, all tries together.
const ANSWER_TIME: Duration = Duration::from_secs(180);

/// What the environment may say about credentials and the place, as AWS names it.
const VARIABLES: &[(&str, AmazonS3ConfigKey)] = &[
    ("AWS_ACCESS_KEY_ID", AmazonS3ConfigKey::AccessKeyId),
    ("AWS_SECRET_ACCESS_KEY", AmazonS3ConfigKey::SecretAccessKey),
    ("AWS_SESSION_TOKEN", AmazonS3ConfigKey::Token),
    (
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        AmazonS3ConfigKey::WebIdentityTokenFile,
    ),
    ("AWS_ROLE_ARN", AmazonS3ConfigKey::RoleArn),
    ("AWS_ROLE_SESSION_NAME", AmazonS3ConfigKey::RoleSessionName),
    ("AWS_ENDPOINT_URL_STS", AmazonS3ConfigKey::StsEndpoint),
    (
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        AmazonS3ConfigKey::ContainerCredentialsRelativeUri,
    ),
    (
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        AmazonS3ConfigKey::ContainerCredentialsFullUri,
    ),
    (
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        AmazonS3ConfigKey::ContainerAuthorizationTokenFile,
    ),
];

/// A bucket and the thread that speaks to it.
struct S3 {
    store: Arc<AmazonS3>,
    prefix: String,
    tasks: TaskTracker,
    /// `None` only while this is dropped.
    runtime: Option<Runtime>,
}

impl Drop for S3 {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Nobody waits for an answer any more, and who drops this may not block.
            runtime.shutdown_background();
        }
    }
}

impl Bucket {
    /// A bucket of S3. `environment` gives the variables that AWS's own tools read: credentials, and where the options
    /// say nothing, `AWS_REGION`, `AWS_DEFAULT_REGION`, `AWS_ENDPOINT_URL_S3` and `AWS_ENDPOINT_URL`. Nothing is
    /// connected yet.
    ///
    /// # Errors
    ///
    /// [`StoreError::Settings`] with what is wrong in the options; [`StoreError::Io`] for the file of authorities.
    pub fn s3(
        mut options: BucketOptions,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, StoreError> {
        let first = |names: &[&str]| names.iter().find_map(|name| environment(name));
        if options.endpoint.is_none() {
            options.endpoint = first(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]);
        }
        if options.region.is_none() {
            options.region = first(&["AWS_REGION", "AWS_DEFAULT_REGION"]);
        }
        let retry = RetryConfig {
            max_retries: RETRIES,
            retry_timeout: RETRY_TIME,
            ..RetryConfig::default()
        };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&options.bucket)
            .with_retry(retry)
            .with_client_options(ClientOptions::new().with_allow_http(options.allow_http))
            .with_http_connector(Connector::new(options.ca_file.as_deref())?);
        if let Some(region) = &options.region {
            builder = builder.with_region(region);
        }
        builder = place(builder, &options)?;
        builder = match &options.credentials_file {
            Some(file) => {
                let profile = options.profile.as_deref().unwrap_or("default");
                let provider = CredentialsFile::new(file.clone(), profile.to_owned());
                // A mistake in the file is told at the start.
                provider.read().map_err(StoreError::Settings)?;
                builder.with_credentials(Arc::new(provider))
            }
            None => VARIABLES
                .iter()
                .fold(builder, |builder, (name, key)| match environment(name) {
                    Some(value) if !value.is_empty() => builder.with_config(*key, value),
                    _ => builder,
                }),
        };
        let store = builder
            .build()
            .map_err(|error| StoreError::Settings(error.to_string()))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("store-s3")
            .enable_all()
            .build()
            .map_err(|source| StoreError::Io {
                path: "store-s3".into(),
                source,
            })?;
        let objects = S3 {
            store: Arc::new(store),
            prefix: options.prefix.clone(),
            tasks: TaskTracker::new(),
            runtime: Some(runtime),
        };
        Ok(Self {
            objects: Arc::new(objects),
            options,
        })
    }
}

/// The host that the bucket is asked at.
fn place(builder: AmazonS3Builder, options: &BucketOptions) -> Result<AmazonS3Builder, StoreError> {
    let path_style = options.path_style.unwrap_or(options.endpoint.is_some());
    let builder = builder.with_virtual_hosted_style_request(!path_style);
    let Some(endpoint) = &options.endpoint else {
        return Ok(builder);
    };
    let endpoint = endpoint.trim_end_matches('/');
    let wrong = |reason: &str| {
        Err(StoreError::Settings(format!(
            "the endpoint `{endpoint}` {reason}"
        )))
    };
    match endpoint.split_once("://") {
        Some(("https", _)) => {}
        Some(("http", _)) if options.allow_http => {}
        Some(("http", _)) => return wrong("has no TLS: write https://, or allow it with allowHttp"),
        _ => return wrong("has no scheme: write https://HOST[:PORT]"),
    }
    Ok(builder.with_endpoint(match endpoint.split_once("://") {
        Some((scheme, host)) if !path_style => format!("{scheme}://{}.{host}", options.bucket),
        _ => endpoint.to_owned(),
    }))
}

impl S3 {
    fn key(&self, key: &str) -> Result<Key, Refusal> {
        let whole = if self.prefix.is_empty() {
            key.to_owned()
        } else {
            format!("{}/{key}", self.prefix)
        };
        Key::parse(whole.trim_end_matches('/')).map_err(|error| Refusal::new(RefusalKind::Failed, error))
    }

    /// Runs a request and waits for its answer. Not a future: who asks may be a thread without a runtime.
    fn ask<T: Send + 'static>(
        &self,
        request: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Refusal> {
        let Some(runtime) = &self.runtime else {
            return Err(Refusal::new(RefusalKind::Failed, "the bucket is closed"));
        };
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        self.tasks.spawn_on(
            async move {
                let outcome = tokio::time::timeout(ANSWER_TIME, request).await;
                // Who asked waits as long as this lives.
                answer.send(outcome).ok();
            },
            runtime.handle(),
        );
        match answered.recv() {
            Ok(Ok(outcome)) => outcome.map_err(refusal),
            Ok(Err(_)) => Err(Refusal::new(
                RefusalKind::Failed,
                format!("no answer came in {} s", ANSWER_TIME.as_secs()),
            )),
            Err(_) => Err(Refusal::new(RefusalKind::Failed, "the request was given up")),
        }
    }

    /// A large file, in pieces that become one object at the end.
    fn upload_in_pieces(&self, key: &Key, file: &File, bytes: u64) -> Result<(), Refusal> {
        let (store, place) = (Arc::clone(&self.store), key.clone());
        let mut upload = self.ask(async move { store.put_multipart(&place).await })?;
        match self.send_pieces(upload.as_mut(), file, bytes) {
            Ok(()) => self.ask(async move { upload.complete().await.map(drop) }),
            Err(error) => {
                // What stays is no object; the bucket's rules for unfinished uploads remove it.
                self.ask(async move { upload.abort().await }).ok();
                Err(error)
            }
        }
    }

    fn send_pieces(&self, upload: &mut dyn MultipartUpload, file: &File, bytes: u64) -> Result<(), Refusal> {
        let mut starts = (0..bytes)
            .step_by(usize::try_from(PIECE).unwrap_or(usize::MAX))
            .peekable();
        while starts.peek().is_some() {
            let mut sending = Vec::new();
            for start in starts.by_ref().take(AT_ONCE) {
                let piece = piece_of(file, start, PIECE.min(bytes - start))?;
                sending.push(upload.put_part(PutPayload::from(piece)));
            }
            self.ask(async move { try_join_all(sending).await.map(drop) })?;
        }
        Ok(())
    }
}

fn piece_of(file: &File, start: u64, bytes: u64) -> Result<Vec<u8>, Refusal> {
    let mut piece = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut piece, start)
        .map_err(|error| Refusal::new(RefusalKind::Failed, error))?;
    Ok(piece)
}

/// What an error of the library means here.
fn refusal(error: Error) -> Refusal {
    let kind = match &error {
        Error::NotFound { .. } => RefusalKind::Missing,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => RefusalKind::Denied,
        _ => RefusalKind::Failed,
    };
    Refusal::new(kind, error)
}

impl Objects for S3 {
    fn list(&self, below: &str, after: Option<&str>) -> Result<Vec<Listed>, Refusal> {
        let folder = self.key(below)?;
        let after = after.map(|after| self.key(after)).transpose()?;
        let store = Arc::clone(&self.store);
        let found = self.ask(async move {
            let folder = (!folder.as_ref().is_empty()).then_some(&folder);
            let mut found = match &after {
                Some(after) => store.list_with_offset(folder, after),
                None => store.list(folder),
            };
            let mut listed = Vec::new();
            while let Some(object) = found.next().await {
                let object = object?;
                listed.push((object.location.to_string(), object.size));
            }
            Ok(listed)
        })?;
        let head = if self.prefix.is_empty() {
            String::new()
        } else {
            format!("{}/", self.prefix)
        };
        let mut listed: Vec<Listed> = found
            .into_iter()
            .filter_map(|(key, bytes)| {
                let key = key.strip_prefix(&head)?.to_owned();
                Some(Listed { key, bytes })
            })
            .collect();
        listed.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(listed)
    }

    fn read(
        &self,
        key: &str,
        bytes: u64,
        into: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), Refusal> {
        let key = self.key(key)?;
        let mut starts = (0..bytes)
            .step_by(usize::try_from(PIECE).unwrap_or(usize::MAX))
            .peekable();
        while starts.peek().is_some() {
            let requests: Vec<_> = starts
                .by_ref()
                .take(AT_ONCE)
                .map(|start| {
                    let (store, key) = (Arc::clone(&self.store), key.clone());
                    async move { store.get_range(&key, start..(start + PIECE).min(bytes)).await }
                })
                .collect();
            for piece in self.ask(try_join_all(requests))? {
                into(&piece).map_err(|error| Refusal::new(RefusalKind::Failed, error))?;
            }
        }
        Ok(())
    }

    fn create(&self, key: &str, content: &[u8]) -> Result<Created, Refusal> {
        let (store, key) = (Arc::clone(&self.store), self.key(key)?);
        let content = PutPayload::from(content.to_vec());
        let created = self.ask(async move {
            let options = PutOptions::from(PutMode::Create);
            match store.put_opts(&key, content, options).await {
                Ok(_) => Ok(Created::Now),
                Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Created::Taken),
                Err(error) => Err(error),
            }
        })?;
        Ok(created)
    }

    fn upload(&self, key: &str, file: &File, bytes: u64) -> Result<(), Refusal> {
        let key = self.key(key)?;
        if bytes > PIECE {
            return self.upload_in_pieces(&key, file, bytes);
        }
        let content = PutPayload::from(piece_of(file, 0, bytes)?);
        let store = Arc::clone(&self.store);
        self.ask(async move { store.put(&key, content).await.map(drop) })
    }

    fn remove(&self, keys: &[String]) -> Result<(), Refusal> {
        let keys: Vec<Key> = keys.iter().map(|key| self.key(key)).collect::<Result<_, _>>()?;
        for some in keys.chunks(AT_ONCE) {
            let requests: Vec<_> = some
                .iter()
                .map(|key| {
                    let (store, key) = (Arc::clone(&self.store), key.clone());
                    async move {
                        match store.delete(&key).await {
                            Err(Error::NotFound { .. }) => Ok(()),
                            removed => removed,
                        }
                    }
                })
                .collect();
            self.ask(try_join_all(requests))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Answers one request after the other, and gives their heads.
    fn server(answers: &'static [&'static str]) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let serving = std::thread::spawn(move || {
            let serve = |answer: &&str| {
                let stream = listener.accept().unwrap().0;
                let head = head_of(&stream);
                (&stream).write_all(answer.as_bytes()).unwrap();
                head
            };
            answers.iter().map(serve).collect()
        });
        (endpoint, serving)
    }

    /// The head of a request, whose body is read as well.
    fn head_of(stream: &TcpStream) -> String {
        let mut reader = BufReader::new(stream);
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if line == "\r\n" {
                break;
            }
            let line = line.to_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            head += &line;
        }
        reader.read_exact(&mut vec![0; length]).unwrap();
        head
    }

    fn bucket(endpoint: &str) -> Bucket {
        let mut options = BucketOptions::new("audit".to_owned(), "eu".to_owned());
        options.endpoint = Some(endpoint.to_owned());
        options.allow_http = true;
        Bucket::s3(options, |name| {
            let value = match name {
                "AWS_ACCESS_KEY_ID" => "id",
                "AWS_SECRET_ACCESS_KEY" => "secret",
                "AWS_REGION" => "eu-central-1",
                _ => return None,
            };
            Some(value.to_owned())
        })
        .unwrap()
    }

    fn kind<T: std::fmt::Debug>(answer: Result<T, Refusal>) -> RefusalKind {
        answer.unwrap_err().kind
    }

    #[test]
    fn requests_are_signed_and_conditional_and_answers_are_told_apart() {
        let (endpoint, serving) = server(&[
            "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 206 Partial Content\r\nETag: \"1\"\r\nLast-Modified: Sun, 22 Nov 2026 12:00:00 GMT\r\n\
             Content-Range: bytes 0-4/5\r\nContent-Length: 5\r\nConnection: close\r\n\r\nabcde",
        ]);
        let bucket = bucket(&endpoint);
        let objects = &bucket.objects;
        assert_eq!(objects.create("manifest/1.json", b"{}").unwrap(), Created::Now);
        assert_eq!(objects.create("manifest/1.json", b"{}").unwrap(), Created::Taken);
        assert_eq!(
            kind(objects.create("manifest/2.json", b"{}")),
            RefusalKind::Denied
        );
        let mut content = Vec::new();
        let mut into = |piece: &[u8]| {
            content.extend_from_slice(piece);
            Ok(())
        };
        assert_eq!(kind(objects.read("gone", 5, &mut into)), RefusalKind::Missing);
        objects.read("cluster=a%2Fb/part", 5, &mut into).unwrap();
        assert_eq!(content, b"abcde");
        let heads = serving.join().unwrap();
        assert!(
            heads[0].starts_with("put /audit/eu/manifest/1.json "),
            "{}",
            heads[0]
        );
        assert!(heads[0].contains("if-none-match: *\r\n"), "{}", heads[0]);
        assert!(
            heads[0].contains("credential=id/") && heads[0].contains("/eu-central-1/s3/"),
            "{}",
            heads[0]
        );
        assert!(
            heads[4].starts_with("get /audit/eu/cluster%3da%252fb/part ")
                && heads[4].contains("range: bytes=0-4\r\n"),
            "{}",
            heads[4]
        );
        assert!(heads.iter().all(|head| !head.contains("secret")));
    }

    #[test]
    fn a_server_that_is_not_there_is_told_of() {
        // Nobody listens there any more.
        let endpoint = format!(
            "http://{}",
            TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
        );
        let refused = bucket(&endpoint).objects.list("", None).unwrap_err();
        assert_eq!(refused.kind, RefusalKind::Failed);
        let error = refused.at("list", "s3://audit/eu", "").to_string();
        assert!(
            error.starts_with("cannot list s3://audit/eu/") && error.contains("cannot connect"),
            "{error}"
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let open = |endpoint: &str, allow_http| {
            let mut options = BucketOptions::new("audit".to_owned(), String::new());
            options.endpoint = Some(endpoint.to_owned());
            options.allow_http = allow_http;
            Bucket::s3(options, |_| None)
                .map(drop)
                .map_err(|error| error.to_string())
        };
        assert!(
            open("http://127.0.0.1:1", false)
                .unwrap_err()
                .contains("has no TLS")
        );
        assert!(open("minio:9000", false).unwrap_err().contains("has no scheme"));
        open("http://127.0.0.1:1", true).unwrap();
    }
}
