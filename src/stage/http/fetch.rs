//! The stage `http.fetch`: one body per node, fetched again only if it changed. Unaware of retries (the engine's) and of what the body means.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::params::{Expect, Params};
use super::policy::{self, Conditions};
use super::transfer::{Answer, Body, Transfer};
use crate::api::{
    Done, ParamFault, Signature, Stage, StageContext, StageError, Work, parse_params, secrets_as_text,
};
use crate::base::clock;
use crate::base::http::shown;
use crate::model::{Policy, Retry};

/// `http.fetch`
pub struct Fetch;

const DOC: &str = "GETs one URL into the output `body`, validated by ETag and Last-Modified on later runs.\n\
    An equal key is asked again once per run with If-None-Match / If-Modified-Since; 304 keeps the result. \
    Only 200 and 203 with a whole body that is as `expect` says are a success. \
    408, 425, 429, 5xx, broken connections, short bodies and timeouts may be retried (step key `retry`), waiting as long as Retry-After asks. \
    The record holds url, status, fetched_at, digest (BLAKE3 of the body), etag, last_modified, date, bytes (unpacked), conditional.";

impl Stage for Fetch {
    fn name(&self) -> &'static str {
        "http.fetch"
    }

    fn version(&self) -> u32 {
        1
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(DOC)
            .output("body", "The body, unpacked.")
            .policy(Policy::Validate)
            .retry(Retry { max: 3, backoff: Duration::from_secs(1), max_backoff: Duration::from_secs(60) })
            .work(Work::Wait)
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        parse_params::<Params>(&secrets_as_text(with))?.check()
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let params: Params = ctx.params()?;
        let named =
            |fault: ParamFault| StageError::new(format!("parameter {}: {}", fault.path, fault.message));
        let url = params.url().map_err(named)?;
        let headers = params.header_pairs().map_err(named)?;
        let path = ctx.output("body")?.to_owned();
        let conditions = match &ctx.previous {
            Some(previous) => policy::conditions(&previous.record, &url),
            None => Conditions::default(),
        };

        let transfer = Transfer { params: &params, url: &url, headers, conditions: &conditions, path: &path };
        let answer = ctx.runtime.block_on(transfer.run(&ctx.cancel)).and_then(|answer| {
            if let Answer::Body(body) = &answer {
                expect(&params.expect, body, &shown(&body.url), &path)?;
            }
            Ok(answer)
        });
        match answer {
            Ok(Answer::NotModified { validators }) => {
                let previous = ctx.previous.as_ref().map(|p| p.record.clone()).unwrap_or_default();
                ctx.log(format!("GET {}: 304, not modified", shown(&url)));
                ctx.record = unchanged_record(previous, &shown(&url), validators);
                Ok(Done::Unchanged)
            }
            Ok(Answer::Body(body)) => {
                ctx.log(format!("GET {}: {}, {} bytes", shown(&url), body.status, body.bytes));
                ctx.record = made_record(&body, &shown(&url), conditions.any());
                Ok(Done::Made)
            }
            Err(error) => {
                // part of a body is no output, whatever the step says of failed attempts
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }
}

/// Compares what came with what the step expects.
fn expect(expect: &Expect, body: &Body, url: &str, path: &Path) -> Result<(), StageError> {
    let came = body.content_type.as_deref().unwrap_or("no content type");
    if let Some(wanted) = &expect.content_type
        && policy::media_type(body.content_type.as_deref().unwrap_or("")) != policy::media_type(wanted)
    {
        return Err(StageError::new(format!("GET {url} gave {came}, expected {wanted}"))
            .hint("check the URL, or 'expect.content_type'"));
    }
    if body.bytes < expect.min_bytes {
        return Err(StageError::new(format!(
            "GET {url} gave {} bytes, expected at least {}",
            body.bytes, expect.min_bytes
        ))
        .hint("the server may give an empty or shortened answer: look at it, or lower 'expect.min_bytes'"));
    }
    if expect.json {
        let bytes = fs::read(path).map_err(|e| StageError::io("read", path, e))?;
        if let Err(error) = json_fault(&bytes) {
            return Err(StageError::new(format!(
                "GET {url} gave {} bytes of {came} that are not JSON ({error}); they begin: {}",
                body.bytes,
                policy::excerpt(&bytes)
            ))
            .hint("a login or error page? check the URL, or leave out 'expect.json'"));
        }
    }
    Ok(())
}

/// Why `bytes` are not one JSON document.
fn json_fault(bytes: &[u8]) -> Result<(), String> {
    let text =
        std::str::from_utf8(bytes).map_err(|e| format!("not UTF-8 from byte {} on", e.valid_up_to()))?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).map(drop).map_err(|e| e.to_string())
}

fn made_record(body: &Body, url: &str, conditional: bool) -> Map<String, Value> {
    let mut record = Map::new();
    record.insert("url".into(), json!(url));
    record.insert("status".into(), json!(body.status));
    record.insert("fetched_at".into(), json!(clock::now_text()));
    record.insert("digest".into(), json!(body.digest));
    record.insert("etag".into(), json!(body.validators.etag));
    record.insert("last_modified".into(), json!(body.validators.last_modified));
    record.insert("date".into(), json!(body.validators.date));
    record.insert("bytes".into(), json!(body.bytes));
    record.insert("conditional".into(), json!(conditional));
    if shown(&body.url) != url {
        record.insert("final_url".into(), json!(shown(&body.url)));
    }
    record
}

/// The record after a 304: the body's own data stay (`date` too, by which its Last-Modified is judged), the check is added.
fn unchanged_record(
    mut record: Map<String, Value>,
    url: &str,
    validators: super::transfer::Validators,
) -> Map<String, Value> {
    record.insert("url".into(), json!(url));
    record.insert("status".into(), json!(304));
    if let Some(etag) = validators.etag {
        record.insert("etag".into(), json!(etag));
    }
    record.insert("conditional".into(), json!(true));
    record.insert("checked".into(), json!(true));
    record.insert("checked_at".into(), json!(clock::now_text()));
    record
}
