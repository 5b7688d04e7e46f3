//! Waiting for traced processes and letting them go on, by number: the safe wrappers know neither real-time signals nor `PTRACE_LISTEN`.
#![allow(unsafe_code)] // ptrace and waitpid with plain numbers, and one union of the kernel's

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace;
use nix::unistd::Pid;

/// A group stop, or the first stop of a new process.
const PTRACE_EVENT_STOP: i32 = 128;

/// A change of a traced process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It is gone: exit code.
    Exited(i32),
    /// It is gone: signal.
    Signaled(i32),
    /// It is about to make a filtered call.
    Call,
    /// A call that was to be followed is over.
    CallOver,
    /// Its group was stopped by a signal.
    GroupStop,
    /// It is about to be given this signal.
    Signal(i32),
    /// Anything else: a new process, say.
    Other,
}

/// How a stopped process goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resume {
    /// With this signal, 0 for none.
    Signal(i32),
    /// To the end of the call it is in.
    UntilCallOver,
    /// It stays stopped, and is heard of when that is over.
    Stopped,
}

/// A system call with its arguments.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawCall {
    pub(super) number: i64,
    pub(super) args: [u64; 6],
}

/// The next change of any of them; `None` if `wait` is false and there is none.
pub(super) fn next_change(wait: bool) -> Result<Option<(Pid, Change)>, Errno> {
    let mut status = 0;
    let flags = libc::__WALL | if wait { 0 } else { libc::WNOHANG };
    // SAFETY: `status` outlives the call and is only written by it.
    let pid = Errno::result(unsafe { libc::waitpid(-1, &raw mut status, flags) })?;
    Ok((pid > 0).then(|| (Pid::from_raw(pid), change(status))))
}

fn change(status: i32) -> Change {
    if libc::WIFEXITED(status) {
        return Change::Exited(libc::WEXITSTATUS(status));
    }
    if libc::WIFSIGNALED(status) {
        return Change::Signaled(libc::WTERMSIG(status));
    }
    let signal = libc::WSTOPSIG(status);
    match status >> 16 {
        0 if signal == libc::SIGTRAP | 0x80 => Change::CallOver,
        0 => Change::Signal(signal),
        libc::PTRACE_EVENT_SECCOMP => Change::Call,
        PTRACE_EVENT_STOP if signal != libc::SIGTRAP => Change::GroupStop,
        _ => Change::Other,
    }
}

/// Lets a stopped process go on. One that was killed meanwhile is heard of by its end.
pub(super) fn resume(pid: Pid, how: Resume) {
    let (request, signal) = match how {
        Resume::Signal(signal) => (libc::PTRACE_CONT, signal),
        Resume::UntilCallOver => (libc::PTRACE_SYSCALL, 0),
        Resume::Stopped => (libc::PTRACE_LISTEN, 0),
    };
    // SAFETY: these requests take numbers only; a wrong pid is an error, which means that the process is gone.
    unsafe {
        libc::ptrace(request, pid.as_raw(), 0usize, signal as usize);
    }
}

/// The call a process is about to make.
pub(super) fn call(pid: Pid) -> Option<RawCall> {
    let info = ptrace::syscall_info(pid).ok()?;
    if info.op != libc::PTRACE_SYSCALL_INFO_SECCOMP {
        return None;
    }
    // SAFETY: `op` says which member of the union the kernel wrote.
    let seccomp = unsafe { info.u.seccomp };
    Some(RawCall { number: seccomp.nr as i64, args: seccomp.args })
}

/// What the call gave that just ended: a number, or an error.
pub(super) fn result(pid: Pid) -> Option<Result<i64, Errno>> {
    let info = ptrace::syscall_info(pid).ok()?;
    if info.op != libc::PTRACE_SYSCALL_INFO_EXIT {
        return None;
    }
    // SAFETY: `op` says which member of the union the kernel wrote.
    let exit = unsafe { info.u.exit };
    Some(if exit.is_error == 0 { Ok(exit.sval) } else { Err(Errno::from_raw(-exit.sval as i32)) })
}

/// Makes the call that a process is about to make fail for want of permission; `false` where that cannot be done.
pub(super) fn refuse(pid: Pid) -> bool {
    #[cfg(target_arch = "x86_64")]
    if let Ok(mut registers) = ptrace::getregs(pid) {
        // no such call, and the answer that is given then
        registers.orig_rax = u64::MAX;
        registers.rax = -i64::from(libc::EACCES) as u64;
        return ptrace::setregs(pid, registers).is_ok();
    }
    let _ = pid;
    false
}
