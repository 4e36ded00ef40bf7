//! File systems of a test's own: small ones in memory, and images that can be copied.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted file system; it goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Mount {
    pub(crate) at: PathBuf,
}

impl Mount {
    /// A file system in memory of so many bytes; `None`, and a word about it, where mounting is not allowed.
    pub(crate) fn memory(at: &Path, bytes: u64) -> Option<Self> {
        Self::run(at, &["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
    }

    /// The file system in an image.
    pub(crate) fn image(at: &Path, image: &Path) -> Option<Self> {
        Self::run(at, &["-o", "loop", image.to_str().unwrap()])
    }

    fn run(at: &Path, arguments: &[&str]) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let output = Command::new("mount").args(arguments).arg(at).output();
        match output {
            Ok(output) if output.status.success() => Some(Self { at: at.to_owned() }),
            Ok(output) => {
                println!(
                    "mounting is not allowed here, so nothing is proved: {}",
                    String::from_utf8_lossy(&output.stderr)
                );
                None
            }
            Err(error) => {
                println!("there is no `mount`, so nothing is proved: {error}");
                None
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // In a test that failed a process may still be there; then it goes with it.
        drop(Command::new("umount").arg("-l").arg(&self.at).status());
    }
}

/// An ext4 file system of so many bytes in a file; `None` without `mkfs.ext4`.
pub(crate) fn ext4(image: &Path, bytes: u64) -> Option<()> {
    std::fs::File::create(image).unwrap().set_len(bytes).unwrap();
    match Command::new("mkfs.ext4").arg("-q").arg(image).status() {
        Ok(status) => {
            assert!(status.success(), "mkfs.ext4: {status}");
            Some(())
        }
        Err(error) => {
            println!("there is no `mkfs.ext4`, so nothing is proved: {error}");
            None
        }
    }
}

/// Takes all that is free on the file system of `file`.
pub(crate) fn fill(file: &Path) {
    let mut ballast = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(file)
        .unwrap();
    let piece = vec![0x55; 64 << 10];
    while ballast.write_all(&piece).is_ok() {}
}
