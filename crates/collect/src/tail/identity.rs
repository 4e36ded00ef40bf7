//! What the file system says about which file it is.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::time::UNIX_EPOCH;

/// Device, inode, and what tells the inode from the one that had its number before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct FileKey {
    pub(super) device: u64,
    pub(super) inode: u64,
    /// The inode's generation, where the file system gives it; 0 where it does not.
    pub(super) generation: u64,
    /// Nanoseconds from 1970 to its birth; 0 where it is not known.
    pub(super) born: u64,
}

impl FileKey {
    pub(super) fn new(file: &File, there: &Metadata) -> Self {
        let born = there
            .created()
            .ok()
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
            .and_then(|since| u64::try_from(since.as_nanos()).ok());
        Self {
            device: there.dev(),
            inode: there.ino(),
            generation: generation(file),
            born: born.unwrap_or_default(),
        }
    }

    /// Whether it is the same inode in the same life; what one side does not know is left out.
    pub(super) const fn is(&self, other: &Self) -> bool {
        const fn agree(one: u64, other: u64) -> bool {
            one == other || one == 0 || other == 0
        }
        self.inode == other.inode
            && self.device == other.device
            && agree(self.generation, other.generation)
            && agree(self.born, other.born)
    }

    /// Whether a path leads to this file, which is open, so that its inode cannot have been given away.
    pub(super) fn is_at(&self, there: &Metadata) -> bool {
        (self.device, self.inode) == (there.dev(), there.ino())
    }
}

/// ext4, XFS and btrfs count how often an inode was used; tmpfs and others refuse.
#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "no safe wrapper of FS_IOC_GETVERSION exists in rustix or std"
)]
fn generation(file: &File) -> u64 {
    use rustix::ioctl::{Updater, ioctl, opcode};

    // Declared by the kernel as _IOR('v', 1, long); it writes an int.
    const GET_VERSION: rustix::ioctl::Opcode = opcode::read::<std::ffi::c_long>(b'v', 1);
    let mut version: std::ffi::c_long = 0;
    // SAFETY: The opcode is valid. For it the kernel writes an int, on some file systems a long, to the
    // address it is given: never more than the size of `version`, which is aligned for both, is initialised,
    // and for which any bytes are a valid value. A driver that does not know the opcode writes nothing.
    let answer = unsafe { ioctl(file, Updater::<GET_VERSION, _>::new(&mut version)) };
    let [a, b, c, d, ..] = version.to_ne_bytes();
    match answer {
        Ok(()) => u64::from(u32::from_ne_bytes([a, b, c, d])),
        Err(_) => 0,
    }
}

#[cfg(not(target_os = "linux"))]
const fn generation(_file: &File) -> u64 {
    0
}
