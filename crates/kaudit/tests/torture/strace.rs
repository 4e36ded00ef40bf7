//! System calls that are counted, that fail, or at which the process dies.
//!
//! strace counts for each thread and each call by itself, so `when=3` is the third such call of a thread.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// Calls that change what is on the disk, and the ones that make it durable.
pub(crate) const CALLS: &str = "write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,rename,renameat,renameat2,\
    unlink,unlinkat,ftruncate,fallocate,openat,mkdir,flock,fstatfs,statfs";

/// What happens at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Kill,
    Error(&'static str),
}

/// A fault at the `when`th call of this name.
#[derive(Clone, Debug)]
pub(crate) struct Inject {
    pub(crate) call: String,
    pub(crate) when: String,
    pub(crate) fault: Fault,
}

impl Inject {
    fn argument(&self) -> String {
        let fault = match self.fault {
            Fault::Kill => "signal=SIGKILL".to_owned(),
            Fault::Error(error) => format!("error={error}"),
        };
        format!("inject={}:{fault}:when={}", self.call, self.when)
    }
}

/// Whether processes may be traced here. Without strace itself the tests fail.
pub(crate) fn is_allowed() -> bool {
    let output = Command::new("strace")
        .args(["-o", "/dev/null", "-e", "trace=openat", "true"])
        .output()
        .expect("these tests need strace; install the package `strace`");
    if !output.status.success() {
        println!(
            "tracing is not allowed here, so nothing is proved: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    output.status.success()
}

/// The words before a command that is traced from its first call on. The command is the process that was started,
/// strace stands beside it.
pub(crate) fn around(log: &Path, calls: &str, inject: Option<&Inject>) -> Vec<String> {
    let mut words: Vec<String> = ["strace", "-D", "-f", "-qq", "-o"].map(str::to_owned).to_vec();
    words.push(log.display().to_string());
    words.extend(["-e".to_owned(), format!("trace={calls}")]);
    words.extend(
        inject
            .iter()
            .flat_map(|inject| ["-e".to_owned(), inject.argument()]),
    );
    words
}

/// A strace on one thread of a running process.
pub(crate) struct Attached {
    child: Child,
}

impl Attached {
    /// From the next call of `thread` on.
    pub(crate) fn to(thread: u32, log: &Path, inject: Option<&Inject>) -> Self {
        let mut child = Command::new("strace")
            .args(["-p", &thread.to_string(), "-e", &format!("trace={CALLS}"), "-o"])
            .arg(log)
            .args(
                inject
                    .iter()
                    .flat_map(|inject| ["-e".to_owned(), inject.argument()]),
            )
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        assert!(first.ends_with("attached"), "{first}");
        // What it says later is read so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child }
    }

    /// Lets go of the thread; it goes on by itself.
    pub(crate) fn detach(mut self) {
        let id = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        // It has ended where its thread has.
        kill_process(id, Signal::INT).ok();
        self.child.wait().unwrap();
    }

    /// Returns when the thread has ended.
    pub(crate) fn wait(mut self) {
        self.child.wait().unwrap();
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// How often each call stands in a log: the most that any one thread made.
pub(crate) fn calls(log: &Path) -> BTreeMap<String, u64> {
    let mut threads: BTreeMap<(String, String), u64> = BTreeMap::new();
    for line in std::fs::read_to_string(log).unwrap().lines() {
        let (thread, rest) = match line.split_once(' ') {
            Some((thread, rest)) if thread.bytes().all(|byte| byte.is_ascii_digit()) => {
                (thread, rest.trim_start())
            }
            _ => ("", line),
        };
        let is_name = |name: &str| {
            name.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        if let Some((name, _)) = rest.split_once('(').filter(|(name, _)| is_name(name)) {
            *threads.entry((name.to_owned(), thread.to_owned())).or_default() += 1;
        }
    }
    let mut calls = BTreeMap::new();
    for ((name, _), count) in threads {
        let most: &mut u64 = calls.entry(name).or_default();
        *most = count.max(*most);
    }
    calls
}
