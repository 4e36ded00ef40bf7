//! The client's configuration: which kaudits there are to ask.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use kaudit_dial::Server;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_saphyr::Spanned;

use super::{API_VERSION, MAX_FILE_BYTES, explain, nearest};
use crate::exit::Failure;

const KIND: &str = "ClientConfig";

/// The client's configuration file.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ClientConfig {
    /// `kaudit.dev/v1alpha1`.
    pub(crate) api_version: String,
    /// `ClientConfig`.
    pub(crate) kind: String,
    /// The context that is meant where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub(crate) current_context: Option<Spanned<String>>,
    /// The kaudits that can be asked, each by its name.
    #[serde(default)]
    #[schemars(with = "Vec<Context>")]
    pub(crate) contexts: Vec<Spanned<Context>>,
}

/// A kaudit that can be asked.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Context {
    /// What `--context` calls it.
    pub(crate) name: String,
    /// Address of its API, for example `https://kaudit.example.com`.
    pub(crate) server: String,
    /// File with the API's token. Here and below a relative path is one beside this file, and `~/` is the home
    /// directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
    /// Certificates of the authorities that are believed, PEM, in place of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
}

/// A file that was read, and where it was.
#[derive(Clone, Debug)]
pub(crate) struct ClientFile {
    pub(crate) path: PathBuf,
    pub(crate) config: ClientConfig,
    text: String,
}

/// Where the file is, unless the environment says otherwise: `$XDG_CONFIG_HOME/kaudit/config.yaml`, or the same below
/// `~/.config`. `None` without a home.
pub(crate) fn usual_path(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let of = |name: &str| {
        variable(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(path) = of("KAUDIT_CLIENT_CONFIG") {
        return Some(path);
    }
    let folder = of("XDG_CONFIG_HOME").filter(|folder| folder.is_absolute());
    let folder = folder.or_else(|| Some(of("HOME")?.join(".config")))?;
    Some(folder.join("kaudit/config.yaml"))
}

/// Whether a file says that it is one of a client.
pub(crate) fn is_of_a_client(path: &Path) -> bool {
    #[derive(Deserialize)]
    struct Kind {
        kind: String,
    }
    let is_small = std::fs::metadata(path).is_ok_and(|metadata| metadata.len() <= MAX_FILE_BYTES);
    is_small
        && std::fs::read_to_string(path)
            .is_ok_and(|text| serde_saphyr::from_str::<Kind>(&text).is_ok_and(|file| file.kind == KIND))
}

impl ClientFile {
    /// Reads a file; `None` when there is none.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, Failure> {
        let cannot = |error: io::Error| {
            let told = format!("cannot read the client's configuration `{}`", path.display());
            Failure::usage(anyhow::Error::new(error).context(told))
        };
        let length = match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(cannot(error)),
            Ok(metadata) => metadata.len(),
        };
        if length > MAX_FILE_BYTES {
            return Err(Failure::usage(anyhow!(
                "{}: a configuration file may have {MAX_FILE_BYTES} bytes, this one has {length}",
                path.display()
            )));
        }
        let text = std::fs::read_to_string(path).map_err(cannot)?;
        let config = ClientConfig::parse(&text)
            .map_err(|message| Failure::usage(anyhow!("{}: {message}", path.display())))?;
        Ok(Some(Self {
            path: path.to_owned(),
            config,
            text,
        }))
    }

    /// The context of a name, with the line on which it stands.
    pub(crate) fn context(&self, name: &str) -> Result<&Spanned<Context>, Failure> {
        let mut contexts = self.config.contexts.iter();
        if let Some(context) = contexts.find(|context| context.value.name == name) {
            return Ok(context);
        }
        let names: Vec<&str> = self.config.names().collect();
        let help = match (nearest(name, &names), names.as_slice()) {
            (Some(nearest), _) => format!("did you mean `{nearest}`?"),
            (None, []) => {
                "it has no contexts; add one below `contexts:` with name, server and tokenFile".to_owned()
            }
            (None, names) => format!("it has {}", names.join(", ")),
        };
        Err(Failure::usage(anyhow!(
            "{} has no context `{name}`\n  help: {help}",
            self.path.display()
        )))
    }

    /// The context that is meant where none is named.
    pub(crate) fn current(&self) -> Option<&Spanned<Context>> {
        let name = &self.config.current_context.as_ref()?.value;
        // That there is one was looked at when the file was read.
        self.config
            .contexts
            .iter()
            .find(|context| context.value.name == *name)
    }

    /// `FILE:LINE: context NAME`, for what is wrong with one.
    pub(crate) fn place(&self, context: &Spanned<Context>) -> String {
        format!(
            "{}:{}: context `{}`",
            self.path.display(),
            context.referenced.line(),
            context.value.name
        )
    }

    /// Where a file is that the configuration names.
    pub(crate) fn resolve(&self, file: &Path) -> PathBuf {
        if let (Ok(rest), Some(home)) = (file.strip_prefix("~"), std::env::home_dir()) {
            return home.join(rest);
        }
        match self.path.parent() {
            Some(folder) => folder.join(file),
            None => file.to_owned(),
        }
    }

    /// Makes a context the one that is meant where none is named. All else of the file stays as it is written.
    pub(crate) fn use_context(&self, name: &str) -> Result<(), Failure> {
        self.context(name)?;
        let text = with_current(&self.text, name);
        let is_changed = ClientConfig::parse(&text).is_ok_and(|config| {
            config
                .current_context
                .is_some_and(|current| current.value == name)
        });
        if !is_changed {
            return Err(Failure::usage(anyhow!(
                "{}: cannot find where `currentContext` stands\n  help: write `currentContext: {}` on a line of its own",
                self.path.display(),
                quoted(name)
            )));
        }
        replace(&self.path, &text).map_err(|error| {
            let told = format!("cannot write `{}`", self.path.display());
            Failure::unreachable(anyhow::Error::new(error).context(told))
        })
    }
}

impl ClientConfig {
    /// Parses the file's text; the error names line and column and says what to write instead.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let config: Self = serde_saphyr::from_str(text).map_err(|error| explain(&error))?;
        if config.api_version != API_VERSION || config.kind != KIND {
            return Err(format!(
                "`{}` of `{}` is not a configuration of a client: write `apiVersion: {API_VERSION}` and `kind: {KIND}`",
                config.kind, config.api_version
            ));
        }
        for (index, context) in config.contexts.iter().enumerate() {
            let wrong = |what: String| {
                let line = context.referenced.line();
                Err(format!("line {line}: context `{}`: {what}", context.value.name))
            };
            let Context {
                name,
                server,
                ca_file,
                ..
            } = &context.value;
            if name.is_empty() {
                return wrong("`name` is empty; write what --context shall call it".to_owned());
            }
            if config.names().take(index).any(|other| other == name) {
                return wrong(
                    "there is another one of this name above; give it a name of its own".to_owned(),
                );
            }
            match server.parse::<Server>() {
                Err(why) => {
                    return wrong(format!(
                        "`server: {server}`: {why}; write it as `https://kaudit.example.com`"
                    ));
                }
                Ok(server) if !server.is_https && ca_file.is_some() => {
                    return wrong(format!(
                        "`caFile` is of no use with {server}, which shows no certificate; write https:// or leave it out"
                    ));
                }
                Ok(_) => {}
            }
        }
        if let Some(current) = &config.current_context {
            let names: Vec<&str> = config.names().collect();
            if !names.contains(&current.value.as_str()) {
                let help = match nearest(&current.value, &names) {
                    Some(nearest) => format!("did you mean `{nearest}`?"),
                    None => format!("there are: {}", names.join(", ")),
                };
                return Err(format!(
                    "line {}: `currentContext: {}` names no context; {help}",
                    current.referenced.line(),
                    current.value
                ));
            }
        }
        Ok(config)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.contexts.iter().map(|context| context.value.name.as_str())
    }

    /// The JSON Schema of the file.
    pub(crate) fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }
}

/// The text with another `currentContext`, in the place of the one that it has or behind `kind`.
fn with_current(text: &str, name: &str) -> String {
    let line = format!("currentContext: {}", quoted(name));
    let is_current = |line: &str| line.starts_with("currentContext:");
    let has_one = text.lines().any(is_current);
    let mut out = String::with_capacity(text.len() + line.len() + 1);
    for old in text.split_inclusive('\n') {
        if is_current(old) {
            let comment = old.split_once(" #").map_or("", |(_, comment)| comment.trim_end());
            out.push_str(&line);
            if !comment.is_empty() {
                out.push_str(&format!(" #{comment}"));
            }
            out.push('\n');
            continue;
        }
        out.push_str(old);
        if !has_one && old.starts_with("kind:") {
            if !old.ends_with('\n') {
                out.push('\n');
            }
            out.push_str(&format!("{line}\n"));
        }
    }
    out
}

/// A text as YAML takes it for a text.
fn quoted(name: &str) -> String {
    let is_plain = name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name
            .chars()
            .all(|char| char.is_ascii_alphanumeric() || "-_./@".contains(char))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .iter()
            .any(|word| name.eq_ignore_ascii_case(word));
    if is_plain {
        name.to_owned()
    } else {
        format!("'{}'", name.replace('\'', "''"))
    }
}

/// Puts a text in the place of a file, whole or not at all; a link stays a link.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let path = std::fs::canonicalize(path)?;
    let new = path.with_extension("yaml.new");
    let mut file = std::fs::File::create(&new)?;
    file.set_permissions(std::fs::metadata(&path)?.permissions())?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, &path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: kaudit.dev/v1alpha1\nkind: ClientConfig\n";

    const TWO: &str = "# ours\napiVersion: kaudit.dev/v1alpha1\nkind: ClientConfig\ncurrentContext: prod # for now\ncontexts:\n- \
                       name: prod\n  server: https://kaudit.example.com # behind the proxy\n  tokenFile: prod.token\n  \
                       caFile: ~/ca.crt\n- {name: dev, server: 'http://127.0.0.1:7440'}\n";

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_what_to_write() {
        for (text, expected) in [
            (
                "contexts:\n- {name: a, sever: x}\n",
                "line 4, column 13: unknown key `sever`, did you mean `server`?",
            ),
            ("contexts:\n- {name: a}\n", "server"),
            (
                "contexts:\n- {name: a, server: 'ftp://x'}\n",
                "line 4: context `a`: `server: ftp://x`",
            ),
            (
                "contexts:\n- {name: a, server: 'http://x'}\n- {name: a, server: 'http://y'}\n",
                "line 5: context `a`: there is another",
            ),
            (
                "contexts:\n- {name: a, server: 'http://x', caFile: c}\n",
                "line 4: context `a`: `caFile` is of no use",
            ),
            (
                "contexts:\n- {name: prod, server: 'http://x'}\ncurrentContext: prd\n",
                "line 5: `currentContext: prd` names no context; did you mean `prod`?",
            ),
        ] {
            let message = ClientConfig::parse(&format!("{HEAD}{text}")).unwrap_err();
            assert!(
                message.contains(expected),
                "`{message}` does not contain `{expected}`"
            );
        }
        let message = ClientConfig::parse("apiVersion: kaudit.dev/v1alpha1\nkind: Config\n").unwrap_err();
        assert!(
            message.contains("write `apiVersion: kaudit.dev/v1alpha1` and `kind: ClientConfig`"),
            "{message}"
        );
    }

    #[test]
    fn the_file_is_where_the_environment_says() {
        let path = |variables: &[(&str, &str)]| {
            usual_path(|name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| OsString::from(value))
            })
        };
        let home = ("HOME", "/home/ada");
        assert_eq!(path(&[]), None);
        assert_eq!(path(&[home]), Some("/home/ada/.config/kaudit/config.yaml".into()));
        assert_eq!(
            path(&[home, ("XDG_CONFIG_HOME", "/x")]),
            Some("/x/kaudit/config.yaml".into())
        );
        // The specification tells to leave a relative one alone.
        assert_eq!(
            path(&[home, ("XDG_CONFIG_HOME", "x")]),
            Some("/home/ada/.config/kaudit/config.yaml".into())
        );
        assert_eq!(
            path(&[home, ("KAUDIT_CLIENT_CONFIG", "here.yaml")]),
            Some("here.yaml".into())
        );
    }

    #[test]
    fn another_current_context_changes_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        std::fs::write(&path, TWO).unwrap();
        let read = || ClientFile::read(&path).unwrap().unwrap();
        assert_eq!(read().current().unwrap().value.name, "prod");
        read().use_context("dev").unwrap();
        assert_eq!(read().current().unwrap().value.name, "dev");
        let expected = TWO.replace("currentContext: prod", "currentContext: dev");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
        let message = read().use_context("prd").unwrap_err().to_string();
        assert!(message.contains("did you mean `prod`?"), "{message}");

        std::fs::write(&path, TWO.replace("currentContext: prod # for now\n", "")).unwrap();
        assert!(read().current().is_none());
        read().use_context("prod").unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            TWO.replace(" # for now", "")
        );
    }

    #[test]
    fn files_are_beside_the_configuration() {
        let file = ClientFile {
            path: "/home/ada/.config/kaudit/config.yaml".into(),
            config: ClientConfig::parse(TWO).unwrap(),
            text: TWO.to_owned(),
        };
        let resolved = |path: &str| file.resolve(Path::new(path));
        assert_eq!(
            resolved("prod.token"),
            Path::new("/home/ada/.config/kaudit/prod.token")
        );
        assert_eq!(resolved("/etc/ca.crt"), Path::new("/etc/ca.crt"));
        assert_eq!(resolved("~/ca.crt"), std::env::home_dir().unwrap().join("ca.crt"));
        assert_eq!(
            file.place(file.context("dev").unwrap()),
            "/home/ada/.config/kaudit/config.yaml:10: context `dev`"
        );
    }
}
