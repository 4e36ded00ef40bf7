//! How requests get to the bucket: over the connections of crate `dial`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, Request, Uri};
use http_body_util::BodyExt;
use kaudit_dial::{Client, ClientError, Cluster, Pem, Server, Trust};
use object_store::ClientOptions;
use object_store::client::{
    ClientConfigKey, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};

use crate::StoreError;
use crate::error::At;

/// One try of a small request, from the connection to the last byte of the answer.
const TRY_TIME: Duration = Duration::from_secs(15);

/// One try of a request that takes or brings a piece of an object.
const PIECE_TIME: Duration = Duration::from_secs(60);

/// A request with more than this takes a piece.
const SMALL_BYTES: usize = 256 << 10;

/// An answer is a piece of an object or a page of a list.
const MAX_ANSWER: usize = 32 << 20;

/// Authorities take no more.
const MAX_CA_BYTES: u64 = 4 << 20;

/// Makes clients that use crate `dial`.
#[derive(Debug)]
pub(super) struct Connector {
    trust: Trust,
}

impl Connector {
    /// Believes the authorities in `ca_file`, or the public ones.
    pub(super) fn new(ca_file: Option<&Path>) -> Result<Self, StoreError> {
        let trust = match ca_file {
            None => Trust::Public,
            Some(path) => {
                let size = std::fs::metadata(path).at(path)?.len();
                if size > MAX_CA_BYTES {
                    return Err(StoreError::Settings(format!(
                        "`{}` has {size} bytes: it holds no certificates",
                        path.display()
                    )));
                }
                Trust::Authorities(Pem::Inline(std::fs::read(path).at(path)?))
            }
        };
        Ok(Self { trust })
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let allows_http = options
            .get_config_value(&ClientConfigKey::AllowHttp)
            .is_some_and(|value| value == "true");
        Ok(HttpClient::new(Service {
            trust: self.trust.clone(),
            allows_http,
            clients: Mutex::default(),
        }))
    }
}

/// The servers that were spoken to: the bucket's, and that of the credentials.
#[derive(Debug)]
struct Service {
    trust: Trust,
    allows_http: bool,
    clients: Mutex<HashMap<String, Client>>,
}

/// Why a request was not sent.
#[derive(Debug, thiserror::Error)]
enum Unsent {
    #[error("`{0}` cannot be connected to: {1}")]
    Server(String, String),
    #[error("`{0}` has no TLS")]
    NoTls(String),
    #[error("no answer came in {} s", .0.as_secs())]
    Late(Duration),
    #[error("the answer has more than {MAX_ANSWER} bytes")]
    TooLarge,
}

impl Service {
    fn client(&self, uri: &Uri) -> Result<Client, Unsent> {
        let (scheme, authority) = (uri.scheme_str().unwrap_or_default(), uri.authority());
        let name = format!(
            "{scheme}://{}",
            authority.map_or("", |authority| authority.as_str())
        );
        if scheme != "https" && !self.allows_http {
            return Err(Unsent::NoTls(name));
        }
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&name) {
            return Ok(client.clone());
        }
        let server: Server = name
            .parse()
            .map_err(|reason: String| Unsent::Server(name.clone(), reason))?;
        // Addresses of metadata services speak plain HTTP, whatever the bucket's server does.
        let client = Client::new(&Cluster::new(server, self.trust.clone()))
            .map_err(|error| Unsent::Server(name.clone(), error.to_string()))?;
        clients.insert(name, client.clone());
        Ok(client)
    }
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let client = self
            .client(request.uri())
            .map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        // dial names the host itself.
        let headers: HeaderMap = parts
            .headers
            .into_iter()
            .filter_map(|(name, value)| Some((name?, value)))
            .filter(|(name, _)| name != http::header::HOST)
            .collect();
        let prepare = |_| {
            let mut request = Request::new(body.clone());
            *request.method_mut() = parts.method.clone();
            *request.uri_mut() = parts.uri.clone();
            *request.headers_mut() = headers.clone();
            request
        };
        let is_small = body.len() <= SMALL_BYTES && !headers.contains_key(http::header::RANGE);
        let time = if is_small { TRY_TIME } else { PIECE_TIME };
        let exchange = Box::pin(client.exchange(MAX_ANSWER, prepare));
        let answer = match tokio::time::timeout(time, exchange).await {
            Err(_) => return Err(HttpError::new(HttpErrorKind::Timeout, Unsent::Late(time))),
            Ok(Err(error)) => return Err(HttpError::new(kind(&error), error)),
            Ok(Ok(answer)) => answer,
        };
        if answer.is_cut {
            return Err(HttpError::new(HttpErrorKind::Decode, Unsent::TooLarge));
        }
        let mut response = HttpResponse::new(HttpResponseBody::from(answer.body));
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        Ok(response)
    }
}

/// Whether it is worth another try, as the library sees it.
const fn kind(error: &ClientError) -> HttpErrorKind {
    match error {
        ClientError::Connect(_) => HttpErrorKind::Connect,
        ClientError::Broken(_) | ClientError::Cut(_) => HttpErrorKind::Interrupted,
        _ => HttpErrorKind::Unknown,
    }
}
