//! Blob files: `objects/aa/<hex>`, named by the digest of their content. Unaware of the index and of results.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::NamedTempFile;

use super::pack;
use crate::base::digest::Digest;
use crate::base::failpoint;
use crate::base::files::remove_any;

/// Begins the names of unfinished blobs in `tmp/`.
const UNFINISHED: &str = "blob-";

/// A use is noted in the time stamp of a blob at most this often.
pub(super) const NOTED_EVERY: Duration = Duration::from_secs(600);

/// The folder of blob files.
pub(super) struct Objects {
    dir: PathBuf,
    tmp: PathBuf,
}

/// A blob opened to be read.
pub(super) struct Stored {
    pub(super) file: File,
    /// A zstd frame; otherwise the content itself.
    pub(super) compressed: bool,
    /// It is a regular file. Anything else under a blob's name is damage.
    pub(super) regular: bool,
}

/// A blob file as `gc`, `verify` and `stats` see it.
pub(super) struct Listed {
    pub(super) digest: Digest,
    /// Bytes on disk.
    pub(super) bytes: u64,
    /// When it was last made or used, ns since 1970.
    pub(super) used_ns: i64,
}

impl Objects {
    pub(super) fn new(cache: &Path) -> Self {
        Self { dir: cache.join("objects"), tmp: cache.join("tmp") }
    }

    /// Where the blob of `digest` is, if it is.
    pub(super) fn path(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.dir.join(&hex[..2]).join(hex)
    }

    /// True if there is such a blob. An empty file is what a power cut leaves, never a blob: empty content is kept in the index.
    pub(super) fn has(&self, digest: &Digest) -> bool {
        fs::metadata(self.path(digest)).is_ok_and(|meta| meta.is_file() && meta.len() > 0)
    }

    /// True if there is such a blob; it then counts as used now.
    pub(super) fn has_and_use(&self, digest: &Digest) -> bool {
        let path = self.path(digest);
        let Ok(file) = open_any(&path) else { return false };
        let Ok(meta) = file.metadata() else { return false };
        // `gc` leaves alone what has just been used, but it may have taken this one a moment before the use was noted
        meta.is_file()
            && meta.len() > 0
            && (!note_use(&file) || fs::symlink_metadata(&path).is_ok_and(|now| now.ino() == meta.ino()))
    }

    /// A new file that [`Self::place`] turns into a blob, and that goes away if it does not.
    pub(super) fn unfinished(&self) -> io::Result<NamedTempFile> {
        tempfile::Builder::new()
            .prefix(UNFINISHED)
            .permissions(fs::Permissions::from_mode(0o644))
            .tempfile_in(&self.tmp)
    }

    /// Gives a finished file its name.
    pub(super) fn place(&self, unfinished: NamedTempFile, digest: &Digest) -> io::Result<()> {
        let path = self.path(digest);
        failpoint::hit("blob_unplaced");
        match unfinished.persist(&path) {
            Ok(_) => Ok(()),
            Err(e) if e.error.kind() == io::ErrorKind::IsADirectory => {
                remove_any(&path)?;
                e.file.persist(&path).map(drop).map_err(|e| e.error)
            }
            Err(e) if e.error.kind() == io::ErrorKind::NotFound => {
                if let Some(folder) = path.parent() {
                    fs::create_dir_all(folder)?;
                }
                e.file.persist(&path).map(drop).map_err(|e| e.error)
            }
            Err(e) => Err(e.error),
        }
    }

    /// Writes a blob from its packed bytes.
    pub(super) fn write(&self, digest: &Digest, packed: &[u8]) -> io::Result<()> {
        let mut file = self.unfinished()?;
        file.write_all(packed)?;
        self.place(file, digest)
    }

    /// Opens a blob; it then counts as used now.
    pub(super) fn open(&self, digest: &Digest) -> io::Result<Option<Stored>> {
        let stored = self.open_untouched(digest)?;
        if let Some(stored) = &stored {
            note_use(&stored.file);
        }
        Ok(stored)
    }

    /// Opens a blob without using it.
    pub(super) fn open_untouched(&self, digest: &Digest) -> io::Result<Option<Stored>> {
        let mut file = match open_any(&self.path(digest)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        if !file.metadata()?.is_file() {
            return Ok(Some(Stored { file, compressed: false, regular: false }));
        }
        let mut head = Vec::with_capacity(pack::MAGIC.len());
        Read::by_ref(&mut file).take(pack::MAGIC.len() as u64).read_to_end(&mut head)?;
        file.rewind()?;
        Ok(Some(Stored { file, compressed: head == pack::MAGIC, regular: true }))
    }

    /// Removes a blob that was found to be damaged, unless it has been replaced since `seen` was opened.
    pub(super) fn remove_damaged(&self, digest: &Digest, seen: &File) -> io::Result<()> {
        let path = self.path(digest);
        let same = fs::metadata(&path)?.ino() == seen.metadata()?.ino();
        if same { remove_any(&path) } else { Ok(()) }
    }

    /// Removes a blob that was last used at `used_ns`, unless somebody has used or replaced it since. It is taken out of its place
    /// first and put back if it was used, so that no use is overlooked. True if it was removed.
    pub(super) fn remove_unused(&self, digest: &Digest, used_ns: i64) -> io::Result<bool> {
        let path = self.path(digest);
        let aside = self.tmp.join(format!("{UNFINISHED}gc-{}", digest.hex()));
        match fs::rename(&path, &aside) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        }
        failpoint::hit("gc_aside");
        if used_at(&fs::symlink_metadata(&aside)?) == used_ns {
            return remove_any(&aside).map(|()| true);
        }
        // whatever was put in its place meanwhile has the same content
        fs::rename(&aside, &path).map(|()| false)
    }

    /// Notes that these were used now, whatever their stamps say.
    pub(super) fn touch<'d>(&self, digests: impl Iterator<Item = &'d Digest>) {
        for digest in digests {
            // as with any other use, a cache that cannot be touched is used all the same
            let _ = open_any(&self.path(digest)).and_then(|file| file.set_modified(SystemTime::now()));
        }
    }

    /// All blobs, by digest, and the names in the folder that are no digests.
    pub(super) fn list(&self) -> io::Result<(Vec<Listed>, Vec<String>)> {
        let mut blobs = Vec::new();
        let mut foreign = Vec::new();
        for folder in fs::read_dir(&self.dir)? {
            let folder = folder?;
            let folder_name = folder.file_name().to_string_lossy().into_owned();
            if !folder.file_type()?.is_dir() {
                foreign.push(folder_name);
                continue;
            }
            for entry in fs::read_dir(folder.path())? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let digest = name.parse::<Digest>().ok().filter(|_| name.starts_with(&folder_name));
                match (digest, entry.metadata()) {
                    (_, Err(e)) if e.kind() == io::ErrorKind::NotFound => {}
                    (_, Err(e)) => return Err(e),
                    // anything but a file under a blob's name is a damaged blob
                    (Some(digest), Ok(meta)) => blobs.push(Listed {
                        digest,
                        bytes: if meta.is_file() { meta.len() } else { 0 },
                        used_ns: used_at(&meta),
                    }),
                    _ => foreign.push(format!("{folder_name}/{name}")),
                }
            }
        }
        blobs.sort_by_key(|blob| blob.digest);
        foreign.sort();
        Ok((blobs, foreign))
    }

    /// Removes what killed processes left half written. Only for when no other process uses the cache.
    pub(super) fn remove_unfinished(&self) -> io::Result<u64> {
        let mut removed = 0;
        for entry in fs::read_dir(&self.tmp)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                remove_any(&entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// Opens whatever is at `path` without waiting: a pipe under a blob's name must not hold up anybody.
fn open_any(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)
}

fn used_at(meta: &fs::Metadata) -> i64 {
    meta.mtime() * 1_000_000_000 + meta.mtime_nsec()
}

/// Notes the use in the time stamp, by which `gc` chooses; true if the stamp was old enough for that. A stamp of the future, made
/// while the clock was wrong, becomes now. A cache that cannot be touched is used all the same.
fn note_use(file: &File) -> bool {
    let now = SystemTime::now();
    let Ok(noted) = file.metadata().and_then(|meta| meta.modified()) else { return false };
    let due = now
        .duration_since(noted)
        .map_or_else(|ahead| ahead.duration() > NOTED_EVERY, |age| age > NOTED_EVERY);
    if due {
        let _ = file.set_modified(now);
    }
    due
}
