//! One event: what it makes of what is known.

use std::sync::Arc;

use kaudit_event::{EventView, MicroTime, Stage};
use serde_json::Value;

use super::bodies::{Bodies, kind};
use super::reconstruct::{self, Request};
use super::{Effect, Exactness, Origin, State, Taken, Version};
use crate::body;
use crate::patch::Resource;
use crate::target::{Relation, Target, is_builtin_group, parameter};

/// Kinds of answers that are not the object.
const NOT_OBJECTS: [&str; 6] = [
    "Status",
    "Table",
    "PartialObjectMetadata",
    "PartialObjectMetadataList",
    "DeleteOptions",
    "Eviction",
];

/// Memory of a reconstructed object.
const MAX_MADE_BYTES: usize = 4 * body::MAX_BODY_BYTES;

/// Subresources that leave the object as it is.
const BESIDE: [&str; 6] = ["exec", "attach", "portforward", "proxy", "log", "token"];

pub(super) fn step(target: &Target, now: &State, event: u64, view: &EventView<'_>) -> Result<Version, Taken> {
    let relation = target.relation(view);
    if relation == Relation::None {
        return Err(Taken::Unrelated);
    }
    if view.stage() != Some(Stage::ResponseComplete) {
        return Err(Taken::Stage);
    }
    let origin = Origin::of(event, view);
    if !(200..300).contains(&origin.code) {
        return Err(Taken::Failed);
    }
    if BESIDE.contains(&origin.subresource.as_str()) {
        return Err(Taken::NoChange);
    }
    let bodies = Bodies::of(view);
    if parameter(&view.request_uri(), "dryRun").is_some_and(|value| value == "All")
        || bodies.options_say_dry_run()
    {
        return Err(Taken::DryRun);
    }
    let step = Step {
        target,
        now,
        view,
        origin,
        bodies,
    };
    match (step.origin.verb.as_str(), relation) {
        ("get", _) => step.read(),
        ("create", Relation::MayTouch) => Ok(step.may(Effect::MayHaveBeenCreated)),
        ("deletecollection", Relation::MayTouch) => Ok(step.may(Effect::MayHaveBeenDeleted)),
        ("create" | "update" | "patch", _) => Ok(step.write()),
        ("delete" | "deletecollection", _) => Ok(step.delete()),
        _ => Err(Taken::NoChange),
    }
}

struct Step<'a> {
    target: &'a Target,
    now: &'a State,
    view: &'a EventView<'a>,
    origin: Origin,
    bodies: Bodies,
}

/// What an event says the object is after it.
struct Known {
    object: Option<Value>,
    exactness: Exactness,
    reason: String,
}

impl Step<'_> {
    /// The answer, if it is the object.
    fn answered(&self) -> Result<Known, String> {
        let answer = self.bodies.response.as_ref().map_err(String::clone)?;
        let kind = kind(&answer.value);
        if NOT_OBJECTS.contains(&kind) || !answer.value.is_object() {
            return Err(format!(
                "the answer is a {}",
                if kind.is_empty() { "text" } else { kind }
            ));
        }
        if !self.target.is(&answer.value) || (kind == "Scale" && self.origin.subresource == "scale") {
            return Err(format!("the answer is a {kind}, not the object"));
        }
        Ok(Known {
            object: Some(answer.value.clone()),
            exactness: if answer.is_lossy {
                Exactness::Reconstructed
            } else {
                Exactness::Exact
            },
            reason: if answer.is_lossy {
                "the answer holds bytes that are not UTF-8".to_owned()
            } else {
                String::new()
            },
        })
    }

    fn predicted(&self) -> Result<reconstruct::Made, String> {
        let reference = self.view.object_ref();
        let text = |key| {
            reference
                .map(|reference| String::from_utf8_lossy(&reference.text(key)).into_owned())
                .unwrap_or_default()
        };
        let (group, version) = (text("apiGroup"), text("apiVersion"));
        let body = match &self.bodies.request {
            Ok(body) => &body.value,
            Err(why) => return Err(why.clone()),
        };
        let previous = self.now.object.as_deref().filter(|_| !self.now.is_gone);
        Request {
            origin: &self.origin,
            resource: Resource {
                group: &group,
                resource: &self.target.resource,
            },
            namespace: &self.target.namespace,
            api_version: &if group.is_empty() {
                version
            } else {
                format!("{group}/{version}")
            },
            body: Some(body),
            is_forced: parameter(&self.view.request_uri(), "force").is_some(),
            time: &seconds(self.origin.time),
        }
        .make(previous)
        .and_then(|made| match body::measure(&made.object) {
            // Patch by patch an object could grow without bounds, as no server lets it.
            (depth, _) if depth > body::MAX_BODY_DEPTH => Err(format!(
                "the object would nest deeper than {} levels",
                body::MAX_BODY_DEPTH
            )),
            (_, bytes) if bytes > MAX_MADE_BYTES => Err("the object would be too large".to_owned()),
            _ => Ok(made),
        })
    }

    fn write(self) -> Version {
        if self.origin.subresource == "eviction" {
            return self.evicted();
        }
        let is_new = self.origin.subresource.is_empty() && self.origin.code == 201;
        let predicted = self.predicted();
        let known = match self.answered() {
            Ok(known) => known,
            Err(no_answer) => match self.scaled().or_else(|| {
                predicted.clone().ok().map(|made| {
                    let lossy = self.bodies.request.as_ref().is_ok_and(|body| body.is_lossy);
                    let reason = made.supposed.unwrap_or_default();
                    (
                        made.object,
                        if lossy {
                            format!("{reason} (the request holds bytes that are not UTF-8)")
                        } else {
                            reason
                        },
                    )
                })
            }) {
                Some((object, supposed)) => Known {
                    object: Some(object),
                    exactness: Exactness::Reconstructed,
                    reason: joined(no_answer, supposed),
                },
                None => Known {
                    object: None,
                    exactness: Exactness::Unavailable,
                    reason: joined(no_answer, predicted.as_ref().err().cloned().unwrap_or_default()),
                },
            },
        };
        let predicted = predicted.ok().map(|made| made.object);
        self.version(
            known,
            if is_new { Effect::Created } else { Effect::Changed },
            predicted,
        )
    }

    /// A Scale in the answer tells the replicas.
    fn scaled(&self) -> Option<(Value, String)> {
        let answer = &self.bodies.response.as_ref().ok()?.value;
        let is_scale = self.origin.subresource == "scale" && kind(answer) == "Scale";
        let is_known = self.target.group.as_deref().is_some_and(is_builtin_group);
        (is_scale && is_known).then_some(())?;
        let previous = self.now.object.as_deref().filter(|_| !self.now.is_gone)?;
        let mut object = reconstruct::scaled(previous, answer).ok()?;
        if let (Some(metadata), Some(version)) = (
            object.get_mut("metadata").and_then(Value::as_object_mut),
            answer.pointer("/metadata/resourceVersion"),
        ) {
            metadata.insert("resourceVersion".to_owned(), version.clone());
        }
        Some((object, String::new()))
    }

    fn evicted(self) -> Version {
        let known = Known {
            object: self.now.object.as_deref().cloned(),
            exactness: if self.now.object.is_some() {
                Exactness::Reconstructed
            } else {
                Exactness::Unavailable
            },
            reason: "an eviction's answer does not show the object".to_owned(),
        };
        self.version(known, Effect::Terminating, None)
    }

    fn delete(self) -> Version {
        let answered = if self.origin.verb == "deletecollection" {
            self.item()
                .ok_or_else(|| "the answer does not show the object".to_owned())
        } else {
            self.answered()
        };
        if let Ok(known) = answered {
            let stays = known.object.as_ref().is_some_and(stays);
            if stays {
                return self.version(known, Effect::Terminating, None);
            }
            return self.gone(known.object.as_ref(), String::new());
        }
        let says_success = self.bodies.response.as_ref().is_ok_and(|body| {
            kind(&body.value) == "Status"
                && body.value.get("status").is_some_and(|status| status == "Success")
        });
        let is_core = self.target.group.as_deref() == Some("");
        let why_stays = if self.is_graceful() {
            Some("a pod has a grace period")
        } else if is_core && self.target.resource == "namespaces" {
            Some("a namespace goes when it is empty")
        } else if self.now.object.as_deref().is_some_and(has_finalizers) {
            Some("it had finalizers")
        } else {
            None
        };
        let reason = match answered {
            Err(why) if !says_success => why,
            _ => String::new(),
        };
        if let Some(why) = why_stays.filter(|_| !says_success && !self.now.is_gone) {
            let mut object = self.now.object.as_deref().cloned();
            if let Some(metadata) = object
                .as_mut()
                .and_then(|object| object.get_mut("metadata")?.as_object_mut())
            {
                let time = || seconds(self.origin.time).into();
                metadata.entry("deletionTimestamp").or_insert_with(time);
                metadata.shift_remove("resourceVersion");
            }
            let known = Known {
                exactness: if object.is_some() {
                    Exactness::Reconstructed
                } else {
                    Exactness::Unavailable
                },
                object,
                reason: joined(reason, why.to_owned()),
            };
            return self.version(known, Effect::Terminating, None);
        }
        self.gone(None, reason)
    }

    /// A pod that somebody deletes runs on for a while; its node deletes it for good.
    fn is_graceful(&self) -> bool {
        let asked = parameter(&self.view.request_uri(), "gracePeriodSeconds").or_else(|| {
            let options = &self.bodies.request.as_ref().ok()?.value;
            options.get("gracePeriodSeconds").map(Value::to_string)
        });
        self.target.resource == "pods"
            && self.target.group.as_deref() == Some("")
            && asked.as_deref() != Some("0")
            && !self.origin.actor().starts_with("system:node:")
    }

    fn item(&self) -> Option<Known> {
        let list = &self.bodies.response.as_ref().ok()?.value;
        let item = list
            .get("items")?
            .as_array()?
            .iter()
            .find(|item| self.target.is(item))?;
        Some(Known {
            object: Some(item.clone()),
            exactness: Exactness::Exact,
            reason: String::new(),
        })
    }

    fn gone(self, last: Option<&Value>, reason: String) -> Version {
        let uid = last.and_then(|object| text(object, "/metadata/uid"));
        let is_other = uid.is_some() && self.now.uid.is_some() && uid != self.now.uid;
        let incarnation = self.now.incarnation
            + u32::from(is_other || self.now.is_gone && self.now.exactness == Some(Exactness::Exact));
        Version {
            effect: Effect::Deleted,
            exactness: if reason.is_empty() {
                Exactness::Exact
            } else {
                Exactness::Reconstructed
            },
            reason,
            object: None,
            resource_version: None,
            uid: uid.or_else(|| self.now.uid.clone().filter(|_| !self.now.is_gone)),
            incarnation,
            unseen: is_other.then(|| "it was another object of the same name".to_owned()),
            predicted: None,
            origin: self.origin,
        }
    }

    /// What may have happened leaves what is known as it is.
    fn may(self, effect: Effect) -> Version {
        let reason = match effect {
            Effect::MayHaveBeenCreated => "the server made up the name, and the answer was not recorded",
            _ => "many were deleted, and which was not recorded",
        };
        Version {
            effect,
            exactness: Exactness::Unavailable,
            reason: reason.to_owned(),
            object: None,
            resource_version: None,
            uid: self.now.uid.clone(),
            incarnation: self.now.incarnation,
            unseen: None,
            predicted: None,
            origin: self.origin,
        }
    }

    fn read(self) -> Result<Version, Taken> {
        if !self.origin.subresource.is_empty() {
            return Err(Taken::NoChange);
        }
        let Ok(known) = self.answered() else {
            return Err(Taken::NoChange);
        };
        let seen = known
            .object
            .as_ref()
            .and_then(|object| text(object, "/metadata/resourceVersion"));
        // A read may be answered from a cache, or overtaken by a write that ended before it.
        let number = |version: &Option<String>| version.as_ref().and_then(|text| text.parse::<u64>().ok());
        let is_older = match (number(&seen), number(&self.now.resource_version)) {
            (Some(seen), Some(known)) => seen < known,
            _ => false,
        };
        let is_known = seen.is_some() && seen == self.now.resource_version;
        if is_older || self.now.is_gone || is_known && self.now.object.is_some() {
            return Err(Taken::NoChange);
        }
        Ok(self.version(known, Effect::Observed, None))
    }

    fn version(self, known: Known, effect: Effect, predicted: Option<Value>) -> Version {
        let now = self.now;
        let object = known.object;
        let about = |pointer: &str| object.as_ref().and_then(|object| text(object, pointer));
        let stated_uid = about("/metadata/uid");
        let resource_version = about("/metadata/resourceVersion");
        let is_other = stated_uid.is_some() && now.uid.is_some() && stated_uid != now.uid;
        let is_next = now.is_begun
            && (now.is_gone || is_other || (effect == Effect::Created && now.exactness.is_some()));
        let before = now.object.as_deref().filter(|_| !is_next && !now.is_gone);

        let mut unseen = None;
        if is_next && !now.is_gone {
            unseen = Some("the object before it was deleted without an event".to_owned());
        } else if now.is_gone && effect != Effect::Created {
            unseen = Some("it was created again without an event".to_owned());
        } else if effect == Effect::Observed && now.is_begun {
            unseen = Some("a read shows a version that no event made".to_owned());
        } else if let Some(before) = before {
            unseen = self.unseen_before(before, object.as_ref());
        }

        let is_same = resource_version.is_some()
            && resource_version == now.resource_version
            && !is_next
            && effect == Effect::Changed;
        // The last finalizer goes, and the object with it.
        if effect == Effect::Changed
            && object.as_ref().is_some_and(|object| {
                object
                    .pointer("/metadata/deletionTimestamp")
                    .is_some_and(|time| !time.is_null())
                    && !stays(object)
            })
            && before.is_some_and(has_finalizers)
        {
            return self.gone(object.as_ref(), known.reason);
        }
        // An update's body also holds what its client had read before.
        let is_patch = self.origin.verb == "patch";
        let needs_prediction = unseen.is_some() || now.exactness == Some(Exactness::Reconstructed);
        Version {
            effect: if is_same && now.object.is_some() {
                Effect::Unchanged
            } else {
                effect
            },
            exactness: known.exactness,
            reason: known.reason,
            resource_version,
            uid: stated_uid.or_else(|| now.uid.clone().filter(|_| !is_next)),
            incarnation: now.incarnation + u32::from(is_next),
            unseen,
            predicted: predicted
                .filter(|_| needs_prediction && is_patch && known.exactness == Exactness::Exact && !is_next)
                .map(Arc::new),
            object: object.map(Arc::new),
            origin: self.origin,
        }
    }

    /// What shows that the object was not as it is known when this request came.
    fn unseen_before(&self, before: &Value, after: Option<&Value>) -> Option<String> {
        let request = self.bodies.request.as_ref().ok().map(|body| &body.value);
        if let (Some(stated), Some(known)) = (
            request.and_then(|body| text(body, "/metadata/resourceVersion")),
            self.now.resource_version.as_ref(),
        ) && stated != *known
            && !stated.is_empty()
            && stated != "0"
        {
            return Some(format!(
                "the request was written for resourceVersion {stated}, the version before is {known}"
            ));
        }
        let generation = |object: &Value| object.pointer("/metadata/generation").and_then(Value::as_i64);
        let (old, new) = (generation(before)?, generation(after?)?);
        // Each change of the spec counts one; a status none; marking for deletion one.
        let expected = if self.origin.subresource == "status" {
            old
        } else {
            old + 1
        };
        let is_counted = self.now.exactness == Some(Exactness::Exact);
        (is_counted && new > expected)
            .then(|| format!("its generation went from {old} to {new}, which this request alone does not do"))
    }
}

/// An object that is to go stays while it has finalizers or a grace period.
fn stays(object: &Value) -> bool {
    object
        .pointer("/metadata/deletionTimestamp")
        .is_some_and(|time| !time.is_null())
        && (has_finalizers(object)
            || object
                .pointer("/metadata/deletionGracePeriodSeconds")
                .and_then(Value::as_i64)
                .is_some_and(|seconds| seconds > 0))
}

fn has_finalizers(object: &Value) -> bool {
    ["/metadata/finalizers", "/spec/finalizers"]
        .iter()
        .any(|pointer| {
            object
                .pointer(pointer)
                .and_then(Value::as_array)
                .is_some_and(|list| !list.is_empty())
        })
}

fn text(object: &Value, pointer: &str) -> Option<String> {
    object
        .pointer(pointer)?
        .as_str()
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}

fn joined(first: String, second: String) -> String {
    match (first.is_empty(), second.is_empty()) {
        (_, true) => first,
        (true, _) => second,
        _ => format!("{first}; {second}"),
    }
}

/// As metav1.Time prints it.
fn seconds(time: MicroTime) -> String {
    let (year, month, day, rest) = civil(time.unix_seconds);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

/// Days and seconds of the Gregorian calendar.
const fn civil(unix_seconds: i64) -> (i64, i64, i64, i64) {
    let days = unix_seconds.div_euclid(86_400) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day, unix_seconds.rem_euclid(86_400))
}
