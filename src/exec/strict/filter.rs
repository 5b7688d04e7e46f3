//! The seccomp filter that stops a confined program at every system call that takes a path, so that the tracer can read it.

use nix::libc;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::{Error, Result};

/// Calls that open, start or change what a path names.
const TRACED: &[i64] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_mknodat,
    libc::SYS_truncate,
    libc::SYS_renameat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_creat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_link,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_symlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
];

/// Calls that would open files out of the tracer's sight; programs do without where the kernel lacks them.
const ABSENT: &[i64] = &[libc::SYS_io_uring_setup];

/// Installs the filter in this thread, for good: for it and all it starts.
pub(super) fn install() -> Result<()> {
    // built first: once one is installed, the calls of this process are traced, too
    let filters = [
        program(ABSENT, SeccompAction::Errno(libc::ENOSYS as u32))?,
        program(TRACED, SeccompAction::Trace(0))?,
    ];
    for filter in &filters {
        seccompiler::apply_filter(filter).map_err(failed)?;
    }
    Ok(())
}

fn program(calls: &[i64], action: SeccompAction) -> Result<BpfProgram> {
    let arch = std::env::consts::ARCH.try_into().map_err(failed)?;
    let rules = calls.iter().map(|call| (*call, Vec::new())).collect();
    SeccompFilter::new(rules, SeccompAction::Allow, action, arch)
        .and_then(BpfProgram::try_from)
        .map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::environment(format!("--strict failed to install its seccomp filter: {error}"))
}
