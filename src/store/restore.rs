//! Content out of the store, its digest verified on the way. Unaware of where in a workspace it goes.

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::content::{self, Outcome};
use super::objects::Stored;
use super::{Store, pack, pool, tree};
use crate::Error;
use crate::base::digest::Digest;
use crate::base::files;
use crate::model::{Artifact, TreeEntry, TreeEntryKind};

/// Why content could not be brought back.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is no such blob.
    #[error("the blob {0} is not in the cache")]
    Missing(Digest),
    /// The blob does not have the digest that it is named by; it has been removed, so that it is made again.
    #[error("the blob {0} in the cache was damaged")]
    Corrupt(Digest),
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] Error),
}

impl From<RestoreError> for Error {
    fn from(error: RestoreError) -> Self {
        match error {
            RestoreError::Io(error) => error,
            other => Self::environment(other.to_string())
                .hint("run the node that makes it again, or bring the cache back from a copy"),
        }
    }
}

impl Store {
    /// The entries of a tree object; `None` if it is not in the cache.
    pub fn tree(&self, digest: &Digest) -> crate::Result<Option<Vec<TreeEntry>>> {
        match self.entries(digest) {
            Ok(entries) => Ok(Some(entries)),
            Err(RestoreError::Missing(_) | RestoreError::Corrupt(_)) => Ok(None),
            Err(RestoreError::Io(error)) => Err(error),
        }
    }

    /// True if all blobs of `artifact` are there. Their content is not looked at, but for tree objects.
    pub fn has(&self, artifact: &Artifact) -> bool {
        match artifact {
            Artifact::Absent => true,
            Artifact::File { digest, size, .. } => self.has_blob(digest, *size),
            Artifact::Tree { digest, .. } => self.entries(digest).is_ok_and(|entries| {
                entries.iter().all(|entry| match &entry.kind {
                    TreeEntryKind::File { digest, size, .. } => self.has_blob(digest, *size),
                    TreeEntryKind::Link { .. } | TreeEntryKind::Dir => true,
                })
            }),
        }
    }

    /// The bytes of a blob.
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>, RestoreError> {
        if let Some(packed) = self.index().small(digest)? {
            return self.unpack_small(digest, packed);
        }
        let mut stored = self.open_blob(digest)?;
        let mut bytes = Vec::new();
        let outcome = content::each(&mut stored, digest, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        });
        self.settle(
            digest,
            &stored,
            outcome.map_err(|e| Error::io("read", &self.objects().path(digest), e)),
        )?;
        Ok(bytes)
    }

    /// Writes the content of `artifact` to `to`, which does not exist yet while its parent does. Files get mode 0644 or 0755.
    /// After an error nothing is left at `to`. An absent artifact writes nothing.
    pub fn restore(&self, artifact: &Artifact, to: &Path) -> Result<(), RestoreError> {
        match artifact {
            Artifact::Absent => Ok(()),
            Artifact::File { digest, exec, size } => self.restore_file(digest, *size, *exec, to),
            Artifact::Tree { digest, .. } => {
                let entries = self.entries(digest)?;
                fs::create_dir(to).map_err(|e| Error::io("make the directory", to, e))?;
                self.restore_entries(&entries, to).inspect_err(|_| {
                    // The first error is the one to tell.
                    let _ = files::remove_any(to);
                })
            }
        }
    }

    fn has_blob(&self, digest: &Digest, size: u64) -> bool {
        // By its size a blob is in one place; another version may have drawn the line elsewhere, so the other one is looked at too.
        let file = || self.objects().has(digest);
        let file_first = size as usize > super::put::SMALL;
        (file_first && file()) || self.index().has_small(digest).unwrap_or(false) || (!file_first && file())
    }

    fn entries(&self, digest: &Digest) -> Result<Vec<TreeEntry>, RestoreError> {
        let bytes = self.read(digest)?;
        tree::decode(&bytes).map_err(|why| {
            RestoreError::Io(Error::environment(format!("the blob {digest} is not a tree object: {why}")))
        })
    }

    fn restore_entries(&self, entries: &[TreeEntry], to: &Path) -> Result<(), RestoreError> {
        let mut made = std::collections::HashSet::new();
        for entry in entries {
            let path = to.join(&entry.path);
            let dir = if entry.kind == TreeEntryKind::Dir { Some(path.as_path()) } else { path.parent() };
            if let Some(dir) = dir
                && made.insert(dir.to_owned())
            {
                fs::create_dir_all(dir).map_err(|e| Error::io("make the directory", dir, e))?;
            }
        }
        let restored: Vec<Result<(), RestoreError>> = pool::install(|| {
            entries
                .par_iter()
                .filter_map(|entry| match &entry.kind {
                    TreeEntryKind::File { digest, size, exec } => {
                        Some(self.restore_file(digest, *size, *exec, &to.join(&entry.path)))
                    }
                    TreeEntryKind::Link { .. } | TreeEntryKind::Dir => None,
                })
                .collect()
        });
        restored.into_iter().collect::<Result<Vec<()>, _>>()?;
        for entry in entries {
            if let TreeEntryKind::Link { target } = &entry.kind {
                let path = to.join(&entry.path);
                symlink(target, &path).map_err(|e| Error::io("make the link", &path, e))?;
            }
        }
        Ok(())
    }

    fn restore_file(&self, digest: &Digest, size: u64, exec: bool, to: &Path) -> Result<(), RestoreError> {
        let expect_small = size as usize <= super::put::SMALL;
        if expect_small && let Some(packed) = self.index().small(digest)? {
            return write_whole(&self.unpack_small(digest, packed)?, exec, to);
        }
        let mut stored = match self.open_blob(digest) {
            Err(RestoreError::Missing(_)) if !expect_small => {
                return write_whole(&self.read(digest)?, exec, to);
            }
            other => other?,
        };
        let write_failed = |e| Error::io("write", to, e);
        let mut target = Target::create(to, exec).map_err(write_failed)?;
        let outcome = content::copy(&mut stored, digest, &mut target.file);
        self.settle(digest, &stored, outcome.map_err(write_failed))?;
        target.keep();
        Ok(())
    }

    fn open_blob(&self, digest: &Digest) -> Result<Stored, RestoreError> {
        self.objects()
            .open(digest)
            .map_err(|e| Error::io("open", &self.objects().path(digest), e))?
            .ok_or(RestoreError::Missing(*digest))
    }

    fn unpack_small(&self, digest: &Digest, packed: Cow<'_, [u8]>) -> Result<Vec<u8>, RestoreError> {
        match pack::unpack(packed) {
            Ok(bytes) if Digest::of(&bytes) == *digest => Ok(bytes),
            _ => {
                self.index().remove_small(vec![(*digest, i64::MAX)])?;
                Err(RestoreError::Corrupt(*digest))
            }
        }
    }

    fn settle(
        &self,
        digest: &Digest,
        stored: &Stored,
        outcome: crate::Result<Outcome>,
    ) -> Result<(), RestoreError> {
        match outcome? {
            Outcome::Same => Ok(()),
            Outcome::Damaged => {
                // Gone already, or not to be removed: either way it was not used.
                let _ = self.objects().remove_damaged(digest, &stored.file);
                Err(RestoreError::Corrupt(*digest))
            }
        }
    }
}

fn write_whole(bytes: &[u8], exec: bool, to: &Path) -> Result<(), RestoreError> {
    let failed = |e| Error::io("write", to, e);
    let mut target = Target::create(to, exec).map_err(failed)?;
    target.file.write_all(bytes).map_err(failed)?;
    target.keep();
    Ok(())
}

/// A file being written, removed again unless it is kept.
struct Target {
    file: File,
    path: Option<PathBuf>,
}

impl Target {
    fn create(path: &Path, exec: bool) -> io::Result<Self> {
        let mode = if exec { 0o755 } else { 0o644 };
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(mode).open(path)?;
        let target = Self { file, path: Some(path.to_owned()) };
        // The process may have a mask that takes bits away.
        if target.file.metadata()?.permissions().mode() & 0o777 != mode {
            target.file.set_permissions(fs::Permissions::from_mode(mode))?;
        }
        Ok(target)
    }

    fn keep(mut self) {
        self.path = None;
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // The error that led here is the one to tell.
            let _ = fs::remove_file(path);
        }
    }
}
