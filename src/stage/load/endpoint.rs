//! Where requests go: a base URL as an address and the lines of a request's head that are always the same. Unaware of bodies.

use reqwest::Url;

use super::network::{Network, Route};
use super::params::Api;

/// One server.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// As given.
    pub(super) name: String,
    pub(super) route: Route,
    /// The head up to the fields that each request has of its own.
    pub(super) head: Vec<u8>,
}

impl Endpoint {
    /// Resolves a base URL (`http://host:port` or `https://`, with or without `/v1`). `Err` says what is wrong, and what to do.
    pub(super) fn new(
        name: &str,
        api: Api,
        headers: &[(String, String)],
        network: &Network,
    ) -> Result<Self, (String, &'static str)> {
        let url = url(name)?;
        let host = url.host_str().unwrap_or_default();
        let route = network.route(name, &url)?;
        let base = url.path().trim_end_matches('/');
        let base = if base.is_empty() { "/v1" } else { base };
        let at = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        // a proxy that passes requests on has to know to whom
        let to = route.forwarded.as_ref().map_or(String::new(), |_| format!("http://{at}"));
        let mut head = format!(
            "POST {to}{base}{} HTTP/1.1\r\nHost: {at}\r\nUser-Agent: flow/{}\r\nContent-Type: application/json\r\nAccept: text/event-stream, application/json\r\n",
            api.path(),
            env!("CARGO_PKG_VERSION")
        );
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += route.forwarded.as_deref().unwrap_or_default();
        Ok(Self { name: name.to_owned(), route, head: head.into_bytes() })
    }
}

/// A base URL that can be used.
pub(super) fn url(text: &str) -> Result<Url, (String, &'static str)> {
    let parsed =
        Url::parse(text).map_err(|e| (format!("{text:?} is not a URL: {e}"), "expected http://HOST:PORT"))?;
    // the message must not tell what is secret
    if !parsed.username().is_empty() || parsed.password().is_some() {
        let host = parsed.host_str().unwrap_or_default();
        return Err((
            format!("the URL of {host} has a user or a password, which would stand in every table"),
            "send them as headers: {\"Authorization\": {\"secret\": \"NAME\"}}",
        ));
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err((format!("{text}: a base URL has no '?' and no '#'"), "expected http://HOST:PORT/PATH"));
    }
    match parsed.scheme() {
        "http" | "https" if parsed.host_str().is_some() => Ok(parsed),
        _ => Err((format!("{text:?} is no http URL"), "expected http://HOST:PORT")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls() {
        let head = |text: &str| {
            let endpoint =
                Endpoint::new(text, Api::Chat, &[("X-A".into(), "b".into())], &Network::direct()).unwrap();
            (endpoint.route.addresses[0].port(), String::from_utf8(endpoint.head).unwrap())
        };
        let (port, text) = head("http://127.0.0.1:8001");
        assert_eq!(port, 8001);
        assert!(
            text.starts_with("POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:8001\r\n")
                && text.ends_with("X-A: b\r\n"),
            "{text}"
        );
        assert!(
            head("http://[::1]/v1/").1.starts_with("POST /v1/chat/completions HTTP/1.1\r\nHost: [::1]\r\n")
        );
        assert!(head("http://localhost/openai").1.starts_with("POST /openai/chat/completions"));
        let (message, _) = url("http://me:hidden@127.0.0.1:1/v1").unwrap_err();
        assert!(message.contains("127.0.0.1") && !message.contains("hidden"), "{message}");
        for bad in
            ["http://127.0.0.1/v1?key=1", "http://127.0.0.1/#x", "", "ftp://x", "http://", "127.0.0.1:80"]
        {
            assert!(Endpoint::new(bad, Api::Chat, &[], &Network::direct()).is_err(), "{bad}");
        }
    }
}
