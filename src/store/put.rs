//! Content into the store: one read hashes, compresses and stores. Unaware of results and workspaces.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use zstd::stream::write::Encoder;

use super::hash::pieces;
use super::tree::{self, FileContent};
use super::{Store, pack};
use crate::base::digest::Digest;
use crate::base::failpoint;
use crate::base::files::Stat;
use crate::model::Artifact;
use crate::{Error, Result};

/// Content of at most this many bytes lies in the index instead of a file of its own.
pub(super) const SMALL: usize = 4 << 10;

/// Files of at most this many bytes are read whole, and compressed if the whole gains by it; of a longer one, this much decides.
const HEAD: usize = 1 << 20;

impl Store {
    /// Stores the content of a regular file (of what a link leads to).
    pub fn put_file(&self, path: &Path) -> Result<Artifact> {
        let FileContent { digest, size, exec } = self.put_content(path)?;
        Ok(Artifact::File { digest, size, exec })
    }

    /// Stores a directory: its files, links (not followed) and empty directories. Names that are not UTF-8, sockets, pipes and
    /// devices are errors.
    pub fn put_tree(&self, dir: &Path) -> Result<Artifact> {
        let (artifact, object) = tree::describe(dir, |path, _| self.put_content(path))?;
        self.put_bytes(&object)?;
        Ok(artifact)
    }

    /// Stores `bytes` and returns their digest.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        let failed = |e| Error::io("store a blob in", self.dir(), e);
        if bytes.len() <= SMALL {
            if self.index().has_small_in_use(&digest)? {
                return Ok(digest);
            }
            self.index().put_small(&digest, &pack::pack(bytes).map_err(failed)?);
        } else {
            if self.objects().has_and_use(&digest) {
                return Ok(digest);
            }
            self.objects().write(&digest, &pack::pack(bytes).map_err(failed)?).map_err(failed)?;
        }
        failpoint::hit("blob_written");
        Ok(digest)
    }

    fn put_content(&self, path: &Path) -> Result<FileContent> {
        let failed = |e| Error::io("store", path, e);
        let meta = std::fs::metadata(path).map_err(failed)?;
        if !meta.is_file() {
            return Err(if meta.is_dir() {
                Error::environment(format!("{} is a directory where a file was expected", path.display()))
                    .hint("declare the output with a trailing '/' if it is a directory tree")
            } else {
                tree::not_content(path)
            });
        }
        let mut file = File::open(path).map_err(failed)?;
        let stat = Stat::from_metadata(&file.metadata().map_err(failed)?);
        let mut head = Vec::with_capacity((stat.size as usize + 1).min(HEAD + 1));
        Read::by_ref(&mut file).take(HEAD as u64 + 1).read_to_end(&mut head).map_err(failed)?;
        let (digest, size) = if head.len() <= HEAD {
            (self.put_bytes(&head)?, head.len() as u64)
        } else {
            self.put_long(&head, &mut file, stat.size).map_err(failed)?
        };
        if size != stat.size {
            return Err(Error::step(format!("{} changed while it was being stored", path.display()))
                .hint("does a process that the step started still write to it?"));
        }
        Ok(FileContent { digest, size, exec: stat.executable() })
    }

    /// Stores a file whose first bytes are `head`, with bounded memory.
    fn put_long(&self, head: &[u8], rest: &mut File, size: u64) -> io::Result<(Digest, u64)> {
        let mut reader = head.chain(rest);
        let mut hasher = blake3::Hasher::new();
        let mut target = self.objects().unfinished()?;
        let mut total = 0;
        if pack::pack(head)?.starts_with(&pack::MAGIC) {
            let mut encoder = Encoder::new(BufWriter::new(target.as_file_mut()), pack::LEVEL)?;
            // With another size than announced the frame would be wrong, so what is too long is left out and told by the total.
            encoder.set_pledged_src_size(Some(size))?;
            encoder.include_contentsize(true)?;
            pieces(&mut reader, size, |piece| {
                hasher.update(piece);
                total += piece.len() as u64;
                if total <= size { encoder.write_all(piece) } else { Ok(()) }
            })?;
            if total != size {
                return Ok((hasher.into(), total));
            }
            encoder.finish()?.flush()?;
        } else {
            pieces(&mut reader, size, |piece| {
                hasher.update(piece);
                total += piece.len() as u64;
                target.write_all(piece)
            })?;
        }
        let digest = hasher.into();
        if !self.objects().has_and_use(&digest) {
            self.objects().place(target, &digest)?;
            failpoint::hit("blob_written");
        }
        Ok((digest, total))
    }
}
