//! Where events go, as an operator sees it: the backends of flags and file, and AuditSink objects from a
//! watched folder and from the API.

mod objects;
mod report;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kaudit_backend::dynamic::{AuditSink, Dynamic, Surroundings};
use kaudit_sink::Counters;
use tracing::{error, info};

use self::objects::{Found, Problem};
pub(crate) use self::report::{Row, State};

/// A backend that flags or the configuration file ask for.
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    /// `log` or `webhook`.
    pub(crate) name: &'static str,
    /// Path or address.
    pub(crate) target: String,
    /// In upstream's notation.
    pub(crate) composition: String,
    pub(crate) counters: Arc<Counters>,
}

/// All sinks.
#[derive(Debug)]
pub(crate) struct Sinks {
    backends: Vec<Backend>,
    dynamic: Arc<Dynamic>,
    /// The watched folder.
    watched: Option<PathBuf>,
    /// Where objects from the API are kept, so that they outlive the process.
    kept: Option<PathBuf>,
    surroundings: Surroundings,
    state: Mutex<Known>,
}

/// What was found when the folders were last looked at.
#[derive(Debug, Default)]
struct Known {
    contents: Vec<(PathBuf, Vec<u8>)>,
    found: Vec<Found>,
    problems: Vec<Problem>,
}

/// Why the API does not take or remove an object.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// The object is not valid.
    #[error("{0}")]
    Invalid(String),
    /// The name is another file's.
    #[error("AuditSink `{name}` is defined in {file}: edit it there")]
    Elsewhere { name: String, file: String },
    /// There is no such object.
    #[error("there is no AuditSink `{0}`")]
    Absent(String),
    /// It cannot be kept.
    #[error("cannot keep AuditSink `{name}`")]
    Io { name: String, source: std::io::Error },
    /// Nothing is kept here.
    #[error(
        "this process keeps no objects: give it a data directory (`dataDir`), or a folder of objects (`audit.sinkDir`)"
    )]
    NowhereToKeep,
}

impl Sinks {
    pub(crate) fn new(
        backends: Vec<Backend>,
        dynamic: Arc<Dynamic>,
        watched: Option<PathBuf>,
        kept: Option<PathBuf>,
        surroundings: Surroundings,
    ) -> Self {
        Self {
            backends,
            dynamic,
            watched,
            kept,
            surroundings,
            state: Mutex::default(),
        }
    }

    /// The counters of every backend, for metrics.
    pub(crate) fn counters(&self) -> Vec<Arc<Counters>> {
        let of_backends = self.backends.iter().map(|backend| Arc::clone(&backend.counters));
        of_backends.chain(self.dynamic.counters()).collect()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the folders, and starts, changes and removes sinks where something changed. Blocks.
    pub(crate) fn look(&self) {
        let mut known = self.known();
        let folders = [self.watched.as_deref(), self.kept.as_deref()];
        let (contents, unreadable) = objects::read(folders.into_iter().flatten());
        if contents == known.contents && unreadable == known.unreadable() {
            return;
        }
        let (found, invalid) = objects::parse(&contents, self.surroundings);
        let mut problems = unreadable;
        problems.extend(invalid);
        let objects = found.iter().map(|found| found.object.clone()).collect();
        for (name, why) in self.dynamic.replace(objects) {
            let file = found
                .iter()
                .find(|found| found.object.name == name)
                .map(|found| found.file.clone())
                .unwrap_or_default();
            problems.push(Problem::not_started(file, name, why));
        }
        for problem in problems
            .iter()
            .filter(|problem| !known.problems.contains(problem))
        {
            error!(file = %problem.file.display(), "an audit sink cannot be used: {problem}");
        }
        if known.problems.iter().any(|problem| !problems.contains(problem)) && problems.is_empty() {
            info!("all audit sinks can be used");
        }
        *known = Known {
            contents,
            found,
            problems,
        };
    }

    /// Registers the object in `text`, or changes it.
    pub(crate) fn put(&self, name: &str, text: &str) -> Result<(), Refused> {
        let folder = self.kept.as_deref().ok_or(Refused::NowhereToKeep)?;
        let object = self.single(name, text)?;
        if let Some(file) = self.file_elsewhere(name) {
            return Err(Refused::Elsewhere {
                name: name.to_owned(),
                file,
            });
        }
        let io = |source| Refused::Io {
            name: name.to_owned(),
            source,
        };
        let before = objects::write(folder, &object.name, text).map_err(io)?;
        self.look();
        let failure = self
            .known()
            .problems
            .iter()
            .find(|problem| problem.name.as_deref() == Some(name))
            .map(ToString::to_string);
        let Some(failure) = failure else {
            return Ok(());
        };
        objects::restore(folder, name, before).map_err(io)?;
        self.look();
        Err(Refused::Invalid(failure))
    }

    /// The one object of a request's body, under the name of its address.
    fn single(&self, name: &str, text: &str) -> Result<AuditSink, Refused> {
        let mut objects = AuditSink::parse_all(text, self.surroundings);
        match (objects.pop(), objects.is_empty()) {
            (Some(Ok(object)), true) if object.name == name => Ok(object),
            (Some(Ok(object)), true) => Err(Refused::Invalid(format!(
                "the object's name is `{}`, the address says `{name}`",
                object.name
            ))),
            (Some(Err(invalid)), true) => Err(Refused::Invalid(invalid.to_string())),
            (None, _) => Err(Refused::Invalid("there is no object in the request".to_owned())),
            (Some(_), false) => Err(Refused::Invalid(
                "there is more than one object in the request: send them one by one".to_owned(),
            )),
        }
    }

    /// The file outside of the kept ones that defines `name`.
    fn file_elsewhere(&self, name: &str) -> Option<String> {
        let known = self.known();
        let found = known.found.iter().find(|found| found.object.name == name)?;
        let is_kept = self
            .kept
            .as_deref()
            .is_some_and(|kept| found.file.starts_with(kept));
        (!is_kept).then(|| found.file.display().to_string())
    }

    /// Removes an object that the API registered; what it still holds is delivered.
    pub(crate) fn delete(&self, name: &str) -> Result<(), Refused> {
        if let Some(file) = self.file_elsewhere(name) {
            return Err(Refused::Elsewhere {
                name: name.to_owned(),
                file,
            });
        }
        let is_known = self.known().found.iter().any(|found| found.object.name == name);
        let Some(folder) = self.kept.as_deref().filter(|_| is_known) else {
            return Err(Refused::Absent(name.to_owned()));
        };
        objects::restore(folder, name, None).map_err(|source| Refused::Io {
            name: name.to_owned(),
            source,
        })?;
        self.look();
        Ok(())
    }

    /// Every sink with its state.
    pub(crate) fn list(&self) -> Vec<Row> {
        let known = self.known();
        let mut rows: Vec<Row> = self.backends.iter().map(Row::of_backend).collect();
        rows.extend(self.dynamic.statuses().into_iter().map(|status| {
            let file = known
                .found
                .iter()
                .find(|found| found.object.name == status.object.name)
                .map(|found| found.file.as_path());
            Row::of_dynamic(&status, file)
        }));
        rows.extend(known.problems.iter().map(Row::of_problem));
        rows
    }
}

impl Known {
    fn unreadable(&self) -> Vec<Problem> {
        let unreadable = self.problems.iter().filter(|problem| problem.is_unreadable());
        unreadable.cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use kaudit_sink::recording::Recording;
    use kaudit_sink::{Demand, Sink};

    use super::*;

    fn object(name: &str, url: &str) -> String {
        format!(
            "apiVersion: auditregistration.k8s.io/v1alpha1\nkind: AuditSink\nmetadata: {{name: {name}}}\nspec:\n  \
             policy: {{level: Metadata, stages: [ResponseComplete]}}\n  webhook: {{clientConfig: {{url: '{url}'}}}}\n"
        )
    }

    fn at(watched: PathBuf, kept: PathBuf) -> Sinks {
        let start = |object: &AuditSink, _: &Arc<Counters>| {
            if object.url.contains("broken") {
                return Err("no route".to_owned());
            }
            Ok(Arc::new(Recording::default()) as Arc<dyn Sink>)
        };
        let dynamic = Arc::new(Dynamic::new(Demand::default(), Box::new(start)));
        Sinks::new(
            Vec::new(),
            dynamic,
            Some(watched),
            Some(kept),
            Surroundings::Outside,
        )
    }

    fn names(sinks: &Sinks) -> Vec<(String, State)> {
        let rows = sinks.list().into_iter();
        rows.filter(|row| row.state != State::Draining)
            .map(|row| (row.name, row.state))
            .collect()
    }

    #[test]
    fn folders_and_the_api_register_change_and_remove_sinks() {
        let folder = tempfile::tempdir().unwrap();
        let (watched, kept) = (folder.path().join("watched"), folder.path().join("kept"));
        std::fs::create_dir(&watched).unwrap();
        let active = |name: &str| (name.to_owned(), State::Active);
        let sinks = at(watched.clone(), kept.clone());
        sinks.look();
        assert!(names(&sinks).is_empty());

        std::fs::write(watched.join("a.yaml"), object("a", "https://a")).unwrap();
        sinks.look();
        assert_eq!(names(&sinks), [active("a")]);

        sinks.put("b", &object("b", "https://b")).unwrap();
        assert_eq!(names(&sinks), [active("a"), active("b")]);
        assert!(matches!(
            sinks.put("a", &object("a", "https://x")),
            Err(Refused::Elsewhere { .. })
        ));
        assert!(matches!(
            sinks.put("c", &object("b", "https://x")),
            Err(Refused::Invalid(_))
        ));
        assert!(matches!(sinks.delete("a"), Err(Refused::Elsewhere { .. })));
        assert!(matches!(sinks.delete("x"), Err(Refused::Absent(_))));

        // What cannot be started leaves what was there.
        let refused = sinks.put("b", &object("b", "https://broken")).unwrap_err();
        assert!(refused.to_string().contains("no route"), "{refused}");
        assert_eq!(names(&sinks), [active("a"), active("b")]);
        assert!(
            std::fs::read_to_string(kept.join("b.yaml"))
                .unwrap()
                .contains("https://b")
        );

        // Another process finds what the API registered.
        let again = at(watched.clone(), kept.clone());
        again.look();
        assert_eq!(names(&again), [active("a"), active("b")]);

        sinks.delete("b").unwrap();
        std::fs::remove_file(watched.join("a.yaml")).unwrap();
        sinks.look();
        assert!(names(&sinks).is_empty());
    }

    #[test]
    fn an_invalid_object_is_shown_with_file_line_and_reason_and_costs_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let watched = folder.path().to_owned();
        let text = format!("{}---\n{}", object("a", "https://a"), object("b", "ftp://b"));
        std::fs::write(watched.join("two.yaml"), text).unwrap();
        std::fs::write(watched.join("twice.yaml"), object("a", "https://other")).unwrap();
        std::fs::write(watched.join("notes.txt"), "no object").unwrap();
        let sinks = at(watched, folder.path().join("kept"));
        sinks.look();
        let rows = sinks.list();
        let states: Vec<(&str, State)> = rows.iter().map(|row| (row.name.as_str(), row.state)).collect();
        assert_eq!(
            states,
            [("a", State::Active), ("a", State::Invalid), ("b", State::Invalid)]
        );
        let twice = rows[1].last_error.as_ref().unwrap();
        assert!(
            twice.contains("twice.yaml") && twice.contains("is defined twice"),
            "{twice}"
        );
        let invalid = rows[2].last_error.as_ref().unwrap();
        assert!(
            invalid.contains("two.yaml:13") && invalid.contains("does not begin with"),
            "{invalid}"
        );
    }
}
