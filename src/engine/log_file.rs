//! The log of a node: a file that is made with its first line, and the last lines at hand. Unaware of attempts.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use super::session::Session;
use crate::base::digest::Digest;
use crate::event::Event;

/// Lines of a failed node's log that are shown.
const TAIL: usize = 12;

/// The log of a node: a file made with its first line, and an event for each line.
pub(super) struct LogFile<'s> {
    session: &'s Session,
    node: &'s str,
    file: Option<File>,
    /// The last lines.
    pub(super) tail: Vec<String>,
}

/// The name of a node or service as that of a file: each has another.
pub(super) fn plain_name(id: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-=,[]#".contains(c) { c } else { '_' };
    let mut name: String = id.chars().map(plain).collect();
    if name.len() > 120 || name != id {
        name.truncate(100);
        name = format!("{name}-{}", Digest::of(id.as_bytes()).short());
    }
    name
}

impl<'s> LogFile<'s> {
    pub(super) fn new(session: &'s Session, node: &'s str) -> Self {
        Self { session, node, file: None, tail: Vec::new() }
    }

    fn path(&self) -> PathBuf {
        let name = plain_name(self.node);
        self.session.project.store.dir().join("logs").join(&self.session.run).join(format!("{name}.log"))
    }

    /// Adds a line; secrets are masked.
    pub(super) fn line(&mut self, line: &str) {
        let line = self.session.masker.mask(line);
        if self.file.is_none() {
            let path = self.path();
            if let Some(dir) = path.parent() {
                let _ = std::fs::create_dir_all(dir);
            }
            self.file = File::options().create(true).append(true).open(&path).ok();
        }
        if let Some(file) = &mut self.file {
            let _ = writeln!(file, "{line}");
        }
        if self.tail.len() == TAIL {
            self.tail.remove(0);
        }
        self.tail.push(line.clone());
        self.session.emit(Event::Log { node: self.node.to_owned(), line });
    }

    /// Relative to the root; `None` if there was no line.
    pub(super) fn shown_path(&self) -> Option<String> {
        self.file.as_ref()?;
        let path = self.path();
        let root = &self.session.project.root;
        Some(path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned())
    }
}
