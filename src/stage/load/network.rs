//! How servers are reached: directly or by a proxy, in the clear or by TLS. Unaware of what is sent to them.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::Url;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;

use super::params::Params;
use crate::api::{InputFile, StageError};

/// What all endpoints of a load share.
pub(super) struct Network {
    proxies: Option<Matcher>,
    /// The proxy was asked for: it is for addresses of this machine, too.
    named: bool,
    tls: Option<Arc<ClientConfig>>,
}

/// The way to one server.
#[derive(Clone, Debug)]
pub(super) struct Route {
    /// Of the server, or of its proxy; tried in turn: a name may have some at which nobody listens.
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// What a proxy is asked to connect to (`CONNECT`), and its authorization.
    pub(super) tunnel: Option<String>,
    /// What a proxy that passes requests on needs in their heads.
    pub(super) forwarded: Option<String>,
}

impl Route {
    /// As the summary names it.
    pub(super) fn name(&self) -> &'static str {
        match (&self.tls, self.tunnel.is_some() || self.forwarded.is_some()) {
            (None, false) => "http",
            (None, true) => "http by a proxy",
            (Some(_), false) => "https",
            (Some(_), true) => "https by a proxy",
        }
    }
}

/// What is wrong, and what to do.
type Fault = (String, &'static str);

impl Network {
    /// As the parameters say, else as HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY do. `authorities`: files of certificates that stand for the
    /// system's.
    pub(super) fn new(params: &Params, authorities: &[InputFile]) -> Result<Self, StageError> {
        let proxies = match params.proxy.as_deref() {
            Some("none") => None,
            Some(url) => {
                let url = with_user(url, params.proxy_auth.as_deref())
                    .map_err(|(message, hint)| StageError::new(format!("proxy: {message}")).hint(hint))?;
                Some(Matcher::builder().all(url.as_str()).build())
            }
            None => Some(Matcher::from_env()),
        };
        let secure = params.endpoints.urls().iter().any(|url| url.trim_start().starts_with("https:"));
        let tls = secure.then(|| tls(authorities)).transpose()?;
        Ok(Self { proxies, named: params.proxy.is_some(), tls: tls.map(Arc::new) })
    }

    /// No proxy, no TLS.
    #[cfg(test)]
    pub(super) fn direct() -> Self {
        Self { proxies: None, named: false, tls: None }
    }

    /// The way to the server of a URL.
    pub(super) fn route(&self, name: &str, url: &Url) -> Result<Route, Fault> {
        let host = url.host_str().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let port = url.port_or_known_default().unwrap_or(80);
        let tls = match (url.scheme(), &self.tls) {
            ("https", Some(config)) => {
                let server = ServerName::try_from(bare.to_owned())
                    .map_err(|e| (format!("{name}: {host} is no name of a server: {e}"), "check the name"))?;
                Some((Arc::clone(config), server))
            }
            _ => None,
        };
        let here =
            bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let proxies = self.proxies.as_ref().filter(|_| self.named || !here);
        let target: Option<hyper::Uri> = url.as_str().parse().ok();
        let Some(proxy) = proxies.zip(target).and_then(|(proxies, target)| proxies.intercept(&target)) else {
            let addresses = resolved(bare, port).map_err(|e| {
                (format!("{name}: the host is not known: {e}"), "check the name, or give an address")
            })?;
            return Ok(Route { addresses, tls, tunnel: None, forwarded: None });
        };
        // the URL of the proxy may hold a password: its host alone is told
        let uri = proxy.uri();
        let at = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        if uri.scheme_str() != Some("http") {
            return Err((
                format!("{name}: its proxy {at} is no http proxy"),
                "expected http://HOST:PORT, or proxy: none",
            ));
        }
        let addresses = resolved(at, uri.port_u16().unwrap_or(80)).map_err(|e| {
            (
                format!("{name}: its proxy {at} is not known: {e}"),
                "check 'proxy', or HTTP_PROXY, HTTPS_PROXY and NO_PROXY",
            )
        })?;
        let user = proxy.basic_auth().and_then(|value| value.to_str().ok());
        let user = user.map_or(String::new(), |value| format!("Proxy-Authorization: {value}\r\n"));
        let (tunnel, forwarded) = match tls {
            Some(_) => {
                let to = format!("{host}:{port}");
                (Some(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{user}\r\n")), None)
            }
            None => (None, Some(user)),
        };
        Ok(Route { addresses, tls, tunnel, forwarded })
    }
}

fn resolved(host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    match found.is_empty() {
        true => Err(std::io::Error::other("it has no address")),
        false => Ok(found),
    }
}

/// Looks at the URL of a proxy.
pub(super) fn proxy_url(text: &str) -> Result<Url, Fault> {
    let expected = "expected http://HOST:PORT, or none";
    let url = Url::parse(text).map_err(|e| (format!("is no URL: {e}"), expected))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err((
            "has a user or a password".to_owned(),
            "give USER:PASSWORD as a secret in 'proxy_auth'",
        ));
    }
    match url.scheme() {
        "http" if url.host_str().is_some() => Ok(url),
        other => Err((format!("is of scheme {other:?}"), expected)),
    }
}

fn with_user(text: &str, user: Option<&str>) -> Result<Url, Fault> {
    let mut url = proxy_url(text)?;
    if let Some((name, password)) = user.map(|user| user.split_once(':').unwrap_or((user, ""))) {
        let _ = url.set_username(name);
        let _ = url.set_password(Some(password));
    }
    Ok(url)
}

/// HTTP/1.1 alone; servers are believed as the system believes them, or by these authorities alone.
fn tls(authorities: &[InputFile]) -> Result<ClientConfig, StageError> {
    let failed = |e: rustls::Error| StageError::new(format!("TLS cannot be used here: {e}"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?;
    let mut config = if authorities.is_empty() {
        let known = builder.with_platform_verifier().map_err(|e| {
            failed(e).hint("no certificates of authorities were found: give them as input 'authorities', PEM")
        })?;
        known.with_no_client_auth()
    } else {
        builder.with_root_certificates(roots(authorities)?).with_no_client_auth()
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn roots(files: &[InputFile]) -> Result<RootCertStore, StageError> {
    let mut store = RootCertStore::empty();
    for file in files {
        let bytes = file.read()?;
        let fault = |message: String| {
            StageError::new(format!("{}: {message}", file.name))
                .hint("expected certificates of authorities, PEM")
        };
        let before = store.len();
        for found in CertificateDer::pem_slice_iter(&bytes) {
            let found = found.map_err(|e| fault(format!("no PEM: {e}")))?;
            store.add(found).map_err(|e| fault(e.to_string()))?;
        }
        if store.len() == before {
            return Err(fault("no certificate in it".to_owned()));
        }
    }
    Ok(store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_proxies() {
        assert!(proxy_url("http://127.0.0.1:3128").is_ok());
        for bad in ["socks5://h:1", "h:1", "https://h", ""] {
            assert!(proxy_url(bad).is_err(), "{bad}");
        }
        let (message, hint) = proxy_url("http://me:hidden@h:1").unwrap_err();
        assert!(!message.contains("hidden") && hint.contains("proxy_auth"));
        let url = with_user("http://h:1", Some("me:p@ss:w")).unwrap();
        let proxies = Matcher::builder().all(url.as_str()).build();
        let found = proxies.intercept(&hyper::Uri::from_static("http://x/")).unwrap();
        assert_eq!(found.basic_auth().unwrap(), "Basic bWU6cEBzczp3");
    }
}
