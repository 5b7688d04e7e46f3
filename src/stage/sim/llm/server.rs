//! The listening side of `sim.llm`: its socket and its threads. Unaware of requests.

use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;

use super::alarm::Alarm;
use super::connection;
use super::link::Link;
use super::log::Log;
use super::params;
use super::script::Script;
use super::site::Site;
use crate::error::{Error, Result};

/// A running server; dropping it ends it and its connections, and writes what is left of the log.
pub struct Server {
    url: String,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
    // after the threads, whose connections still write to it
    _log: Option<Log>,
}

impl Server {
    /// Binds 127.0.0.1 and serves on threads of its own. `with`: the parameters of `sim.llm`.
    pub fn start(with: &Value) -> Result<Self> {
        let params = params::read(with)
            .map_err(|fault| Error::workflow(format!("parameter {}: {}", fault.path, fault.message)))?;
        let script = params.replies.as_deref().map(Script::read).transpose()?.unwrap_or_default();
        let log = params.log.as_deref().map(Log::open).transpose()?;
        let (threads, port) = (params.threads as usize, params.port.unwrap_or(0));
        let site = Arc::new(Site::new(params, script, log.as_ref().map(|log| log.queue().clone())));

        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = bind(address).map_err(|e| failed(&format!("listen on {address}"), e))?;
        let address = listener.local_addr().map_err(|e| failed("read the server's address", e))?;
        let (stop, stopped) = watch::channel(false);
        let mut server = Self { url: format!("http://{address}"), stop, threads: Vec::new(), _log: log };
        let mut others = Vec::new();
        for _ in 1..threads {
            let (sender, receiver) = unbounded_channel();
            others.push(sender);
            server.spawn(site.clone(), stopped.clone(), move |site, alarm| take(receiver, site, alarm))?;
        }
        server.spawn(site, stopped, move |site, alarm| accept(listener, others, site, alarm))?;
        Ok(server)
    }

    /// `http://127.0.0.1:PORT`
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Starts a thread that does `work` until the server stops.
    fn spawn<F, W>(&mut self, site: Arc<Site>, mut stopped: watch::Receiver<bool>, work: F) -> Result<()>
    where
        F: FnOnce(Arc<Site>, Arc<Alarm>) -> W + Send + 'static,
        W: Future<Output = ()>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| failed("start the server's threads", e))?;
        let alarm = in_runtime(&runtime, Alarm::new).map_err(|e| failed("make a timer", e))?;
        let serve = move || {
            runtime.block_on(async {
                tokio::spawn(alarm.clone().run());
                tokio::select! {
                    _ = stopped.changed() => {}
                    () = work(site, alarm) => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("sim.llm".to_owned()).spawn(serve);
        self.threads.push(thread.map_err(|e| failed("start the server's threads", e))?);
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn failed(what: &str, cause: std::io::Error) -> Error {
    Error::environment(format!("failed to {what}: {cause}"))
}

fn bind(address: SocketAddr) -> std::io::Result<StdListener> {
    let listener = StdListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn in_runtime<T>(runtime: &Runtime, make: impl FnOnce() -> T) -> T {
    let _inside = runtime.enter();
    make()
}

/// Accepts connections; each goes to the next thread.
async fn accept(
    listener: StdListener,
    others: Vec<UnboundedSender<StdStream>>,
    site: Arc<Site>,
    alarm: Arc<Alarm>,
) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let mut next = 0;
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
        match others.get(next) {
            Some(other) => {
                next += 1;
                if let Ok(stream) = stream.into_std() {
                    let _ = other.send(stream);
                }
            }
            None => {
                next = 0;
                tokio::spawn(connection::serve(Link::new(stream, site.clone(), alarm.clone())));
            }
        }
    }
}

/// Serves the connections that the first thread hands over.
async fn take(mut streams: UnboundedReceiver<StdStream>, site: Arc<Site>, alarm: Arc<Alarm>) {
    while let Some(stream) = streams.recv().await {
        if let Ok(stream) = TcpStream::from_std(stream) {
            tokio::spawn(connection::serve(Link::new(stream, site.clone(), alarm.clone())));
        }
    }
}
