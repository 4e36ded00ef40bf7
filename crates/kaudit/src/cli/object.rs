//! One object over time, for `kaudit history` and `kaudit blame`.

use anyhow::anyhow;
use clap::Args;
use kaudit_history::patch::Resource;
use kaudit_history::{Exactness, History, Limits, Mask, Origin, Relation, Reveal, Target};
use kaudit_query::{Filter, micros};

use super::ask::{self, From, Times};
use super::say;
use super::zone::Zone;
use crate::asking::times::quoted;
use crate::asking::{self, Fold, Found, Hit, Newest, Order, Question};
use crate::exit::{Exit, Failure};

/// Which object, and from where.
#[derive(Debug, Args)]
pub(super) struct Object {
    /// The object, as deploy/api, deployments.apps/api or secret/db-password
    #[arg(value_name = "TYPE/NAME")]
    object: String,
    /// Its namespace
    #[arg(
        short,
        long,
        value_name = "NAMESPACE",
        default_value = "",
        hide_default_value = true
    )]
    namespace: String,
    #[command(flatten)]
    from: From,
    #[command(flatten)]
    times: Times,
    /// Show the values of Secrets
    #[arg(long)]
    reveal: bool,
}

/// Events about one object that are looked at.
const MOST: usize = 200_000;
const MOST_BYTES: usize = 256 << 20;

struct Keeping<'a> {
    target: &'a Target,
    newest: Newest,
}

impl Fold for Keeping<'_> {
    fn found(&mut self, mut found: Found<'_>) {
        let target = self.target;
        let is_about = found
            .event()
            .is_some_and(|event| target.relation(&event.view()) != Relation::None);
        if is_about {
            self.newest.add_found(found);
        }
    }
}

impl Object {
    /// Its history; not done when there were more events than are looked at.
    pub(super) fn history(&self) -> Result<(History, Exit), Failure> {
        let target = Target::parse(&self.object, &self.namespace).map_err(|error| {
            let hint = if self.namespace.is_empty() {
                "\n  help: give it with -n"
            } else {
                ""
            };
            Failure::usage(anyhow!("{error}{hint}"))
        })?;
        let about = Filter::parse(&about(&target), ask::now())
            .map_err(|_| Failure::usage(anyhow!("`{}` is no name of a resource", target.resource)))?;
        let question = Question::new(self.times.narrow(about, ask::now())?)
            .comparable()
            .revealed(self.reveal);
        let make = || Keeping {
            target: &target,
            newest: Newest::new(Order::Newest, MOST, MOST_BYTES),
        };
        let (folds, scanned) = asking::scan(self.from.place()?, &question, make)?;
        ask::tell_strays(&scanned);
        let mut all = make().newest;
        let mut found = 0;
        for fold in folds {
            found += fold.newest.len();
            all.merge(fold.newest);
        }
        let (hits, is_short) = all.finish();
        let is_cut = is_short || hits.len() < found;
        let history = of_events(&target, &hits);
        if is_cut {
            say(format_args!(
                "note: only the newest {} events about it were looked at",
                hits.len()
            ));
        }
        if history.forgotten() > 0 {
            say(format_args!(
                "note: {} older versions were let go",
                history.forgotten()
            ));
        }
        let exit = if is_cut { Exit::Partial } else { Exit::Done };
        Ok((history, ask::whole(&scanned, exit)))
    }

    /// In which times are shown.
    pub(super) fn zone(&self) -> Result<Zone, Failure> {
        self.times.zone()
    }

    pub(super) fn mask(&self) -> Mask {
        mask(if self.reveal { Reveal::Yes } else { Reveal::No })
    }

    pub(super) fn named(&self) -> &str {
        &self.object
    }
}

/// Shows that a masked value changed by a key which nobody has after this.
pub(crate) fn mask(reveal: Reveal) -> Mask {
    let mut key = [0; 32];
    match getrandom::fill(&mut key) {
        Ok(()) => Mask::keyed(key, reveal),
        Err(_) => Mask::without_key(reveal),
    }
}

/// What all events that a target is concerned with satisfy, so that a server sends no others: its own, and those of
/// several objects or of one whose name is in the body.
pub(crate) fn about(target: &Target) -> String {
    let mut text = format!(
        "objectRef.resource = {} and (objectRef.name = {} or \
         (verb: (create or deletecollection) and not objectRef.name: *))",
        quoted(&target.resource),
        quoted(&target.name)
    );
    if !target.namespace.is_empty() {
        text += &format!(
            " and (objectRef.namespace = {} or not objectRef.namespace: *)",
            quoted(&target.namespace)
        );
    }
    text
}

/// The newest event first.
fn of_events(target: &Target, hits: &[Hit]) -> History {
    let mut history = History::new(target.clone(), Limits::default());
    for hit in hits.iter().rev() {
        history.push(hit.number, &hit.event.view());
    }
    history
}

pub(super) fn resource(target: &Target) -> Resource<'_> {
    Resource {
        group: target.group.as_deref().unwrap_or_default(),
        resource: &target.resource,
    }
}

/// The word for how well a version is known.
pub(super) const fn exactness(exactness: Exactness) -> &'static str {
    match exactness {
        Exactness::Exact => "exact",
        Exactness::Reconstructed => "reconstructed",
        Exactness::Unavailable => "unavailable",
    }
}

/// When it was written.
pub(super) fn time(origin: &Origin, zone: &Zone) -> String {
    zone.to_second(micros(origin.time))
}

/// Who wrote.
pub(super) fn who(origin: &Origin) -> String {
    let own = super::show::short_user(&super::show::plain(origin.user.as_bytes()));
    match &origin.impersonated {
        Some(other) => format!(
            "{own} as {}",
            super::show::short_user(&super::show::plain(other.as_bytes()))
        ),
        None => own,
    }
}
