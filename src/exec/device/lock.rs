//! Locks that all runs of a user on this machine share: devices by UUID, slots of pools, being alone. They end with their process.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, FdFlag};

use crate::base::digest::Digest;

/// Where the locks are: the first that can be used.
#[derive(Clone, Debug)]
pub struct MachineLocks(Vec<PathBuf>);

/// A lock that is held until this is dropped. If flow is killed, it is held until the processes that it started are gone, too.
#[derive(Debug)]
pub struct MachineLock(File);

impl Drop for MachineLock {
    fn drop(&mut self) {
        // to close the file would not be enough: processes that were started meanwhile have it open
        let _ = self.0.unlock();
    }
}

/// Why a lock was not to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Another process has it; its id, where it left one.
    Held(Option<u32>),
    /// It cannot be made; the message names the place.
    Fault(String),
}

impl MachineLocks {
    /// Those of this user: in `$XDG_RUNTIME_DIR/flow`, else in `/tmp/flow-UID`.
    pub fn of_user(runtime_dir: Option<&Path>) -> Self {
        let runtime_dir = runtime_dir.filter(|dir| dir.is_absolute()).map(|dir| dir.join("flow"));
        let temporary = PathBuf::from(format!("/tmp/flow-{}", nix::unistd::getuid()));
        Self(runtime_dir.into_iter().chain([temporary]).collect())
    }

    /// Takes the lock `kind` `name`, or says who has it.
    ///
    /// # Errors
    /// It is held, or cannot be made.
    pub fn try_take(&self, kind: &str, name: &str) -> Result<MachineLock, Denied> {
        let mut last = Denied::Fault("there is no place for locks".to_owned());
        for dir in &self.0 {
            match Self::take_in(dir, kind, name) {
                Err(Denied::Fault(why)) => last = Denied::Fault(why),
                other => return other,
            }
        }
        Err(last)
    }

    fn take_in(dir: &Path, kind: &str, name: &str) -> Result<MachineLock, Denied> {
        let fault = |what: &str, path: &Path, why: &dyn std::fmt::Display| {
            Denied::Fault(format!(
                "failed to {what} {}, where runs of this machine lock devices and pools: {why}",
                path.display()
            ))
        };
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(fault("make", dir, &e)),
            _ => {}
        }
        let meta = std::fs::symlink_metadata(dir).map_err(|e| fault("look at", dir, &e))?;
        // in /tmp anybody may have made it first
        if !meta.is_dir() || meta.uid() != nix::unistd::getuid().as_raw() || meta.mode() & 0o022 != 0 {
            return Err(fault("use", dir, &"it is not a directory of this user alone"));
        }
        // a name may hold anything
        let path = dir.join(format!("{kind}-{}", Digest::of(name.as_bytes()).hex()));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|e| fault("open", &path, &e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let _ = file.read_to_string(&mut text);
                return Err(Denied::Held(text.lines().next().and_then(|pid| pid.parse().ok())));
            }
            Err(TryLockError::Error(e)) => return Err(fault("lock", &path, &e)),
        }
        // only a message needs it
        let line = format!("{}\n{name}\n", std::process::id());
        let _ = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| file.write_all(line.as_bytes()));
        // inherited by what is started from now on: a server outlives a flow that is killed by a second or two, with its device in use
        nix::fcntl::fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()))
            .map_err(|e| fault("keep open", &path, &e))?;
        Ok(MachineLock(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_once_and_ends_with_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let locks = MachineLocks::of_user(Some(dir.path()));
        let held = locks.try_take("device", "GPU-1").unwrap();
        assert_eq!(locks.try_take("device", "GPU-1").unwrap_err(), Denied::Held(Some(std::process::id())));
        let other = locks.try_take("device", "GPU-2/../x").unwrap();
        drop(held);
        assert!(locks.try_take("device", "GPU-1").is_ok());
        drop(other);
    }

    #[test]
    fn a_directory_that_others_may_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("flow");
        std::fs::create_dir(&place).unwrap();
        std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o777)).unwrap();
        match MachineLocks(vec![place]).try_take("device", "a") {
            Err(Denied::Fault(message)) => {
                assert!(message.contains("not a directory of this user alone"), "{message}")
            }
            other => panic!("{other:?}"),
        }
    }
}
