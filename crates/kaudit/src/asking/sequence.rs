//! Output that comes from several threads and goes out in the order of the blocks.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// So many blocks may be done before the one that is to be written next; who is further ahead waits.
const AHEAD: u64 = 16;

/// Puts pieces of output into the order of their numbers.
pub(crate) struct Sequence<W> {
    inner: Mutex<Inner<W>>,
    moved: Condvar,
}

struct Inner<W> {
    out: W,
    next: u64,
    waiting: BTreeMap<u64, Vec<u8>>,
    ended: Option<io::Error>,
}

impl<W: Write> Sequence<W> {
    pub(crate) fn new(out: W) -> Self {
        Self {
            inner: Mutex::new(Inner {
                out,
                next: 0,
                waiting: BTreeMap::new(),
                ended: None,
            }),
            moved: Condvar::new(),
        }
    }

    /// Hands over the output of a block; every number is handed over once. `false` when nothing more can be written.
    pub(crate) fn put(&self, number: u64, piece: Vec<u8>) -> bool {
        let mut inner = self.lock();
        while inner.ended.is_none() && number >= inner.next.saturating_add(AHEAD) {
            inner = self.moved.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.waiting.insert(number, piece);
        let Inner {
            out,
            next,
            waiting,
            ended,
        } = &mut *inner;
        while ended.is_none()
            && let Some(piece) = waiting.remove(next)
        {
            *ended = out.write_all(&piece).err();
            *next += 1;
        }
        self.moved.notify_all();
        inner.ended.is_none()
    }

    /// Writes the rest.
    pub(crate) fn finish(self) -> io::Result<()> {
        let mut inner = self.inner.into_inner().unwrap_or_else(PoisonError::into_inner);
        match inner.ended.take() {
            Some(error) => Err(error),
            None => inner.out.flush(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<W>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_out_in_order_whoever_is_first() {
        let sequence = Sequence::new(Vec::new());
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let sequence = &sequence;
                scope.spawn(move || {
                    for round in 0..100 {
                        let number = round * 4 + thread;
                        assert!(sequence.put(number, format!("{number}\n").into_bytes()));
                    }
                });
            }
        });
        let out = String::from_utf8(sequence.lock().out.clone()).unwrap();
        let numbers: Vec<u64> = out.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(numbers, (0..400).collect::<Vec<_>>());
    }

    #[test]
    fn a_closed_pipe_ends_it() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let sequence = Sequence::new(Closed);
        assert!(!sequence.put(0, vec![1]));
        assert!(!sequence.put(1000, vec![1]));
        assert_eq!(sequence.finish().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
