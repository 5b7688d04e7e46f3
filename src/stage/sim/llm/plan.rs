//! What a request will get: how many tokens, which, when, and what goes wrong. Drawn from the seed, the request's id and its body, never
//! from the time. Unaware of sockets.

use super::ask::Ask;
use super::fault::Kind;
use super::frame::{self, Id};
use super::params::{MOST_TOKENS, Usage};
use super::script::Pieces;
use super::site::Site;

/// See the header of the file.
pub(super) struct Plan {
    pub(super) chat: bool,
    pub(super) stream: bool,
    pub(super) id: Id,
    pub(super) fault: Option<Kind>,
    /// Tokens that are sent; fewer than the answer has, if a fault ends it in its middle.
    pub(super) tokens: u64,
    /// How many of them are reasoning, the first ones.
    pub(super) reasoning: u64,
    pub(super) finish: &'static str,
    /// JSON.
    pub(super) usage: Option<String>,
    text: Text,
    times: fastrand::Rng,
}

enum Text {
    Drawn(fastrand::Rng),
    Scripted(Pieces),
}

impl Plan {
    /// For the request with these contents. `number`: see [`Site::number`].
    pub(super) fn new(
        site: &Site,
        chat: bool,
        ask: &Ask<'_>,
        body: &[u8],
        xid: Option<&str>,
        number: u64,
        fault: Option<Kind>,
    ) -> Self {
        let params = &site.params;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&params.seed.to_le_bytes());
        match xid {
            Some(xid) => hasher.update(b"x").update(xid.as_bytes()).update(&[0]),
            None => hasher.update(b"n").update(&number.to_le_bytes()),
        };
        let digest = hasher.update(body).finalize();
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&digest.as_bytes()[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let mut id = [0; 16];
        for (digit, byte) in id.chunks_exact_mut(2).zip(digest.as_bytes()) {
            digit[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
            digit[1] = b"0123456789abcdef"[usize::from(byte & 15)];
        }

        let scripted = if site.script.is_empty() { None } else { site.script.choose(&ask.prompt()) };
        let wanted = match (&scripted, params.tokens) {
            (Some(pieces), _) => pieces.len() as u64,
            (None, Some(tokens)) => {
                let drawn = tokens.draw(&mut fastrand::Rng::with_seed(word(8)));
                (drawn.round() as u64).clamp(1, MOST_TOKENS)
            }
            (None, None) => ask.most.unwrap_or(16),
        };
        let tokens = if fault == Some(Kind::Empty) { 0 } else { wanted.min(ask.most.unwrap_or(wanted)) };
        let usage = match site.usage {
            Usage::Always => true,
            Usage::Asked => ask.usage || !ask.stream,
            Usage::Never => false,
        };
        Self {
            chat,
            stream: ask.stream,
            id,
            fault,
            finish: if ask.most.is_some_and(|most| most <= tokens) { "length" } else { "stop" },
            usage: usage.then(|| frame::usage(ask.input_tokens(), tokens)),
            reasoning: if chat && scripted.is_none() { params.reasoning } else { 0 },
            tokens: match fault {
                Some(Kind::Abort | Kind::Stall | Kind::StreamError) => tokens.div_ceil(2),
                _ => tokens,
            },
            text: match scripted {
                Some(pieces) => Text::Scripted(pieces),
                None => Text::Drawn(fastrand::Rng::with_seed(word(16))),
            },
            times: fastrand::Rng::with_seed(word(24)),
        }
    }

    /// Writes the token of this index, as it stands in a JSON string. To be called once for each, in order.
    pub(super) fn put_token(&mut self, site: &Site, index: u64, to: &mut Vec<u8>) {
        let word = match &mut self.text {
            Text::Drawn(random) => site.words[random.usize(..site.words.len())],
            Text::Scripted(pieces) => pieces.get(index as usize).map_or("", |piece| piece),
        };
        to.extend_from_slice(word.as_bytes());
    }

    /// Nanoseconds from the start of generation to the first token.
    pub(super) fn first_ns(&mut self, site: &Site) -> u64 {
        site.params.ttft_ms.draw_ns(&mut self.times)
    }

    /// Nanoseconds from a token to the next, if it is made now.
    pub(super) fn next_ns(&mut self, site: &Site) -> u64 {
        let alone = site.params.itl_ms.draw_ns(&mut self.times);
        let others = site
            .params
            .batch
            .map_or(0.0, |batch| batch.itl_ms_per_request * site.generating().saturating_sub(1) as f64 * 1e6);
        alone + others as u64
    }
}
