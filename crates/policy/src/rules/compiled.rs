//! Rules indexed by what they ask for.
//!
//! Each condition is an index from a value to the set of rules that it satisfies; a set is one bit per
//! rule. A request looks up its values, intersects the sets, and takes the first rule that is left.
//! What the indexes cannot say exactly (which names go with which resources, prefixes of paths) is
//! verified on that rule, and the search goes on where it fails.
//!
//! Source of the semantics: k8s.io/apiserver pkg/audit/policy/checker.go, ruleMatches.

use std::collections::HashMap;

use kaudit_event::{StageSet, UserInfo};

use super::{GroupResources, PolicyRule, Stated, stage_set};
use crate::{Attributes, RequestAuditConfig};

/// Up to this many rules a straight walk is as fast as the indexes.
const WALK: usize = 6;

#[derive(Clone, Debug)]
pub(crate) struct Compiled {
    rules: Vec<PolicyRule>,
    answers: Vec<RequestAuditConfig>,
    otherwise: RequestAuditConfig,
    words: usize,
    users: Index,
    groups: Index,
    verbs: Index,
    namespaces: Index,
    /// By the group of `resources`, `*` among those without a condition.
    api_groups: Index,
    /// By the pattern of `resources`.
    resources: Index,
    /// Rules that match resource requests, and rules that match others.
    for_resources: Vec<u64>,
    for_others: Vec<u64>,
}

/// Which rules a value satisfies.
#[derive(Clone, Debug, Default)]
struct Index {
    /// Rules without this condition.
    any: Vec<u64>,
    by_value: Sets,
}

impl Index {
    fn new(rules: &[PolicyRule], words: usize, values: impl Fn(&PolicyRule) -> Vec<&str>) -> Self {
        let mut any = vec![0; words];
        let mut by_value: HashMap<&str, Vec<u64>> = HashMap::new();
        let values: Vec<Vec<&str>> = rules.iter().map(values).collect();
        for (at, values) in values.iter().enumerate() {
            if values.is_empty() {
                set(&mut any, at);
            }
            for value in values {
                set(by_value.entry(value).or_insert_with(|| vec![0; words]), at);
            }
        }
        Self {
            any,
            by_value: Sets::new(by_value),
        }
    }

    fn of(&self, value: &[u8]) -> &[u64] {
        self.by_value.of(value)
    }
}

/// Sets by short keys: a table with open addressing that is never changed.
#[derive(Clone, Debug, Default)]
struct Sets {
    /// A power of two, at most half of them taken.
    slots: Vec<Option<Slot>>,
}

#[derive(Clone, Debug)]
struct Slot {
    hash: u64,
    key: Box<[u8]>,
    set: Vec<u64>,
}

impl Sets {
    fn new(by_value: HashMap<&str, Vec<u64>>) -> Self {
        if by_value.is_empty() {
            return Self::default();
        }
        let mut slots = vec![None; (by_value.len() * 2).next_power_of_two()];
        for (key, set) in by_value {
            let slot = Slot {
                hash: hash(key.as_bytes()),
                key: key.as_bytes().into(),
                set,
            };
            let mut at = place(slot.hash, slots.len());
            while slots.get(at).is_some_and(Option::is_some) {
                at = (at + 1) % slots.len();
            }
            if let Some(free) = slots.get_mut(at) {
                *free = Some(slot);
            }
        }
        Self { slots }
    }

    const fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    fn of(&self, key: &[u8]) -> &[u64] {
        if self.slots.is_empty() {
            return &[];
        }
        let hash = hash(key);
        let mut at = place(hash, self.slots.len());
        // Half of the slots are free, so a free one comes.
        while let Some(Some(slot)) = self.slots.get(at) {
            if slot.hash == hash && same(&slot.key, key) {
                return &slot.set;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        &[]
    }
}

fn place(hash: u64, slots: usize) -> usize {
    usize::try_from(hash & (slots as u64 - 1)).unwrap_or_default()
}

/// A fast hash for short keys of a trusted file; a bad spread costs time, never a wrong answer.
fn hash(bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |state: u64, value: u64| (state ^ value).wrapping_mul(FACTOR).rotate_left(23);
    let (chunks, rest) = bytes.as_chunks::<8>();
    let state = chunks
        .iter()
        .fold(0, |state, chunk| mix(state, u64::from_le_bytes(*chunk)));
    let last = rest
        .iter()
        .fold(rest.len() as u64, |value, byte| value << 8 | u64::from(*byte));
    let state = mix(state, last);
    state ^ (state >> 29)
}

/// Whether two short texts are the same: inline, since a call of `memcmp` costs more than most of them.
#[inline]
fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let number = |chunk: &[u8; 8]| u64::from_le_bytes(*chunk);
    a.iter().zip(b).all(|(a, b)| number(a) == number(b)) && a_rest.iter().zip(b_rest).all(|(a, b)| a == b)
}

fn set(words: &mut [u64], at: usize) {
    if let Some(word) = words.get_mut(at / 64) {
        *word |= 1 << (at % 64);
    }
}

fn word(words: &[u64], at: usize) -> u64 {
    words.get(at).copied().unwrap_or_default()
}

fn values(list: &[Stated<String>]) -> Vec<&str> {
    list.iter().map(|entry| entry.value.as_str()).collect()
}

impl Compiled {
    pub(crate) fn new(rules: &[PolicyRule], omit_stages: StageSet, omit_managed_fields: bool) -> Self {
        let words = rules.len().div_ceil(64);
        let answers = rules
            .iter()
            .enumerate()
            .map(|(index, rule)| RequestAuditConfig {
                level: rule.level.value,
                omit_stages: stage_set(rule, omit_stages),
                omit_managed_fields: rule.omit_managed_fields.unwrap_or(omit_managed_fields),
                rule: Some(index),
            })
            .collect();
        let otherwise = RequestAuditConfig {
            omit_stages,
            omit_managed_fields,
            ..RequestAuditConfig::default()
        };
        let mut for_resources = vec![0; words];
        let mut for_others = vec![0; words];
        for (at, rule) in rules.iter().enumerate() {
            let about_resources = !rule.resources.is_empty() || !rule.namespaces.is_empty();
            if about_resources || rule.non_resource_urls.is_empty() {
                set(&mut for_resources, at);
            }
            if !about_resources {
                set(&mut for_others, at);
            }
        }
        let any_group = |rule: &PolicyRule| rule.resources.iter().any(|entry| entry.group.value == "*");
        let any_resource = |rule: &PolicyRule| {
            rule.resources.iter().any(|entry| {
                entry.resources.is_empty() || entry.resources.iter().any(|pattern| pattern.value == "*")
            })
        };
        Self {
            answers,
            otherwise,
            words,
            users: Index::new(rules, words, |rule| values(&rule.users)),
            groups: Index::new(rules, words, |rule| values(&rule.user_groups)),
            verbs: Index::new(rules, words, |rule| values(&rule.verbs)),
            namespaces: Index::new(rules, words, |rule| values(&rule.namespaces)),
            api_groups: Index::new(rules, words, |rule| {
                if any_group(rule) {
                    return Vec::new();
                }
                rule.resources
                    .iter()
                    .map(|entry| entry.group.value.as_str())
                    .collect()
            }),
            resources: Index::new(rules, words, |rule| {
                if any_resource(rule) {
                    return Vec::new();
                }
                rule.resources
                    .iter()
                    .flat_map(|entry| values(&entry.resources))
                    .collect()
            }),
            for_resources,
            for_others,
            rules: rules.to_vec(),
        }
    }

    pub(crate) fn evaluate(&self, attributes: &Attributes<'_>) -> RequestAuditConfig {
        let found = if self.rules.len() <= WALK {
            self.rules.iter().position(|rule| matches(rule, attributes))
        } else {
            self.search(attributes)
        };
        found
            .and_then(|at| self.answers.get(at))
            .copied()
            .unwrap_or(self.otherwise)
    }

    fn search(&self, attributes: &Attributes<'_>) -> Option<usize> {
        let user = attributes.user;
        let by_user = user.map_or(&[][..], |user| self.users.of(user.username.as_bytes()));
        let by_verb = self.verbs.of(attributes.verb);
        let kind = if attributes.is_resource_request {
            &self.for_resources
        } else {
            &self.for_others
        };
        let scope = attributes
            .is_resource_request
            .then(|| Scope::of(self, attributes));
        for at in 0..self.words {
            let mut left = word(kind, at)
                & (word(&self.users.any, at) | word(by_user, at))
                & (word(&self.verbs.any, at) | word(by_verb, at));
            if let Some(scope) = &scope {
                left &= scope.word(self, at);
            }
            if left != 0 {
                left &= word(&self.groups.any, at) | self.group_word(user, at);
            }
            while left != 0 {
                let rule = at * 64 + left.trailing_zeros() as usize;
                if self
                    .rules
                    .get(rule)
                    .is_some_and(|rule| leftovers_match(rule, attributes))
                {
                    return Some(rule);
                }
                left &= left - 1;
            }
        }
        None
    }

    fn group_word(&self, user: Option<&UserInfo>, at: usize) -> u64 {
        if self.groups.by_value.is_empty() {
            return 0;
        }
        let groups = user.and_then(|user| user.groups.as_deref()).unwrap_or_default();
        groups.iter().fold(0, |found, group| {
            found | word(self.groups.of(group.as_bytes()), at)
        })
    }
}

/// The sets that only resource requests look up.
struct Scope<'a> {
    namespace: &'a [u64],
    group: &'a [u64],
    resource: [&'a [u64]; 3],
}

impl<'a> Scope<'a> {
    fn of(compiled: &'a Compiled, attributes: &Attributes<'_>) -> Self {
        let mut key = Key::default();
        let resources = &compiled.resources;
        let (resource, subresource) = (attributes.resource, attributes.subresource);
        let resource = if resources.by_value.is_empty() {
            [&[][..]; 3]
        } else if subresource.is_empty() {
            [
                resources.of(resource),
                key.with(&[resource, b"/*"], |key| resources.of(key)),
                &[],
            ]
        } else {
            [
                key.with(&[resource, b"/", subresource], |key| resources.of(key)),
                key.with(&[resource, b"/*"], |key| resources.of(key)),
                key.with(&[b"*/", subresource], |key| resources.of(key)),
            ]
        };
        Self {
            namespace: compiled.namespaces.of(attributes.namespace),
            group: compiled.api_groups.of(attributes.api_group),
            resource,
        }
    }

    fn word(&self, compiled: &Compiled, at: usize) -> u64 {
        let resource = self.resource.iter().fold(0, |found, set| found | word(set, at));
        (word(&compiled.namespaces.any, at) | word(self.namespace, at))
            & (word(&compiled.api_groups.any, at) | word(self.group, at))
            & (word(&compiled.resources.any, at) | resource)
    }
}

/// Joins parts of a key without allocating, as long as it is short.
struct Key {
    bytes: [u8; 128],
}

impl Default for Key {
    fn default() -> Self {
        Self { bytes: [0; 128] }
    }
}

impl Key {
    fn with<T>(&mut self, parts: &[&[u8]], look_up: impl FnOnce(&[u8]) -> T) -> T {
        let length = parts.iter().map(|part| part.len()).sum();
        let Some(key) = self.bytes.get_mut(..length) else {
            return look_up(&parts.concat());
        };
        let mut rest = &mut *key;
        for part in parts {
            let Some((into, after)) = rest.split_at_mut_checked(part.len()) else {
                break;
            };
            into.copy_from_slice(part);
            rest = after;
        }
        look_up(key)
    }
}

/// What the indexes do not decide exactly.
fn leftovers_match(rule: &PolicyRule, attributes: &Attributes<'_>) -> bool {
    if !rule.resources.is_empty() {
        return resources_match(&rule.resources, attributes);
    }
    rule.non_resource_urls.is_empty() || attributes.is_resource_request || path_matches(rule, attributes.path)
}

/// The whole rule, condition by condition.
pub(crate) fn matches(rule: &PolicyRule, attributes: &Attributes<'_>) -> bool {
    let contains =
        |list: &[Stated<String>], value: &[u8]| list.iter().any(|entry| same(entry.value.as_bytes(), value));
    if !rule.users.is_empty()
        && !attributes
            .user
            .is_some_and(|user| contains(&rule.users, user.username.as_bytes()))
    {
        return false;
    }
    if !rule.user_groups.is_empty() {
        let groups = attributes
            .user
            .and_then(|user| user.groups.as_deref())
            .unwrap_or_default();
        if !groups
            .iter()
            .any(|group| contains(&rule.user_groups, group.as_bytes()))
        {
            return false;
        }
    }
    if !rule.verbs.is_empty() && !contains(&rule.verbs, attributes.verb) {
        return false;
    }
    if !rule.resources.is_empty() || !rule.namespaces.is_empty() {
        return attributes.is_resource_request
            && (rule.namespaces.is_empty() || contains(&rule.namespaces, attributes.namespace))
            && (rule.resources.is_empty() || resources_match(&rule.resources, attributes));
    }
    rule.non_resource_urls.is_empty()
        || (!attributes.is_resource_request && path_matches(rule, attributes.path))
}

fn resources_match(entries: &[GroupResources], attributes: &Attributes<'_>) -> bool {
    entries.iter().any(|entry| {
        let group = entry.group.value.as_bytes();
        (group == b"*" || same(group, attributes.api_group))
            && (entry.resources.is_empty()
                || (entry
                    .resources
                    .iter()
                    .any(|pattern| pattern_matches(pattern.value.as_bytes(), attributes))
                    && (entry.resource_names.is_empty()
                        || entry
                            .resource_names
                            .iter()
                            .any(|name| same(name.value.as_bytes(), attributes.name)))))
    })
}

/// `*`, `resource`, `resource/subresource`, `*/subresource` or `resource/*`, which is also the resource
/// itself.
pub(crate) fn pattern_matches(pattern: &[u8], attributes: &Attributes<'_>) -> bool {
    let (resource, subresource) = (attributes.resource, attributes.subresource);
    if pattern == b"*" {
        return true;
    }
    if subresource.is_empty() && same(pattern, resource) {
        return true;
    }
    let Some(slash) = pattern.iter().position(|byte| *byte == b'/') else {
        return false;
    };
    // A resource's name has no slash, so the first one of a pattern parts it.
    let (of, rest) = pattern.split_at_checked(slash).unwrap_or((pattern, b""));
    let part = rest.get(1..).unwrap_or_default();
    if part == b"*" && same(of, resource) {
        return true;
    }
    !subresource.is_empty() && same(part, subresource) && (of == b"*" || same(of, resource))
}

fn path_matches(rule: &PolicyRule, path: &[u8]) -> bool {
    rule.non_resource_urls
        .iter()
        .any(|url| url_matches(url.value.as_bytes(), path))
}

/// `*`, the path itself, or a prefix of it followed by `*`.
pub(crate) fn url_matches(spec: &[u8], path: &[u8]) -> bool {
    if spec == b"*" || spec == path {
        return true;
    }
    let stars = spec.iter().rev().take_while(|byte| **byte == b'*').count();
    stars > 0
        && spec
            .get(..spec.len() - stars)
            .is_some_and(|prefix| path.starts_with(prefix))
}
