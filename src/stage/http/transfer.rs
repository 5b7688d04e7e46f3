//! One attempt over the network: request, redirects, body to a file, deadlines, cancellation. Unaware of records and expectations.

use std::fmt::Display;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Response, StatusCode, Url};
use tokio::time::{Instant, timeout, timeout_at};

use super::limit;
use super::params::Params;
use super::policy::{self, Conditions, Verdict};
use crate::api::{CancelToken, StageError};
use crate::base::digest::Digest;
use crate::base::http::{USER_AGENT, cause, client, shown};

const MAX_REDIRECTS: usize = 10;
/// How often the cancel token is looked at.
const CANCEL_TICK: Duration = Duration::from_millis(25);
/// The longest wait for the words of a refusal.
const EXCERPT_WAIT: Duration = Duration::from_secs(2);

/// What one attempt needs.
pub(super) struct Transfer<'a> {
    pub(super) params: &'a Params,
    pub(super) url: &'a Url,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) conditions: &'a Conditions,
    /// Where the body goes.
    pub(super) path: &'a Path,
}

/// How an attempt ended well.
pub(super) enum Answer {
    /// 304.
    NotModified { validators: Validators },
    /// The body is written.
    Body(Body),
}

/// A body in its file, and what came with it.
pub(super) struct Body {
    /// Where it came from, after redirects.
    pub(super) url: Url,
    pub(super) status: u16,
    pub(super) content_type: Option<String>,
    pub(super) validators: Validators,
    /// Size, unpacked.
    pub(super) bytes: u64,
    pub(super) digest: Digest,
}

/// The headers by which a body is validated later.
pub(super) struct Validators {
    pub(super) etag: Option<String>,
    pub(super) last_modified: Option<String>,
    pub(super) date: Option<String>,
}

enum Hop {
    End(Answer),
    To(Url),
}

impl Transfer<'_> {
    /// Makes the attempt; ends early when `cancel` is set.
    pub(super) async fn run(&self, cancel: &CancelToken) -> Result<Answer, StageError> {
        tokio::select! {
            biased;
            () = cancelled(cancel) => Err(StageError::new(format!("GET {}: cancelled", shown(self.url)))),
            answer = self.follow() => answer,
        }
    }

    async fn follow(&self) -> Result<Answer, StageError> {
        let total = self.params.timeouts.total;
        let mut deadline = None;
        let mut url = self.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let _slot = limit::enter(&url, &self.params.per_host).await;
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + total);
            let hop = timeout_at(deadline, self.hop(&url)).await.map_err(|_| {
                StageError::retryable(format!("GET {}: not done after {total:?}", shown(&url)))
                    .hint("raise 'timeouts.total', or look at the network and the server")
            })??;
            match hop {
                Hop::End(answer) => return Ok(answer),
                Hop::To(next) => url = next,
            }
        }
        Err(StageError::new(format!("GET {}: more than {MAX_REDIRECTS} redirects", shown(self.url)))
            .hint("the server redirects in a circle: check the URL"))
    }

    /// One request and its answer.
    async fn hop(&self, url: &Url) -> Result<Hop, StageError> {
        let response = self.send(url).await?;
        let status = response.status();
        let validators = Validators::of(response.headers());
        match policy::judge(status.as_u16(), self.conditions.any()) {
            Verdict::NotModified => Ok(Hop::End(Answer::NotModified { validators })),
            Verdict::Body => {
                self.keep(url, response, validators).await.map(|body| Hop::End(Answer::Body(body)))
            }
            Verdict::Redirect if !self.params.follow_redirects => {
                Err(StageError::new(format!("GET {} answered {status}, a redirect", shown(url)))
                    .hint("set 'follow_redirects', or give the final URL"))
            }
            Verdict::Redirect => {
                policy::redirect(url, text(response.headers(), &header::LOCATION).as_deref())
                    .map(Hop::To)
                    .map_err(|why| StageError::new(format!("GET {} answered {status}: {why}", shown(url))))
            }
            Verdict::Failed { retryable, hint } => Err(refused(url, response, retryable, hint).await),
        }
    }

    async fn send(&self, url: &Url) -> Result<Response, StageError> {
        let client = client(url, self.params.timeouts.connect).map_err(|e| {
            StageError::new(format!("GET {}: failed to set up the HTTP client: {e}", shown(url)))
                .hint("https needs the system's root certificates (package ca-certificates)")
        })?;
        let agent = self.params.user_agent.as_deref().unwrap_or(USER_AGENT);
        let mut request = client.get(url.clone()).header(header::USER_AGENT, agent);
        for (name, value) in &self.headers {
            if policy::may_carry(name.as_str(), self.url, url) {
                request = request.header(name, value);
            }
        }
        if let Some(etag) = &self.conditions.if_none_match {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        if let Some(modified) = &self.conditions.if_modified_since {
            request = request.header(header::IF_MODIFIED_SINCE, modified);
        }
        let idle = self.params.timeouts.idle;
        match timeout(idle, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(broken(url, error, "")),
            Err(_) => Err(silent(url, idle, "no answer")),
        }
    }

    /// Streams the body into its file.
    async fn keep(
        &self,
        url: &Url,
        mut response: Response,
        validators: Validators,
    ) -> Result<Body, StageError> {
        if let Some(encoding) = text(response.headers(), &header::CONTENT_ENCODING)
            && !encoding.eq_ignore_ascii_case("identity")
        {
            return Err(StageError::new(format!(
                "GET {} sent the content encoding '{encoding}', which was not asked for (only gzip was)",
                shown(url)
            ))
            .hint("a fault of the server or of a proxy before it"));
        }
        let status = response.status().as_u16();
        let content_type = text(response.headers(), &header::CONTENT_TYPE);
        let idle = self.params.timeouts.idle;
        let failed = |e| StageError::io("write", self.path, e);
        let mut file = BufWriter::new(File::create(self.path).map_err(failed)?);
        let mut hasher = blake3::Hasher::new();
        let mut bytes = 0;
        loop {
            let chunk = match timeout(idle, response.chunk()).await {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => break,
                Ok(Err(error)) => {
                    let place = format!(" after {bytes} bytes of the body (status {status})");
                    return Err(broken(url, error, &place));
                }
                Err(_) => {
                    let what = format!("nothing more after {bytes} bytes of the body (status {status})");
                    return Err(silent(url, idle, &what));
                }
            };
            hasher.update(&chunk);
            bytes += chunk.len() as u64;
            file.write_all(&chunk).map_err(failed)?;
        }
        file.flush().map_err(failed)?;
        Ok(Body { url: url.clone(), status, content_type, validators, bytes, digest: hasher.into() })
    }
}

impl Validators {
    fn of(headers: &HeaderMap) -> Self {
        Self {
            etag: text(headers, &header::ETAG),
            last_modified: text(headers, &header::LAST_MODIFIED),
            date: text(headers, &header::DATE),
        }
    }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

async fn cancelled(cancel: &CancelToken) {
    while !cancel.is_cancelled() {
        tokio::time::sleep(CANCEL_TICK).await;
    }
}

/// The server answered, but not with the body.
async fn refused(url: &Url, response: Response, retryable: bool, hint: &str) -> StageError {
    let status = response.status();
    let wait = text(response.headers(), &header::RETRY_AFTER);
    let mut message = format!("GET {} answered {}", shown(url), status_text(status));
    if let Some(words) = words(response).await {
        message.push_str(": ");
        message.push_str(&words);
    }
    let mut error = StageError::new(message).hint(hint);
    error.retryable = retryable;
    if retryable {
        error.retry_after = wait.and_then(|wait| policy::retry_after(&wait, jiff::Timestamp::now()));
    }
    error
}

fn status_text(status: StatusCode) -> impl Display {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

/// The beginning of a refusal's body, if it is meant for reading.
async fn words(mut response: Response) -> Option<String> {
    let kind = policy::media_type(&text(response.headers(), &header::CONTENT_TYPE)?);
    if kind != "text/plain" && !kind.ends_with("json") {
        return None;
    }
    let chunk = timeout(EXCERPT_WAIT, response.chunk()).await.ok()?.ok()??;
    Some(policy::excerpt(&chunk)).filter(|words| !words.is_empty())
}

/// The connection or the body broke.
fn broken(url: &Url, error: reqwest::Error, place: &str) -> StageError {
    let final_one = error.is_builder();
    let connect = error.is_connect();
    let why = cause(error);
    let what = if connect { "no connection" } else { "broken" };
    let message = format!("GET {}: {what}{place}: {why}", shown(url));
    if final_one {
        return StageError::new(format!("GET {}: {why}", shown(url)));
    }
    if why.contains("invalid peer certificate") {
        return StageError::new(message)
            .hint("the server's certificate is not accepted: check the host name and the system's root certificates");
    }
    StageError::retryable(message).hint(if connect {
        "is the server up, and is this machine on the network?"
    } else {
        "the connection ended early: try again"
    })
}

/// Nothing came for too long.
fn silent(url: &Url, idle: Duration, what: &str) -> StageError {
    StageError::retryable(format!("GET {}: {what} within {idle:?}", shown(url)))
        .hint("raise 'timeouts.idle', or look at the network and the server")
}
