//! What a system call is about to do to which paths, read from the memory of the caller. Unaware of rules.

use std::ffi::OsString;
use std::io::IoSliceMut;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use super::rules::{Access, real_name};
use super::sys::RawCall;

/// Paths are no longer.
const LONGEST: usize = 4096;
const PAGE: usize = 4096;

/// A path as a program gave it, and what is to be done there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Touch {
    /// As given; from `directory` unless absolute.
    path: PathBuf,
    /// A descriptor, or that of the working directory.
    directory: i32,
    /// A link in the last part is followed.
    follow: bool,
    pub(super) access: Access,
    /// A call that opens gives a descriptor, by which the place is known for sure.
    pub(super) opens: bool,
}

/// What a call touches, in order; nothing for one that only looks.
pub(super) fn touches(pid: Pid, call: &RawCall) -> Vec<Touch> {
    let args = &call.args;
    let here = libc::AT_FDCWD;
    let text = |at: usize| text(pid, args[at] as usize);
    let descriptor = |at: usize| args[at] as i32;
    let number = |at: usize| args[at] as i32;
    let one = |directory: i32, path: Option<PathBuf>, follow: bool, access: Access| -> Vec<Touch> {
        path.map(|path| Touch { path, directory, follow, access, opens: false }).into_iter().collect()
    };
    let two = |from: Vec<Touch>, to: Vec<Touch>| from.into_iter().chain(to).collect();
    let open = |directory: i32, path: Option<PathBuf>, flags: i32| -> Vec<Touch> {
        let Some(access) = opening(flags) else { return Vec::new() };
        let follow = flags & libc::O_NOFOLLOW == 0
            && flags & (libc::O_CREAT | libc::O_EXCL) != libc::O_CREAT | libc::O_EXCL;
        path.map(|path| Touch { path, directory, follow, access, opens: true }).into_iter().collect()
    };
    match call.number {
        libc::SYS_openat => open(descriptor(0), text(1), number(2)),
        // the flags are the first word of its structure
        libc::SYS_openat2 => {
            let flags =
                bytes(pid, args[2] as usize, 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_ne_bytes);
            open(descriptor(0), text(1), flags as i32)
        }
        libc::SYS_execve => one(here, text(0), true, Access::Execute),
        libc::SYS_execveat => one(descriptor(0), text(1), true, Access::Execute),
        libc::SYS_mkdirat | libc::SYS_mknodat => one(descriptor(0), text(1), false, Access::Create),
        libc::SYS_unlinkat => one(descriptor(0), text(1), false, Access::Remove),
        libc::SYS_renameat | libc::SYS_renameat2 => two(
            one(descriptor(0), text(1), false, Access::Remove),
            one(descriptor(2), text(3), false, Access::Create),
        ),
        libc::SYS_linkat => two(
            one(descriptor(0), text(1), false, Access::Read),
            one(descriptor(2), text(3), false, Access::Create),
        ),
        libc::SYS_symlinkat => one(descriptor(1), text(2), false, Access::Create),
        libc::SYS_truncate => one(here, text(0), true, Access::Write),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open => open(here, text(0), number(1)),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_creat => open(here, text(0), libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_mkdir | libc::SYS_mknod => one(here, text(0), false, Access::Create),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_rmdir | libc::SYS_unlink => one(here, text(0), false, Access::Remove),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_rename => {
            two(one(here, text(0), false, Access::Remove), one(here, text(1), false, Access::Create))
        }
        #[cfg(target_arch = "x86_64")]
        libc::SYS_link => {
            two(one(here, text(0), false, Access::Read), one(here, text(1), false, Access::Create))
        }
        #[cfg(target_arch = "x86_64")]
        libc::SYS_symlink => one(here, text(1), false, Access::Create),
        _ => Vec::new(),
    }
}

/// What opening with these flags means; `None` for a mere handle.
fn opening(flags: i32) -> Option<Access> {
    if flags & libc::O_PATH != 0 {
        None
    } else if flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0 {
        Some(Access::Write)
    } else if flags & libc::O_CREAT != 0 {
        Some(Access::Create)
    } else {
        Some(Access::Read)
    }
}

impl Touch {
    /// The place without links, as far as it exists, and the access for what is there: a directory is listed, not read.
    pub(super) fn place(&self, pid: Pid) -> Option<(PathBuf, Access)> {
        let path = own_view(pid, &self.path);
        let path = if path.is_absolute() { path } else { self.base(pid)?.join(path) };
        let place = match self.follow.then(|| path.canonicalize()) {
            Some(Ok(real)) => real,
            _ => real_name(&path),
        };
        Some((place.clone(), self.at(&place)))
    }

    /// The access for what is at `place`.
    pub(super) fn at(&self, place: &Path) -> Access {
        let kind = place.symlink_metadata();
        match (self.access, kind) {
            (Access::Read, Ok(meta)) if meta.is_dir() => Access::List,
            (Access::Write, Err(_)) => Access::Create,
            (Access::Create, Ok(_)) if self.opens => Access::Read,
            (access, _) => access,
        }
    }

    fn base(&self, pid: Pid) -> Option<PathBuf> {
        let link = match self.directory {
            libc::AT_FDCWD => format!("/proc/{pid}/cwd"),
            descriptor => format!("/proc/{pid}/fd/{descriptor}"),
        };
        std::fs::read_link(link).ok()
    }
}

/// `/proc/self` means the caller, not its tracer.
fn own_view(pid: Pid, path: &Path) -> PathBuf {
    for own in ["/proc/self", "/proc/thread-self"] {
        if let Ok(rest) = path.strip_prefix(own) {
            return Path::new("/proc").join(pid.to_string()).join(rest);
        }
    }
    if let Ok(rest) = path.strip_prefix("/dev/fd") {
        return Path::new("/proc").join(pid.to_string()).join("fd").join(rest);
    }
    for (name, descriptor) in [("/dev/stdin", "0"), ("/dev/stdout", "1"), ("/dev/stderr", "2")] {
        if path == Path::new(name) {
            return Path::new("/proc").join(pid.to_string()).join("fd").join(descriptor);
        }
    }
    path.to_owned()
}

/// A text in the memory of a process, up to its end.
fn text(pid: Pid, address: usize) -> Option<PathBuf> {
    let mut text = Vec::new();
    while text.len() < LONGEST {
        // never beyond a page: the next one may not be there
        let from = address.checked_add(text.len())?;
        let part = bytes(pid, from, PAGE - from % PAGE)?;
        match part.iter().position(|byte| *byte == 0) {
            Some(end) => {
                text.extend_from_slice(&part[..end]);
                // an empty path means the descriptor itself
                return (!text.is_empty()).then(|| PathBuf::from(OsString::from_vec(text)));
            }
            None => text.extend(part),
        }
    }
    None
}

fn bytes(pid: Pid, base: usize, len: usize) -> Option<Vec<u8>> {
    let mut buffer = vec![0; len];
    let read =
        process_vm_readv(pid, &mut [IoSliceMut::new(&mut buffer)], &[RemoteIoVec { base, len }]).ok()?;
    (read == len).then_some(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_say_what_opening_means() {
        assert_eq!(opening(libc::O_RDONLY | libc::O_CLOEXEC), Some(Access::Read));
        assert_eq!(opening(libc::O_RDWR), Some(Access::Write));
        assert_eq!(opening(libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC), Some(Access::Write));
        assert_eq!(opening(libc::O_RDONLY | libc::O_TRUNC), Some(Access::Write));
        assert_eq!(opening(libc::O_RDONLY | libc::O_CREAT), Some(Access::Create));
        assert_eq!(opening(libc::O_PATH | libc::O_DIRECTORY), None);
    }

    #[test]
    fn a_path_is_read_from_memory_and_found_from_where_the_caller_is() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        std::fs::create_dir(top.join("real")).unwrap();
        std::os::unix::fs::symlink("real", top.join("link")).unwrap();
        std::fs::write(top.join("real/file"), "").unwrap();
        let me = nix::unistd::getpid();
        let path = std::ffi::CString::new(format!("{}/link/file", top.display())).unwrap();
        let mut args = [libc::AT_FDCWD as u64, path.as_ptr() as u64, 0, 0, 0, 0];
        let open = RawCall { number: libc::SYS_openat, args };
        let [touch] = &touches(me, &open)[..] else { panic!("one path") };
        assert_eq!(touch.place(me), Some((top.join("real/file"), Access::Read)));

        let name = std::ffi::CString::new("link").unwrap();
        let from = std::fs::File::open(&top).unwrap();
        args[0] = std::os::fd::AsRawFd::as_raw_fd(&from) as u64;
        args[1] = name.as_ptr() as u64;
        let call = |number| touches(me, &RawCall { number, args }).remove(0).place(me).unwrap();
        assert_eq!(call(libc::SYS_openat), (top.join("real"), Access::List));
        assert_eq!(call(libc::SYS_unlinkat), (top.join("link"), Access::Remove));
        args[1] = 1;
        assert!(touches(me, &RawCall { number: libc::SYS_unlinkat, args }).is_empty(), "unreadable memory");
    }
}
