//! What the format promises and this version does not do yet: parsed, so that it can be refused by name. Unaware of what works.

use std::ffi::OsString;

use clap::Args;

use crate::Error;

/// The refusal of something that is planned.
pub(super) fn not_yet(what: &str) -> Error {
    Error::usage(format!("not yet: {what}"))
        .hint("this version of flow does not do it; flow --help lists what it does")
}

/// Options of `run` and `plan` that are planned.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct LaterOptions {
    #[arg(long, hide = true, value_name = "URL")]
    cache_from: Option<OsString>,
    #[arg(long, hide = true, value_name = "URL")]
    cache_to: Option<OsString>,
    #[arg(long, hide = true, value_name = "I/N")]
    part: Option<OsString>,
}

/// Arguments of a command that is planned: anything.
#[derive(Args, Clone, Debug, Default)]
#[command(disable_help_flag = true)]
pub struct LaterArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<OsString>,
}

impl LaterOptions {
    /// The first of them that was given.
    pub(super) fn given(&self) -> Option<&'static str> {
        [
            (self.cache_from.is_some(), "--cache-from"),
            (self.cache_to.is_some(), "--cache-to"),
            (self.part.is_some(), "--part"),
        ]
        .into_iter()
        .find_map(|(set, name)| set.then_some(name))
    }
}
