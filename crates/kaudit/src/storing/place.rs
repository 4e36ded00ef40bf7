//! Where a store is: in the data directory, or in a bucket that the configuration or the directory itself names.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use kaudit_store::{Bucket, BucketOptions, Options, Store, StoreError};

use crate::config::store::{S3, Store as Config};
use crate::exit::Failure;

const CACHE_BYTES: u64 = 20 << 30;

/// The store's directory below a data directory.
pub(crate) fn folder(data: &Path) -> PathBuf {
    data.join("store")
}

/// Whether a directory is a store's, or belongs to one in a bucket.
pub(crate) fn is_store(folder: &Path) -> bool {
    folder.join("manifest").is_dir() || matches!(kaudit_store::bucket_of(folder), Ok(Some(_)))
}

/// Opens the store that the configuration asks for, to write to it.
pub(super) fn open(folder: &Path, config: &Config, options: Options) -> Result<Store, Failure> {
    let asked = match &config.location {
        None => Store::open(folder, options),
        Some(_) => Store::open_in(bucket(wanted(config)).map_err(Failure::usage)?, folder, options),
    };
    asked
        .with_context(|| match &config.location {
            None => format!("cannot open the store `{}`", folder.display()),
            Some(location) => format!("cannot open the store `{location}`"),
        })
        .map_err(Failure::unreachable)
}

/// Opens the store of a directory to read what is sealed.
pub(crate) fn open_to_read(folder: &Path) -> Result<Store, StoreError> {
    match kaudit_store::bucket_of(folder)? {
        None => Store::open_to_read(folder, Options::default()),
        Some(options) => Store::open_to_read_in(bucket(options)?, folder, Options::default()),
    }
}

/// Opens the store of a directory to write to it.
pub(crate) fn open_to_write(folder: &Path) -> Result<Store, StoreError> {
    match kaudit_store::bucket_of(folder)? {
        None => Store::open(folder, Options::default()),
        Some(options) => Store::open_in(bucket(options)?, folder, Options::default()),
    }
}

/// The bucket that the configuration asks for.
fn wanted(config: &Config) -> BucketOptions {
    let S3 {
        endpoint,
        region,
        path_style,
        allow_http,
        ca_file,
        credentials_file,
        profile,
        take_over_from,
    } = config.s3.clone();
    let (bucket, prefix) = config
        .location
        .clone()
        .map_or_else(Default::default, |location| (location.bucket, location.prefix));
    let mut options = BucketOptions::new(bucket, prefix);
    options.endpoint = endpoint;
    options.region = region;
    options.path_style = path_style;
    options.allow_http = allow_http;
    options.ca_file = ca_file;
    options.credentials_file = credentials_file;
    options.profile = profile;
    options.take_over_from = take_over_from;
    options.cache_bytes = config.cache_size.map_or(CACHE_BYTES, |size| size.0);
    options
}

/// Whether what the configuration says of a bucket can be meant so.
pub(super) fn check(config: &Config) -> Result<(), Failure> {
    if config.location.is_none() && config.s3 != S3::default() {
        return Err(Failure::usage(anyhow!(
            "store.s3: without `store.location` the files are in the data directory: write `location: s3://BUCKET/PREFIX`"
        )));
    }
    if config.location.is_some() && !cfg!(feature = "s3") {
        return Err(Failure::usage(anyhow!(LACKING)));
    }
    Ok(())
}

const LACKING: &str = "the store is in a bucket, and this kaudit was built without S3: build it with `make build`, or with \
                       `cargo build --release --package kaudit --features s3`";

#[cfg(feature = "s3")]
#[expect(
    clippy::disallowed_methods,
    reason = "these variables are AWS's, and the store names them; none is a setting of kaudit"
)]
fn bucket(options: BucketOptions) -> Result<Bucket, StoreError> {
    Bucket::s3(options, |name| std::env::var(name).ok())
}

#[cfg(not(feature = "s3"))]
fn bucket(_: BucketOptions) -> Result<Bucket, StoreError> {
    Err(StoreError::Settings(LACKING.to_owned()))
}
