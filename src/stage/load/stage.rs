//! `llm.load`: the stage. Unaware of services: it is given URLs.

use serde_json::Value;

use super::measure::{Measured, measure};
use super::params::{OnClientBound, Params};
use crate::api::{
    Done, ParamFault, Signature, Stage, StageContext, StageError, Work, parse_params, secrets_as_text,
};
use crate::model::Policy;

/// The stage.
pub(super) struct Load;

impl Stage for Load {
    fn name(&self) -> &'static str {
        "llm.load"
    }

    fn version(&self) -> u32 {
        3
    }

    fn signature(&self) -> Signature {
        Signature::new::<Params>(
            "Sends prompts to OpenAI-compatible servers and measures every answer.\n\
                \n\
                Closed loops keep a number of requests in flight; open loops send by a schedule and count from it, so that a pause of the server \
                is not hidden (coordinated omission): `from_send` stands beside `from_schedule`, marked `hides_waiting` where one of its numbers is less by more than a tenth. One warm connection per slot; stamps are CLOCK_MONOTONIC, \
                taken next to each write and read; over TLS next to the write of the encrypted and the read of the decrypted bytes, and \
                how long they lay in the kernel is not known. `load.transports` says http or https, and whether by a proxy. Requests that failed are counted by kind and enter no latency.\n\
                \n\
                The client checks itself: the lag of sends and reads, the rate, the CPU time of its threads. A result that it spoiled fails, or is \
                marked `client_bound`. `steady`: the same numbers of `all`, of `stable` (from the second moment at which as many as may be are in flight to the last one, \
                requests sent in it: AISBench's rule) and of `trim` (requests sent between the cut ends), each with its number of requests and its window in \
                seconds after the first send. `buffering`: answers come whole, TTFT is the time of the last token.\n\
                \n\
                A prompt with `turns` is a conversation: each turn is sent after the answer of the one before and a time to think, with the server's answers in its \
                messages, to the same endpoint. A closed loop keeps a number of conversations going, an open one begins them by its schedule; a turn that failed ends its \
                conversation, and `conversations` counts what was not sent. `by_turn` has the metrics of each turn.\n\
                \n\
                Columns of `requests`: id, shard, endpoint, attempt, xid (sent as x-request-id), sched_ns, send0_ns and send1_ns (around the write), head_ns, \
                first_event_ns, first_token_ns, last_token_ns, end_ns, input_tokens, output_tokens, status, failure, events, and number, connect0_ns, \
                connect1_ns, message, text, conversation, turn (from 0); table `clock` ties the moments to dates. metrics.compute reads it.",
        )
        .input_list("prompts", "JSON Lines: {\"id\", \"messages\", \"prompt\" or \"turns\", \"max_tokens\"}")
        .optional_input("trace", "with arrival trace: recorded times")
        .input_list("authorities", "with https: PEM certificates of the authorities to believe, instead of the system's; may be left out")
        .output("requests", "SQLite: a row per attempt, and the clock")
        .output("summary", "JSON as metrics.compute, with failures, from_schedule, from_send, steady and self_check")
        .policy(Policy::Sample)
        .work(Work::Wait)
    }

    fn check(&self, with: &Value) -> Result<(), ParamFault> {
        parse_params::<Params>(&secrets_as_text(with))?.check()
    }

    fn run(&self, ctx: &mut StageContext) -> Result<Done, StageError> {
        let params: Params = ctx.params()?;
        params
            .check()
            .map_err(|fault| StageError::new(format!("parameter {}: {}", fault.path, fault.message)))?;
        let path = ctx.output("requests")?.to_owned();
        let Measured { summary, checked, nothing } = measure(ctx, &params, &path)?;
        ctx.write_json("summary", &summary)?;
        let counts = &summary["counts"];
        ctx.log(format!("{} requests, {} failed", counts["total"], counts["failed"]));
        if summary["buffering"] == Value::Bool(true) {
            ctx.log("the server sends whole answers (TTFT = E2EL): a proxy that buffers, or no stream");
        }
        nothing.map_or(Ok(()), Err)?;
        if !checked.reasons.is_empty() {
            let reasons = checked.reasons.join("; ");
            ctx.log(format!("client_bound: {reasons}"));
            // a number that is the client's own is of no use to anybody else
            ctx.keep_local(&format!("client_bound: {reasons}"));
            if params.on_client_bound == OnClientBound::Fail {
                return Err(StageError::new(format!("the client spoiled the measurement: {reasons}")).hint(
                    "lower the rate or the concurrency, free the machine, raise 'shards', or keep the result with on_client_bound: mark",
                ));
            }
        }
        Ok(Done::Made)
    }
}
