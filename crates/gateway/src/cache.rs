//! Answers that are kept for moments, so that a burst of requests asks once.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::Instant;

/// Entries at most; a request beyond evicts what expires first.
const CAPACITY: usize = 8192;

/// Names an entry without revealing what it was made of: a keyed hash.
pub(crate) type Key = [u8; 32];

/// The system gives no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random bytes: {0}")]
pub struct NoRandomness(String);

/// Makes keys. Its secret never leaves the process, so a leaked key says nothing about a token.
#[derive(Clone)]
pub(crate) struct Hasher([u8; 32]);

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher")
    }
}

impl Hasher {
    /// A hasher with a new secret.
    pub(crate) fn new() -> Result<Self, NoRandomness> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| NoRandomness(error.to_string()))?;
        Ok(Self(secret))
    }

    /// The key of `parts`; where one ends and the next begins counts.
    pub(crate) fn key<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> Key {
        // Put together first: most are a few bytes long, and each would be a call with state to keep.
        let mut text = Vec::with_capacity(256);
        for part in parts {
            match u8::try_from(part.len()) {
                Ok(length) if length < u8::MAX => text.push(length),
                _ => {
                    text.push(u8::MAX);
                    text.extend_from_slice(&(part.len() as u64).to_le_bytes());
                }
            }
            text.extend_from_slice(part);
        }
        *blake3::keyed_hash(&self.0, &text).as_bytes()
    }
}

/// Takes what a key begins with for its hash: nobody can choose it.
#[derive(Debug, Default)]
struct Beginning(u64);

impl std::hash::Hasher for Beginning {
    fn write(&mut self, key: &[u8]) {
        if let Some(beginning) = key.first_chunk() {
            self.0 = u64::from_le_bytes(*beginning);
        }
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Entries by key.
type Entries<V> = HashMap<Key, Arc<Entry<V>>, BuildHasherDefault<Beginning>>;

/// A bounded cache in which concurrent askers of one key wait for one answer.
#[derive(Debug)]
pub(crate) struct Cache<V>(Mutex<Entries<V>>);

#[derive(Debug)]
struct Entry<V> {
    since: Instant,
    answer: OnceCell<(V, Instant)>,
}

impl<V> Entry<V> {
    fn is_over(&self, now: Instant) -> bool {
        self.answer.get().is_some_and(|(_, until)| *until <= now)
    }
}

/// Whether an answer was there or had to be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Known,
    Asked,
}

impl<V: Clone + Send + Sync> Cache<V> {
    pub(crate) fn new() -> Self {
        Self(Mutex::default())
    }

    fn entries(&self) -> MutexGuard<'_, Entries<V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer that is there and holds at `now`.
    pub(crate) fn known(&self, key: Key, now: Instant) -> Option<V> {
        let entries = self.entries();
        let (answer, until) = entries.get(&key)?.answer.get()?;
        (*until > now).then(|| answer.clone())
    }

    /// The answer to `key`; `ask` gives it and how long it holds. Cancel-safe: when the asker goes away,
    /// the next one that waits asks.
    pub(crate) async fn answer<F>(&self, key: Key, ask: impl FnOnce() -> F + Send) -> (V, Found)
    where
        F: Future<Output = (V, Duration)> + Send,
    {
        let entry = self.entry(key);
        let mut found = Found::Known;
        let (answer, _) = entry
            .answer
            .get_or_init(|| {
                found = Found::Asked;
                let asked = ask();
                async {
                    let (answer, holds) = asked.await;
                    (answer, Instant::now() + holds)
                }
            })
            .await;
        (answer.clone(), found)
    }

    fn entry(&self, key: Key) -> Arc<Entry<V>> {
        let now = Instant::now();
        let mut entries = self.entries();
        if let Some(entry) = entries.get(&key)
            && !entry.is_over(now)
        {
            return Arc::clone(entry);
        }
        if entries.len() >= CAPACITY {
            entries.retain(|_, entry| !entry.is_over(now));
        }
        if entries.len() >= CAPACITY
            && let Some(oldest) = entries
                .iter()
                .min_by_key(|(_, entry)| entry.since)
                .map(|(key, _)| *key)
        {
            entries.remove(&oldest);
        }
        let entry = Arc::new(Entry {
            since: now,
            answer: OnceCell::new(),
        });
        entries.insert(key, Arc::clone(&entry));
        entry
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_asked_for_once_until_it_expires() {
        let cache = Cache::new();
        let asked = AtomicUsize::new(0);
        let ask = || async { (asked.fetch_add(1, Ordering::Relaxed), Duration::from_secs(10)) };
        let key = Hasher::new().unwrap().key([&b"a"[..]]);
        let (first, second) = tokio::join!(cache.answer(key, ask), cache.answer(key, ask));
        assert_eq!((first.0, second.0), (0, 0));
        assert_eq!(cache.known(key, Instant::now()), Some(0));
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(cache.answer(key, ask).await, (0, Found::Known));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(cache.known(key, Instant::now()), None);
        assert_eq!(cache.answer(key, ask).await, (1, Found::Asked));
    }

    #[tokio::test]
    async fn the_number_of_entries_is_bounded() {
        let cache = Cache::new();
        let hasher = Hasher::new().unwrap();
        for n in 0..CAPACITY + 100 {
            let key = hasher.key([&n.to_le_bytes()[..]]);
            cache
                .answer(key, || async { ((), Duration::from_secs(10)) })
                .await;
        }
        assert_eq!(cache.entries().len(), CAPACITY);
    }

    #[test]
    fn where_parts_end_counts() {
        let hasher = Hasher::new().unwrap();
        assert_ne!(hasher.key([&b"ab"[..], b"c"]), hasher.key([&b"a"[..], b"bc"]));
        // Also of those whose length takes more than a byte to say.
        let long = [b'a'; 600];
        let keys: HashSet<Key> = (0..=600)
            .map(|at| {
                let (first, second) = long.split_at(at);
                hasher.key([first, second])
            })
            .collect();
        assert_eq!(keys.len(), 601);
    }
}
