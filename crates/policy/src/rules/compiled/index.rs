//! The clauses of a policy, indexed by what they ask for.
//!
//! A clause is a rule with one of the entries of its `resources`; a rule without entries is one clause.
//! So every condition of a clause is a list of values of one attribute, and a clause matches when each
//! of its lists is empty or has the request's value. Clauses are numbered in the order of the rules, and
//! a set of clauses is one bit for each, in words of 64.
//!
//! ```text
//! rules                                             clauses
//! 0  verbs: [get]    resources: [{""}, {apps}]      0  verbs [get]    api group [""]
//!                                                   1  verbs [get]    api group [apps]
//! 1  users: [alice]  verbs: [get, list]             2  users [alice]  verbs [get, list]
//! 2  nonResourceURLs: ["/healthz*"]                 3  (its paths are looked at one by one)
//!
//! index of verbs     asking 0 1 2      get -> 0 1 2 3      list -> 2 3      anything else -> 3
//! index of users     asking 2          alice -> 0 1 2 3    anything else -> 0 1 3
//! for resources      0 1 2             for other requests   2 3
//! ```
//!
//! Each attribute has an [`Index`]: from a value to the clauses that are content with it, those that do
//! not ask included, and the set of clauses that do ask. A search takes one word at a time: the clauses
//! for this kind of request, intersected with the set of each attribute. An attribute is looked up when
//! the first clause that is still left asks for it, so that most requests never have the names of their
//! user and groups looked up. The lowest bit that is left is the answer; only paths are then compared.
//!
//! A search allocates nothing.

use std::collections::HashMap;

use kaudit_event::UserInfo;

use super::{GroupResources, PolicyRule, Stated, path_matches};
use crate::Attributes;

/// Policies whose sets would need more words than this are walked: 32 MiB.
const MOST_WORDS: usize = 4 << 20;

/// So are policies with a longer pattern; the names in it have at most 63 letters each.
const LONGEST_PATTERN: usize = 128;

#[derive(Clone, Debug)]
pub(super) struct Clauses {
    /// The rule of each clause.
    rules: Vec<usize>,
    /// Clauses that match resource requests, and clauses that match others.
    for_resources: Vec<u64>,
    for_others: Vec<u64>,
    users: Index,
    groups: Index,
    verbs: Index,
    namespaces: Index,
    api_groups: Index,
    /// By pattern; `pods/*` is there as `pods` too.
    resources: Index,
    names: Index,
}

/// A clause before it is a bit.
struct Clause<'a> {
    at: usize,
    rule: &'a PolicyRule,
    entry: Option<&'a GroupResources>,
}

/// The values that a clause asks for; none where it has no condition on the attribute.
type Condition<'a> = fn(&Clause<'a>) -> Vec<&'a str>;

impl Clauses {
    /// `None` for policies that are too large for sets.
    pub(super) fn of<'a>(rules: &'a [PolicyRule]) -> Option<Self> {
        let mut clauses = Vec::new();
        for (at, rule) in rules.iter().enumerate() {
            if rule.resources.is_empty() {
                clauses.push(Clause {
                    at,
                    rule,
                    entry: None,
                });
            }
            let entries = rule.resources.iter();
            clauses.extend(entries.map(|entry| Clause {
                at,
                rule,
                entry: Some(entry),
            }));
        }
        let conditions: [Condition<'a>; 7] = [
            Clause::users,
            Clause::groups,
            Clause::verbs,
            Clause::namespaces,
            Clause::api_groups,
            Clause::patterns,
            Clause::names,
        ];
        let values: usize = clauses
            .iter()
            .flat_map(|clause| conditions.iter().map(|values| values(clause).len()))
            .sum();
        let words = clauses.len().div_ceil(64);
        // Each index has two sets beside those of its values, and there are two by kind of request.
        let is_large = words.saturating_mul(values + 16) > MOST_WORDS;
        let is_long = |pattern: &&str| pattern.len() > LONGEST_PATTERN;
        if is_large || clauses.iter().any(|clause| clause.patterns().iter().any(is_long)) {
            return None;
        }
        let [users, groups, verbs, namespaces, api_groups, resources, names] =
            conditions.map(|values| Index::new(&clauses, values));
        let mut for_resources = vec![0; words];
        let mut for_others = vec![0; words];
        for (bit, clause) in clauses.iter().enumerate() {
            let about_resources = clause.entry.is_some() || !clause.rule.namespaces.is_empty();
            if about_resources || clause.rule.non_resource_urls.is_empty() {
                set(&mut for_resources, bit);
            }
            if !about_resources {
                set(&mut for_others, bit);
            }
        }
        Some(Self {
            rules: clauses.iter().map(|clause| clause.at).collect(),
            for_resources,
            for_others,
            users,
            groups,
            verbs,
            namespaces,
            api_groups,
            resources,
            names,
        })
    }

    /// The first rule that matches.
    pub(super) fn first_rule(&self, rules: &[PolicyRule], attributes: &Attributes<'_>) -> Option<usize> {
        let mut asked = Asked::default();
        if attributes.is_resource_request {
            let clause = first_bit(&self.for_resources, |left, at| {
                let left = self.verbs.narrow(left, at, &mut asked.verb, attributes.verb);
                let left = self.narrow_by_resource(left, at, &mut asked.resource, attributes);
                let left = self
                    .namespaces
                    .narrow(left, at, &mut asked.namespace, attributes.namespace);
                let left = self
                    .api_groups
                    .narrow(left, at, &mut asked.api_group, attributes.api_group);
                let left = self.names.narrow(left, at, &mut asked.name, attributes.name);
                self.narrow_by_user(left, at, &mut asked.user, attributes.user)
            })?;
            return self.rules.get(clause).copied();
        }
        // What indexes do not tell, paths and their prefixes, is looked at clause by clause.
        let mut found = None;
        first_bit(&self.for_others, |left, at| {
            let left = self.verbs.narrow(left, at, &mut asked.verb, attributes.verb);
            let mut left = self.narrow_by_user(left, at, &mut asked.user, attributes.user);
            while left != 0 {
                found = self.rules.get(at * 64 + left.trailing_zeros() as usize).copied();
                let rule = found.and_then(|at| rules.get(at));
                if rule.is_some_and(|rule| {
                    rule.non_resource_urls.is_empty() || path_matches(rule, attributes.path)
                }) {
                    return left;
                }
                left &= left - 1;
            }
            0
        })?;
        found
    }

    fn narrow_by_resource<'a>(
        &'a self,
        left: u64,
        at: usize,
        sets: &mut Option<[&'a [u64]; 3]>,
        attributes: &Attributes<'_>,
    ) -> u64 {
        let index = &self.resources;
        if left & word(&index.asking, at) == 0 {
            return left;
        }
        let (resource, subresource) = (attributes.resource, attributes.subresource);
        let sets = sets.get_or_insert_with(|| {
            if subresource.is_empty() {
                return [index.of(resource), &[], &[]];
            }
            let mut buffer = [0; LONGEST_PATTERN];
            [
                index.of_joined(&mut buffer, &[resource, b"/", subresource]),
                index.of_joined(&mut buffer, &[resource, b"/*"]),
                index.of_joined(&mut buffer, &[b"*/", subresource]),
            ]
        });
        left & sets.iter().fold(0, |found, set| found | word(set, at))
    }

    /// By the user's name, then by the groups.
    fn narrow_by_user<'a>(
        &'a self,
        left: u64,
        at: usize,
        by_name: &mut Option<&'a [u64]>,
        user: Option<&UserInfo>,
    ) -> u64 {
        // Who is not known has no name, not even an empty one.
        let name = match user {
            Some(user) => user.username.as_bytes(),
            None => {
                by_name.get_or_insert(self.users.others());
                b""
            }
        };
        let left = self.users.narrow(left, at, by_name, name);
        if left & word(&self.groups.asking, at) == 0 {
            return left;
        }
        let groups = user.and_then(|user| user.groups.as_deref()).unwrap_or_default();
        let content = groups
            .iter()
            .fold(word(self.groups.others(), at), |found, group| {
                found | word(self.groups.of(group.as_bytes()), at)
            });
        left & content
    }
}

/// What a search has looked up so far.
#[derive(Default)]
struct Asked<'a> {
    verb: Option<&'a [u64]>,
    resource: Option<[&'a [u64]; 3]>,
    namespace: Option<&'a [u64]>,
    api_group: Option<&'a [u64]>,
    name: Option<&'a [u64]>,
    user: Option<&'a [u64]>,
}

/// The lowest bit of what `narrow` leaves of a set, given one word and its number at a time.
#[inline]
fn first_bit(set: &[u64], mut narrow: impl FnMut(u64, usize) -> u64) -> Option<usize> {
    set.iter().enumerate().find_map(|(at, word)| {
        let left = narrow(*word, at);
        (left != 0).then(|| at * 64 + left.trailing_zeros() as usize)
    })
}

impl<'a> Clause<'a> {
    fn users(&self) -> Vec<&'a str> {
        values(&self.rule.users)
    }

    fn groups(&self) -> Vec<&'a str> {
        values(&self.rule.user_groups)
    }

    fn verbs(&self) -> Vec<&'a str> {
        values(&self.rule.verbs)
    }

    fn namespaces(&self) -> Vec<&'a str> {
        values(&self.rule.namespaces)
    }

    fn api_groups(&self) -> Vec<&'a str> {
        let group = self.entry.map(|entry| entry.group.value.as_str());
        group.filter(|group| *group != "*").into_iter().collect()
    }

    fn patterns(&self) -> Vec<&'a str> {
        let mut patterns = self
            .entry
            .map(|entry| values(&entry.resources))
            .unwrap_or_default();
        if patterns.contains(&"*") {
            return Vec::new();
        }
        let whole: Vec<&str> = patterns
            .iter()
            .filter_map(|pattern| pattern.strip_suffix("/*"))
            .collect();
        patterns.extend(whole);
        patterns
    }

    /// Names are looked at only where there are patterns.
    fn names(&self) -> Vec<&'a str> {
        self.entry
            .filter(|entry| !entry.resources.is_empty())
            .map(|entry| values(&entry.resource_names))
            .unwrap_or_default()
    }
}

fn values(list: &[Stated<String>]) -> Vec<&str> {
    list.iter().map(|entry| entry.value.as_str()).collect()
}

/// Which clauses are content with a value of one attribute: a table with open addressing that is never
/// changed.
#[derive(Clone, Debug)]
struct Index {
    /// Clauses with a condition on this attribute.
    asking: Vec<u64>,
    /// A power of two, at most half of them taken; none where no clause asks.
    slots: Vec<Option<Slot>>,
    /// The sets, one behind the other; the first one is that of all values without a slot.
    sets: Vec<u64>,
}

#[derive(Clone, Debug)]
struct Slot {
    hash: u64,
    key: Box<[u8]>,
    /// Where its set begins.
    set: usize,
}

impl Index {
    fn new<'a>(clauses: &[Clause<'a>], values: Condition<'a>) -> Self {
        let words = clauses.len().div_ceil(64);
        let mut asking = vec![0; words];
        let mut bits: HashMap<&str, Vec<usize>> = HashMap::new();
        for (bit, clause) in clauses.iter().enumerate() {
            for value in values(clause) {
                set(&mut asking, bit);
                bits.entry(value).or_default().push(bit);
            }
        }
        let mut index = Self {
            slots: match bits.len() {
                0 => Vec::new(),
                values => vec![None; (values * 2).next_power_of_two()],
            },
            sets: asking.iter().map(|word: &u64| !word).collect(),
            asking,
        };
        for (value, bits) in bits {
            index.insert(value.as_bytes(), &bits);
        }
        index
    }

    fn insert(&mut self, value: &[u8], bits: &[usize]) {
        let start = self.sets.len();
        let mut content = self.others().to_vec();
        bits.iter().for_each(|bit| set(&mut content, *bit));
        self.sets.extend(content);
        let hash = hash(value);
        let mut at = place(hash, self.slots.len());
        while self.slots.get(at).is_some_and(Option::is_some) {
            at = (at + 1) & (self.slots.len() - 1);
        }
        if let Some(free) = self.slots.get_mut(at) {
            *free = Some(Slot {
                hash,
                key: value.into(),
                set: start,
            });
        }
    }

    /// The clauses that are content with every value, and with none.
    fn others(&self) -> &[u64] {
        self.sets.get(..self.asking.len()).unwrap_or_default()
    }

    /// The clauses that are content with `value`.
    fn of(&self, value: &[u8]) -> &[u64] {
        if self.slots.is_empty() {
            return self.others();
        }
        let hash = hash(value);
        let mut at = place(hash, self.slots.len());
        // Half of the slots are free, so a free one comes.
        while let Some(Some(slot)) = self.slots.get(at) {
            if slot.hash == hash && same(&slot.key, value) {
                return self
                    .sets
                    .get(slot.set..slot.set + self.asking.len())
                    .unwrap_or_default();
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.others()
    }

    /// The clauses that are content with the text that `parts` are together.
    fn of_joined(&self, buffer: &mut [u8; LONGEST_PATTERN], parts: &[&[u8]]) -> &[u64] {
        let length = parts.iter().map(|part| part.len()).sum();
        let Some(joined) = buffer.get_mut(..length) else {
            // No key is that long.
            return self.others();
        };
        let mut rest = &mut *joined;
        for part in parts {
            let Some((into, after)) = rest.split_at_mut_checked(part.len()) else {
                break;
            };
            into.copy_from_slice(part);
            rest = after;
        }
        self.of(joined)
    }

    /// What is left of a word's clauses; looks `value` up when the first of them asks for it.
    #[inline]
    fn narrow<'a>(&'a self, left: u64, at: usize, set: &mut Option<&'a [u64]>, value: &[u8]) -> u64 {
        if left & word(&self.asking, at) == 0 {
            return left;
        }
        left & word(set.get_or_insert_with(|| self.of(value)), at)
    }
}

fn set(words: &mut [u64], bit: usize) {
    if let Some(word) = words.get_mut(bit / 64) {
        *word |= 1 << (bit % 64);
    }
}

fn word(words: &[u64], at: usize) -> u64 {
    words.get(at).copied().unwrap_or_default()
}

fn place(hash: u64, slots: usize) -> usize {
    usize::try_from(hash & (slots as u64 - 1)).unwrap_or_default()
}

/// A fast hash for short keys of a trusted file; a bad spread costs time, never a wrong answer.
fn hash(bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |state: u64, value: u64| (state ^ value).wrapping_mul(FACTOR).rotate_left(23);
    let (chunks, _) = bytes.as_chunks::<8>();
    let state = chunks.iter().fold(bytes.len() as u64, |state, chunk| {
        mix(state, u64::from_le_bytes(*chunk))
    });
    let state = mix(state, tail(bytes));
    state ^ (state >> 29)
}

/// Whether two short texts are the same: inline, since a call of `memcmp` costs more than most of them.
#[inline]
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len()
        && tail(a) == tail(b)
        && a.as_chunks::<8>()
            .0
            .iter()
            .zip(b.as_chunks::<8>().0)
            .all(|(a, b)| u64::from_le_bytes(*a) == u64::from_le_bytes(*b))
}

/// The last eight bytes, or all where there are fewer; different for different texts of one length below 8.
#[inline]
fn tail(bytes: &[u8]) -> u64 {
    if let Some(last) = bytes.last_chunk() {
        return u64::from_le_bytes(*last);
    }
    // Two halves that overlap.
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        return u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last));
    }
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_the_same_when_no_byte_differs() {
        for length in 0..40 {
            let text = vec![b'a'; length];
            assert!(same(&text, &text.clone()), "{length}");
            assert!(!same(&text, &[&text[..], b"a"].concat()), "{length}");
            for at in 0..length {
                let mut other = text.clone();
                other[at] = b'b';
                assert!(!same(&text, &other), "{at} of {length}");
            }
        }
    }
}
