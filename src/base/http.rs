//! HTTP for everything that fetches: shared clients, URLs that are safe to show, causes in words. Unaware of stages and retries.

use std::collections::HashMap;
use std::error::Error as _;
use std::net::IpAddr;
use std::sync::{LazyLock, Mutex, Once, PoisonError};
use std::time::Duration;

use reqwest::{Client, Url, redirect};

/// What flow calls itself.
pub const USER_AGENT: &str = concat!("flow/", env!("CARGO_PKG_VERSION"));

/// What decides which client serves a URL.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Kind {
    connect: Duration,
    tls: bool,
    loopback: bool,
}

static CLIENTS: LazyLock<Mutex<HashMap<Kind, Client>>> = LazyLock::new(Default::default);
static PROVIDER: Once = Once::new();

/// The process-wide client for `url`, with its connection pool; `connect` is the time a connection may take.
/// It follows no redirects, and asks no proxy for an address of this machine.
pub fn client(url: &Url, connect: Duration) -> Result<Client, String> {
    PROVIDER.call_once(|| {
        // an error means that the embedding program has chosen a provider already
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    let kind = Kind { connect, tls: url.scheme() == "https", loopback: is_loopback(url) };
    let mut clients = CLIENTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(client) = clients.get(&kind) {
        return Ok(client.clone());
    }
    let mut builder = Client::builder()
        .redirect(redirect::Policy::none())
        .connect_timeout(connect)
        .pool_idle_timeout(Duration::from_secs(20));
    if kind.loopback {
        builder = builder.no_proxy();
    }
    if !kind.tls {
        // a machine without root certificates can still speak plain HTTP
        builder = builder.tls_certs_only([]);
    }
    let client = builder.build().map_err(cause)?;
    clients.insert(kind, client.clone());
    Ok(client)
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or("").trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// `url` for messages, logs and records: user info and the values of query parameters that look secret are `***`, the fragment is left out.
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_fragment(None);
    if !url.username().is_empty() || url.password().is_some() {
        let _ = url.set_password(None);
        let _ = url.set_username("***");
    }
    if let Some(query) = url.query() {
        let masked: Vec<String> = query
            .split('&')
            .map(|pair| match pair.split_once('=') {
                Some((name, _)) if looks_secret(name) => format!("{name}=***"),
                _ => pair.to_owned(),
            })
            .collect();
        url.set_query(Some(&masked.join("&")));
    }
    url.into()
}

/// True for the name of a query parameter that by custom carries a credential.
fn looks_secret(name: &str) -> bool {
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
    ["token", "secret", "password", "passwd", "signature", "credential"]
        .iter()
        .any(|part| name.contains(part))
        || ["auth", "sig", "pwd", "pass"].contains(&name.as_str())
        || name.ends_with("key")
}

/// What went wrong, innermost causes included, without the URL (which may hold a credential).
pub fn cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(text: &str) -> String {
        shown(&Url::parse(text).unwrap())
    }

    #[test]
    fn a_shown_url_keeps_no_credential() {
        assert_eq!(masked("http://me:pw@h.example/a?x=1#frag"), "http://***@h.example/a?x=1");
        assert_eq!(
            masked("https://h.example/a?page=2&api_key=abc&X-Amz-Signature=ff&access_token=t"),
            "https://h.example/a?page=2&api_key=***&X-Amz-Signature=***&access_token=***"
        );
        assert_eq!(masked("http://127.0.0.1:80/a%20b?keyword=x"), "http://127.0.0.1/a%20b?keyword=x");
    }

    #[test]
    fn loopback_addresses_are_recognised() {
        for (text, expected) in [
            ("http://127.0.0.1:1/", true),
            ("http://[::1]:1/", true),
            ("http://localhost/", true),
            ("http://h.example/", false),
            ("http://10.0.0.1/", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(text).unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn clients_are_shared_and_plain_http_needs_no_certificates() {
        let url = Url::parse("http://127.0.0.1:1/").unwrap();
        client(&url, Duration::from_secs(3)).unwrap();
        client(&url, Duration::from_secs(3)).unwrap();
        let kind = Kind { connect: Duration::from_secs(3), tls: false, loopback: true };
        assert!(CLIENTS.lock().unwrap().contains_key(&kind));
    }
}
