//! A connection from its first request to its last: reads, chooses the endpoint, answers. Unaware of how tokens are timed.

use std::ops::Range;

use super::answer::{Answer, End, json_head};
use super::ask::Ask;
use super::fault::Kind;
use super::frame;
use super::link::{Gone, Link};
use super::log::Record;
use super::plan::Plan;
use super::request::{self, Head, Route, Unreadable};
use super::site::Entry;
use crate::base::clock::monotonic_ns;

/// A buffer above this is given back after its request.
const KEPT: usize = 256 << 10;

/// A whole request; its bytes are at the start of the inbox.
struct Request {
    head: Head,
    body: Range<usize>,
    /// Bytes it takes.
    used: usize,
    recv0: u64,
    recv: u64,
}

/// Serves until either side is done.
pub(super) async fn serve(mut link: Link) {
    loop {
        let served = match read(&mut link).await {
            Ok(Some(request)) => answer(&mut link, request).await,
            Ok(None) => return,
            Err(Unreadable(status, message)) => {
                let body = frame::error(status, &message);
                let _ = json(&mut link, status, "", false, &body).await;
                return;
            }
        };
        if served != Ok(End::Keep) {
            return;
        }
    }
}

/// The next request; `None`: the client left.
async fn read(link: &mut Link) -> Result<Option<Request>, Unreadable> {
    let mut recv = monotonic_ns();
    let mut recv0 = (!link.inbox.is_empty()).then_some(recv);
    let mut head = None;
    let mut continued = false;
    loop {
        if head.is_none() && !link.inbox.is_empty() {
            head = request::head(&link.inbox)?;
        }
        if let Some(found) = head {
            if let Some((body, used)) = found.body(&mut link.inbox)? {
                let recv0 = recv0.unwrap_or(recv);
                return Ok(Some(Request { head: found, body, used, recv0, recv }));
            }
            if found.expects && !continued {
                continued = true;
                link.out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                if link.flush().await.is_err() {
                    return Ok(None);
                }
            }
            head = Some(found);
        }
        if link.fill().await.is_err() {
            return Ok(None);
        }
        recv = monotonic_ns();
        if recv0.is_none() {
            recv0 = Some(recv);
            link.site.pauses.begin(recv);
        }
    }
}

async fn answer(link: &mut Link, request: Request) -> Result<End, Gone> {
    let keep = request.head.keep;
    let chat = match request.head.route {
        Route::Chat => true,
        Route::Completions => false,
        other => {
            used_up(link, request.used);
            let model = &link.site.params.model;
            let (status, body) = match other {
                Route::Models => (200, frame::models(model)),
                Route::Health => (200, "{}".to_owned()),
                Route::Version => (200, format!("{{\"version\":\"{}\"}}", env!("CARGO_PKG_VERSION"))),
                _ => (404, frame::error(404, "there is no such endpoint")),
            };
            return json(link, status, "", keep, &body).await;
        }
    };

    let site = link.site.clone();
    let number = site.number();
    let xid = request.head.xid;
    let fault = site.params.faults.draw(site.params.seed, number);
    let body = &link.inbox[request.body];
    let planned = match fault {
        Some(Kind::Status429 | Kind::Status500 | Kind::Hang) => Ok(None),
        _ => Ask::read(body, chat)
            .map(|ask| Some(Plan::new(&site, chat, &ask, body, xid.as_deref(), number, fault))),
    };
    used_up(link, request.used);
    let record = Record {
        recv0: request.recv0,
        recv: request.recv,
        xid,
        fault: fault.map(Kind::name),
        ..Record::default()
    };
    let mut entry = Entry::new(&site, record);
    let record = &mut entry.record;
    match (planned, fault) {
        (Ok(Some(plan)), _) => {
            record.stream = plan.stream;
            Ok(Answer::new(link, plan, record, keep).send().await)
        }
        (Err(message), _) => {
            // what cannot be read is hit by no fault
            record.fault = None;
            record.status = Some(400);
            json(link, 400, "", keep, &frame::error(400, &message)).await
        }
        (Ok(None), Some(Kind::Status429)) => {
            record.status = Some(429);
            json(link, 429, "Retry-After: 1\r\n", keep, &frame::error(429, "a fault on demand")).await
        }
        (Ok(None), Some(Kind::Status500)) => {
            record.status = Some(500);
            json(link, 500, "", keep, &frame::error(500, "a fault on demand")).await
        }
        (Ok(None), _) => {
            let gone = link.gone().await;
            record.closed = Some(monotonic_ns());
            Err(gone)
        }
    }
}

/// The bytes of the request are needed no more.
fn used_up(link: &mut Link, used: usize) {
    link.inbox.drain(..used);
    if link.inbox.capacity() > KEPT {
        link.inbox.shrink_to(KEPT);
    }
}

async fn json(link: &mut Link, status: u16, extra: &str, keep: bool, body: &str) -> Result<End, Gone> {
    link.out.extend_from_slice(&json_head(status, extra, keep, body.len()));
    link.out.extend_from_slice(body.as_bytes());
    link.flush().await?;
    Ok(if keep { End::Keep } else { End::Close })
}
