//! The one door to the terminal: data on standard output, talk on standard error. Unaware of what is said.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anstream::adapter::strip_str;
use anstream::{AutoStream, ColorChoice};
use indicatif::ProgressBar;

use crate::{Error, Result};

/// Writes whole texts, with colours where the stream shows them, above a progress bar if there is one.
/// Callable from any thread; texts never mix.
pub struct Printer {
    out: Mutex<Stream>,
    err: Mutex<Stream>,
    bar: Mutex<Option<ProgressBar>>,
}

struct Stream {
    to: Box<dyn Write + Send>,
    color: bool,
    terminal: bool,
    failure: Option<io::Error>,
}

/// What a printer made by [`Printer::captured`] has written.
#[derive(Clone, Default)]
pub struct Captured {
    out: Buffer,
    err: Buffer,
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Printer {
    /// A printer to the process's own streams. `Auto` looks at the stream, `NO_COLOR`, `CLICOLOR_FORCE` and `TERM`.
    pub fn new(color: ColorChoice) -> Self {
        let shows = |auto: ColorChoice| match color {
            ColorChoice::Auto => auto != ColorChoice::Never,
            ColorChoice::Never => false,
            ColorChoice::Always | ColorChoice::AlwaysAnsi => true,
        };
        let (out, err) = (io::stdout(), io::stderr());
        let (out_color, err_color) = (shows(AutoStream::choice(&out)), shows(AutoStream::choice(&err)));
        let (out_terminal, err_terminal) = (out.is_terminal(), err.is_terminal());
        Self::of(
            Stream { to: Box::new(out), color: out_color, terminal: out_terminal, failure: None },
            Stream { to: Box::new(err), color: err_color, terminal: err_terminal, failure: None },
        )
    }

    /// A printer into memory, for tests: no terminal, colours if asked for.
    pub fn captured(color: bool) -> (Self, Captured) {
        let captured = Captured::default();
        let stream = |to: &Buffer| Stream { to: Box::new(to.clone()), color, terminal: false, failure: None };
        (Self::of(stream(&captured.out), stream(&captured.err)), captured)
    }

    fn of(out: Stream, err: Stream) -> Self {
        Self { out: Mutex::new(out), err: Mutex::new(err), bar: Mutex::new(None) }
    }

    /// Writes data to standard output; a final newline is added if it lacks one. A reader that went away ends the
    /// output quietly; any other failure is kept for [`Printer::finish`].
    pub fn data(&self, text: &str) {
        self.above_bar(|| lock(&self.out).write(text));
    }

    /// Writes talk to standard error, a newline added if it lacks one. There is nobody to tell of a failure.
    pub fn talk(&self, text: &str) {
        self.above_bar(|| lock(&self.err).write(text));
    }

    /// True if standard output shows colours.
    pub fn data_color(&self) -> bool {
        lock(&self.out).color
    }

    /// True if standard error shows colours.
    pub fn talk_color(&self) -> bool {
        lock(&self.err).color
    }

    /// True if standard error is a terminal.
    pub fn talk_is_terminal(&self) -> bool {
        lock(&self.err).terminal
    }

    /// The error of the first failed write to standard output (a full disk), unless its reader just went away.
    pub fn finish(&self) -> Result<()> {
        let mut out = lock(&self.out);
        if out.failure.is_none() {
            let flushed = out.to.flush();
            out.failure = flushed.err();
        }
        match &out.failure {
            Some(e) if e.kind() != io::ErrorKind::BrokenPipe => {
                Err(Error::environment(format!("failed to write to standard output: {e}")))
            }
            _ => Ok(()),
        }
    }

    /// From now on everything is written above `bar`; `None` takes it away.
    pub(super) fn set_bar(&self, bar: Option<ProgressBar>) {
        *lock(&self.bar) = bar;
    }

    fn above_bar(&self, write: impl FnOnce()) {
        let bar = lock(&self.bar).clone();
        match bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

impl Stream {
    fn write(&mut self, text: &str) {
        if self.failure.is_some() {
            return;
        }
        let mut whole = if self.color { text.to_owned() } else { strip_str(text).to_string() };
        if !whole.ends_with('\n') {
            whole.push('\n');
        }
        self.failure = self.to.write_all(whole.as_bytes()).err();
    }
}

impl Captured {
    /// Everything written to standard output.
    pub fn out(&self) -> String {
        self.out.text()
    }

    /// Everything written to standard error.
    pub fn err(&self) -> String {
        self.err.text()
    }
}

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&lock(&self.0)).into_owned()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a panicked thread left is still good: every holder leaves whole texts.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Full(io::ErrorKind);

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn failing(kind: io::ErrorKind) -> Printer {
        let stream = |to: Box<dyn Write + Send>| Stream { to, color: false, terminal: false, failure: None };
        Printer::of(stream(Box::new(Full(kind))), stream(Box::new(io::sink())))
    }

    #[test]
    fn data_and_talk_go_to_their_own_streams_and_lose_colours_where_none_are_shown() {
        let (printer, captured) = Printer::captured(false);
        printer.data("\u{1b}[31mred\u{1b}[0m");
        printer.talk("said\n");
        assert_eq!((captured.out().as_str(), captured.err().as_str()), ("red\n", "said\n"));
        let (printer, captured) = Printer::captured(true);
        printer.data("\u{1b}[31mred\u{1b}[0m");
        assert_eq!(captured.out(), "\u{1b}[31mred\u{1b}[0m\n");
    }

    #[test]
    fn a_reader_that_went_away_is_no_error_and_a_full_disk_is() {
        let gone = failing(io::ErrorKind::BrokenPipe);
        gone.data("x");
        assert!(gone.finish().is_ok());
        let full = failing(io::ErrorKind::StorageFull);
        full.data("x");
        full.data("y");
        assert!(full.finish().unwrap_err().message.starts_with("failed to write to standard output: "));
    }
}
