//! The listening side of `sim.http`: sockets, delays, the access log. Unaware of files and headers.

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::body::Reply;
use super::fault::Faults;
use super::params;
use super::respond::{self, Question};
use crate::base::clock;
use crate::error::{Error, Result};

/// A running server; dropping it ends it and its connections.
pub struct Server {
    url: String,
    site: Arc<Site>,
    runtime: Option<Runtime>,
}

struct Site {
    root: PathBuf,
    faults: Faults,
    log: Option<Mutex<File>>,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
}

impl Server {
    /// Binds 127.0.0.1 and serves on threads of its own. `with`: the parameters of `sim.http`.
    pub fn start(with: &Value) -> Result<Self> {
        let params = params::read(with)
            .map_err(|fault| Error::workflow(format!("parameter {}: {}", fault.path, fault.message)))?;
        let root = params.dir.canonicalize().map_err(|e| {
            Error::io("open the directory to serve,", &params.dir, e).hint("parameter 'dir' of sim.http")
        })?;
        if !root.is_dir() {
            return Err(Error::environment(format!("{} is no directory", params.dir.display()))
                .hint("parameter 'dir' of sim.http"));
        }
        let faults =
            Faults::new(&params.faults).map_err(|e| Error::workflow(format!("parameter faults: {e}")))?;
        let log = params.access_log.as_deref().map(open_log).transpose()?;
        let site = Arc::new(Site {
            root,
            faults,
            log,
            in_flight: AtomicUsize::new(0),
            most_in_flight: AtomicUsize::new(0),
        });

        let failed = |what: &str, e: std::io::Error| Error::environment(format!("failed to {what}: {e}"));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("sim.http")
            .enable_all()
            .build()
            .map_err(|e| failed("start the server's threads", e))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, params.port.unwrap_or(0)));
        let listener = runtime
            .block_on(TcpListener::bind(address))
            .map_err(|e| failed(&format!("listen on {address}"), e))?;
        let address = listener.local_addr().map_err(|e| failed("read the server's address", e))?;
        runtime.spawn(accept(listener, site.clone()));
        Ok(Self { url: format!("http://{address}"), site, runtime: Some(runtime) })
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The most requests that were being answered at the same time.
    pub fn most_in_flight(&self) -> usize {
        self.site.most_in_flight.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn open_log(path: &Path) -> Result<Mutex<File>> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|e| Error::io("make the directory", parent, e))?;
    }
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.map(Mutex::new).map_err(|e| Error::io("open the access log", path, e))
}

async fn accept(listener: TcpListener, site: Arc<Site>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                // out of file descriptors, most likely: others will be closed
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        let site = site.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| handle(site.clone(), request));
            // a connection that breaks, by the client or on demand, is no fault of the server
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn handle(site: Arc<Site>, request: Request<Incoming>) -> Result<Response<Reply>, Infallible> {
    let in_flight = InFlight::enter(&site);
    let (parts, _) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let question = Question { method: parts.method, path, headers: parts.headers };
    let fault = site.faults.take(&question.path).cloned();
    if let Some(delay) = fault.as_ref().and_then(|fault| fault.delay_ms) {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let count = in_flight.count;
    let task = tokio::task::spawn_blocking({
        let site = site.clone();
        move || {
            let answer = respond::answer(&site.root, &question, fault.as_ref());
            site.note(&question, &answer, count);
            answer.response
        }
    });
    Ok(task.await.unwrap_or_else(|_| {
        let mut response = Response::new(Reply::whole("the server has a bug\n"));
        *response.status_mut() = hyper::StatusCode::INTERNAL_SERVER_ERROR;
        response
    }))
}

/// Counts a request from its arrival until its answer is ready, which is before the client can have it.
struct InFlight {
    site: Arc<Site>,
    count: usize,
}

impl InFlight {
    fn enter(site: &Arc<Site>) -> Self {
        let count = site.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        site.most_in_flight.fetch_max(count, Ordering::SeqCst);
        Self { site: site.clone(), count }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.site.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Site {
    /// Writes the access log's line, before the answer goes out: who has the answer finds the line.
    fn note(&self, question: &Question, answer: &respond::Answer, in_flight: usize) {
        let Some(log) = &self.log else { return };
        let line = json!({
            "t": clock::now_ns() as f64 / 1e9,
            "method": question.method.as_str(),
            "path": question.path,
            "status": answer.response.status().as_u16(),
            "bytes": answer.bytes,
            "conditional": question.is_conditional(),
            "in_flight": in_flight,
        });
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = log.write_all(format!("{line}\n").as_bytes()) {
            let _ = writeln!(std::io::stderr(), "sim.http: failed to write the access log: {error}");
        }
    }
}
